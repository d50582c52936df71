"""A recipe: one published system or shipped model as data. A YAML file names only what differs from these defaults."""

import dataclasses
import difflib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from fer_hf.data.loaders import LABEL_KINDS, SCORED_BY
from fer_hf.data.sources import SourceOptions
from fer_hf.data.transforms import AugmentOptions
from fer_hf.labels import vocabulary
from training.averaging import AverageRecipe
from training.distillation import DistillRecipe
from training.losses import LossRecipe
from training.optimizers import OptimizerRecipe
from training.schedules import ScheduleRecipe


@dataclass
class ModelRecipe:
    """Which network, and what it starts from."""

    type: str = "fer_resnet_swish"  # a model_type of fer_hf.models
    config: dict = field(default_factory=dict)  # what differs from that class's defaults; labels come from `data`
    pretrained: bool = False  # ImageNet weights of the timm backbone, from the Hub
    start_from: str | None = None  # a saved model or Hub id: without a config it goes on, with one it lends what fits

    def __post_init__(self):
        if self.pretrained and self.start_from:
            raise ValueError("model.pretrained and model.start_from exclude each other: give one start")


@dataclass
class ProcessorRecipe:
    """Preprocessing that travels with the model; size and channels come from the model's config."""

    image_mean: list[float] = field(default_factory=lambda: [0.5])
    image_std: list[float] = field(default_factory=lambda: [0.25])
    face_template: list[list[float]] | None = None
    face_margin: float = 0.2


@dataclass
class DataRecipe:
    """What is learned from, and what chooses the checkpoint."""

    source: SourceOptions = field(default_factory=SourceOptions)  # how it is read: classes, remaps, splits, …
    labels: str = "fer2013"
    validation_labels: str | None = None  # defaults to `labels`; distributions are judged by SCORED_BY
    drop_leaking: bool = True  # leave out training rows that equal a validation row
    fraction: float = 1.0  # of the training rows, drawn by seed, for trials
    weighted_sampling: bool = False  # draw classes equally often
    in_memory: bool = True  # False: decode each batch when it is drawn, for data larger than the device

    def __post_init__(self):
        for name in ("labels", "validation_labels"):
            if getattr(self, name) not in (*LABEL_KINDS, *([None] if name != "labels" else [])):
                raise ValueError(f"data.{name} is {getattr(self, name)!r}; choose one of {', '.join(LABEL_KINDS)}")
        if self.validation_labels is None:
            self.validation_labels = SCORED_BY.get(self.labels, self.labels)
        if not 0 < self.fraction <= 1:
            raise ValueError(f"data.fraction must be in (0, 1]; {self.fraction} was given")
        if self.source.streaming:
            raise ValueError(
                "data.source.streaming reads rows in their order, and training draws at random: leave it out"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The classes in order."""
        return vocabulary(self.source.classes)


@dataclass
class Phase:
    """Some epochs with their own rate, part of the network, augmentation and teacher."""

    epochs: int
    lr: float | None = None  # defaults to optimizer.lr
    train_last: int | None = None  # the last N leaf modules with parameters; None: all; 0: the classifier head only
    augment: AugmentOptions | None = None  # in place of the recipe's, whole
    distill: DistillRecipe | None = None  # likewise

    def __post_init__(self):
        if self.epochs < 1:
            raise ValueError(f"a phase needs at least one epoch; {self.epochs} was given")


@dataclass
class Recipe:
    """Everything a run is, but for the place of its data and its output."""

    name: str
    source: str = ""  # which published system, or why this recipe exists
    claim: str = ""  # the published figures, with the split they were taken on
    claimed_accuracy: float | None = None  # per cent, on the published validation split or one not stated
    trials: int = 1  # runs of this system that were made before this one was chosen, itself included
    seed: int = 0
    epochs: int = 50
    batch_size: int = 128  # over all processes together
    precision: str = "auto"  # auto, bf16, fp32; auto is bf16 where that is faster
    compile: bool = False  # torch.compile; worth its minute where plain convolutions dominate: docs/lessons.md
    record: bool = True  # on one GPU, replay each step as a CUDA graph; false launches it kernel by kernel
    early_stopping: int | None = None  # epochs of one phase without a better validation score
    select: str = "accuracy"  # the validation figure that chooses the checkpoint: accuracy, macro_f1, loss; or last
    model: ModelRecipe = field(default_factory=ModelRecipe)
    processor: ProcessorRecipe = field(default_factory=ProcessorRecipe)
    data: DataRecipe = field(default_factory=DataRecipe)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    loss: LossRecipe = field(default_factory=LossRecipe)
    optimizer: OptimizerRecipe = field(default_factory=OptimizerRecipe)
    schedule: ScheduleRecipe = field(default_factory=ScheduleRecipe)
    average: AverageRecipe = field(default_factory=AverageRecipe)
    distill: DistillRecipe = field(default_factory=DistillRecipe)
    phases: list[Phase] = field(default_factory=list)  # in place of `epochs`

    def __post_init__(self):
        if self.precision not in ("auto", "bf16", "fp32"):
            raise ValueError(f"precision is {self.precision!r}; choose auto, bf16 or fp32")
        if self.select not in ("accuracy", "macro_f1", "loss", "last"):
            raise ValueError(f"select is {self.select!r}; choose accuracy, macro_f1, loss or last")
        if self.select == "last" and (self.early_stopping is not None or self.schedule.name == "plateau"):
            raise ValueError("select: last watches no figure, as early_stopping and the plateau schedule do; drop them")
        if self.phases:
            self.epochs = sum(phase.epochs for phase in self.phases)
        else:
            self.phases = [Phase(self.epochs)]
        if self.claimed_accuracy is not None and not 1 <= self.claimed_accuracy <= 100:
            raise ValueError(f"claimed_accuracy is in per cent, from 1 to 100; {self.claimed_accuracy} was given")
        if self.early_stopping is not None and self.early_stopping < 1:
            raise ValueError(
                f"early_stopping counts epochs, from 1; {self.early_stopping} was given: leave it out for none"
            )
        if self.trials < 1:
            raise ValueError(f"trials counts this run too, so it is at least 1; {self.trials} was given")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; {self.batch_size} was given")


def as_run(recipe: Recipe, phase_epochs: typing.Sequence[int]) -> Recipe:
    """The recipe of what was run: its phases with the epochs that each of them had, without those that had none."""
    run = zip(recipe.phases, phase_epochs, strict=True)
    return dataclasses.replace(recipe, phases=[dataclasses.replace(phase, epochs=n) for phase, n in run if n])


def load_recipe(path: str | Path, overrides: typing.Sequence[str] = ()) -> Recipe:
    """Read a YAML recipe; ``overrides`` are ``key.sub=value`` with YAML values.

    Raises ValueError that names the file and the key for unknown keys (with the nearest known one) and wrong types.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{path}: no such recipe; give a YAML file such as training/recipes/finetune.yaml") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a mapping of recipe keys")
    # A file may say both only alike; overriding phases stands for the epochs of the file, and not the other way round.
    says_both = {"epochs", "phases"} <= values.keys() and not any(text.startswith("phases") for text in overrides)
    for text in overrides:
        override(values, text)
    try:
        recipe = build(Recipe, values)
        asked = says_both or any(text.startswith("epochs=") for text in overrides)
        if asked and values["epochs"] != recipe.epochs:
            raise ValueError(
                f"epochs is {values['epochs']}, and the phases have {recipe.epochs} in all: set theirs, such as "
                "phases.0.epochs=20"
            )
        return recipe
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def override(values: dict, text: str) -> None:
    """Set what ``key.sub=value`` says in a nested mapping; the value is YAML, and numbers count a list's items from 0.

    Raises ValueError where it does not fit.
    """
    key, found, value = text.partition("=")
    if not found:
        raise ValueError(f"{text!r} is no override; write key=value, such as optimizer.lr=0.05")
    *parents, last = key.split(".")
    place: dict | list = values
    try:
        for parent in parents:
            place = place[int(parent)] if isinstance(place, list) else place.setdefault(parent, {})
        place[int(last) if isinstance(place, list) else last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(f"{text!r}: the value is not valid YAML ({' '.join(str(error).split())})") from None
    except (AttributeError, IndexError, TypeError, ValueError):
        raise ValueError(
            f"{text!r} leads into something that has no such part; write it as the recipe nests it"
        ) from None


def build(kind: type, values: dict, where: str = ""):
    """An instance of a dataclass from plain values, recursively; unknown keys and wrong types raise ValueError."""
    if not isinstance(values, dict):
        raise ValueError(f"{where.rstrip('.') or 'the recipe'} must be a mapping; {values!r} was given")
    hints = typing.get_type_hints(kind)
    for key in values:
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1, cutoff=0.5)
            hint = f"; did you mean {where}{near[0]}?" if near else f"; known are {', '.join(hints)}"
            raise ValueError(f"unknown key {where}{key}{hint}")
    missing = [
        f.name
        for f in dataclasses.fields(kind)
        if f.default is f.default_factory is dataclasses.MISSING and f.name not in values
    ]
    if missing:
        raise ValueError(f"key {where}{missing[0]} is required")
    return kind(**{key: _convert(hints[key], value, where + key) for key, value in values.items()})


def _convert(hint, value, where: str):
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _convert(next(arg for arg in args if arg is not type(None)), value, where)
    if dataclasses.is_dataclass(hint):
        return build(hint, value, where + ".")
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where} must be a mapping; {value!r} was given")
        return {str(key): _convert(args[1], item, f"{where}.{key}") for key, item in value.items()}
    if origin in (list, tuple):
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where} must be a list; {value!r} was given")
        return origin(_convert(args[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):
        return _number(value, where)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ValueError(f"{where} must be {hint.__name__}; {value!r} was given")
    return value


def _number(text: str, where: str) -> float:
    """YAML 1.1 reads 1e-4 as text; it is a number."""
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{where} must be float; {text!r} was given") from None


def dump_recipe(recipe: Recipe) -> str:
    """The effective recipe as YAML, every key written out."""

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    return yaml.safe_dump(plain(dataclasses.asdict(recipe)), sort_keys=False)
