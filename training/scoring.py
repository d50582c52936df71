"""A saved model on a split: loading both, running one over the other, and what records say of the two."""

import argparse
import hashlib
import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import torch
import yaml

from fer_hf.data.loaders import ArraySplit, load_arrays
from fer_hf.data.sources import SourceOptions, load_source
from fer_hf.download import ModelError, download_model
from fer_hf.model_folder import weight_files
from fer_hf.models.image_processing_fer import FerImageProcessor
from fer_hf.models.modeling_ensemble import FerEnsembleForImageClassification
from fer_hf.models.modeling_fer import FerPreTrainedModel
from training.arguments import positive
from training.config import build, override
from training.intervals import RESAMPLES, SEED
from training.precision import layout
from training.provenance import FILE_NAME as USED
from training.provenance import row_ids_sha256
from training.report import Scored
from training.starting import load_ours
from training.views import View, parse_views, predict_views

LABELS = ("fer2013", "ferplus-majority", "dataset")
"""Labels that say one class for each row, so that a row can be right or wrong."""
RECORDS = (USED, "recipe.yaml")
"""What a model's folder says of the data that the model has seen."""


def add_split_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a command what says which rows are scored, by which labels, and how intervals are drawn."""
    parser.add_argument(
        "--data",
        required=True,
        nargs="+",
        action="extend",
        help="folders of parquet, fer2013.csv, class folders or Hub ids; several merge",
    )
    add_reading_arguments(parser)
    parser.add_argument("--split", default="validation", help="train, validation or test (default: %(default)s)")
    parser.add_argument("--labels", default="fer2013", choices=LABELS, help="what is right (default: %(default)s)")
    parser.add_argument("--resamples", type=positive, default=RESAMPLES, help="bootstrap draws (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")


def add_reading_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a command what says how its ``--data`` is read."""
    parser.add_argument("--votes", help="fer2013new.csv, where the data carries no FER+ votes")
    parser.add_argument(
        "--source",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="keys of a recipe's data.source, such as numbering=affectnet or splits.validation=0.25",
    )


def source_options(arguments: argparse.Namespace, classes: int) -> SourceOptions:
    """How the arguments say that data are read. Raises ValueError that names an unknown key."""
    values: dict = {}
    for pair in arguments.source:
        override(values, pair)
    for key, instead in (
        ("classes", "the model has its own"),
        ("votes", "give --votes"),
        ("streaming", "rows are kept"),
    ):
        if key in values:
            raise ValueError(f"--source {key} cannot be set here: {instead}")
    return build(SourceOptions, values | {"classes": classes, "votes": arguments.votes}, "--source ")


def source_text(arguments: argparse.Namespace) -> str:
    """The ``--votes`` and ``--source`` of a command line, with a placeholder for the file of votes."""
    source = shlex.join(map(placeless_pair, arguments.source))
    return (" --votes VOTES" if arguments.votes else "") + (f" --source {source}" if source else "")


def placeless(path: str) -> str:
    """A path for a record: from here on where it lies here, else its end; what is relative or a Hub id stays."""
    if not Path(path).is_absolute():
        return path
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else "/".join(Path(path).parts[1:][-2:])


def placeless_pair(pair: str) -> str:
    """KEY=VALUE for a record."""
    key, equals, value = pair.partition("=")
    return key + equals + placeless(value)


def make_place(output: Path) -> None:
    """Make the folder of a file that is written after the work. Raises ValueError where ``output`` is a folder."""
    if output.is_dir():
        raise ValueError(f"--output {output} is a folder; name the file that should be written in it")
    output.parent.mkdir(parents=True, exist_ok=True)


def drawn_rows(split: ArraySplit, rows: int | None, seed: int) -> ArraySplit:
    """So many rows drawn by seed, in their order; all where ``rows`` is None."""
    if rows is None:
        return split
    return split.select(np.sort(np.random.default_rng(seed).permutation(len(split))[:rows]))


def warn_of_other_reading(loaded: "Loaded", options: SourceOptions) -> None:
    """Say on stderr where a model learned from data that were read otherwise: labels or splits may not be the same."""
    path = loaded.folder / "recipe.yaml"
    learned = yaml.safe_load(path.read_text(encoding="utf-8"))["data"].get("source", {}) if path.is_file() else {}
    keys = ["numbering", "remap", "splits", "folds", "fold"]
    if learned.get("splits") or learned.get("folds"):
        keys += ["seed", "subject_pattern", "leave_out"]  # by which rows fall into them
    other = {key: learned[key] for key in keys if key in learned and learned[key] != getattr(options, key)}
    if other:
        pairs = " ".join(
            shlex.quote(f"{key}={value if isinstance(value, str) else json.dumps(value)}")
            for key, value in other.items()
        )
        print(
            f"{loaded.name} learned from data read with {pairs}; for the same data, add --source {pairs}",
            file=sys.stderr,
        )


@dataclass(frozen=True)
class Loaded:
    """A model ready to be scored, and the folder its files lie in."""

    name: str
    model: FerPreTrainedModel
    processor: FerImageProcessor
    folder: Path
    weights_sha256: str  # of the files the model was read from

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.model.config.id2label[index] for index in range(len(self.model.config.id2label)))


def load(name_or_path: str, device: str) -> Loaded:
    """A model and its processor from a folder or the Hub. Raises ValueError where it is no model of this package."""
    loaded = load_ours(name_or_path, "are scored")
    name, folder = model_name(name_or_path), folder_of(name_or_path, loaded.revision)
    model = loaded.model.to(device, memory_format=layout(loaded.model, torch.device(device)))
    return Loaded(name, model, loaded.processor, folder, hash_weights(folder))


def folder_of(name_or_path: str, commit: str | None) -> Path:
    """The folder of a loaded model's files, with what they say of the data it has seen; from the Hub at a commit."""
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    name = model_name(name_or_path)
    folder, _ = download_model(name, commit)
    try:
        download_model(name, commit, files=RECORDS)
    except ModelError:  # the cache holds what answers, and no more
        print(f"{name}: what its repository says of the data it has seen cannot be had now", file=sys.stderr)
    return folder


def model_name(name_or_path: str) -> str:
    """What a model is called in reports: its folder's name, or its Hub id without the revision."""
    path = Path(name_or_path)
    return path.resolve().name if path.is_dir() else name_or_path.partition("@")[0]


def hash_weights(folder: Path) -> str:
    """SHA-256 of the files that a model's weights are read from, by which records say what they are of."""
    digest = hashlib.sha256()
    for file in weight_files(folder):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def load_split(data: list[str], split: str, options: SourceOptions) -> datasets.Dataset:
    """One split of a data set, as ``fer_hf.data.sources`` reads it.

    Raises ValueError that names the splits there are.
    """
    splits = load_source(data, options)
    if split not in splits:
        raise ValueError(
            f"{' '.join(data)} has no split {split!r}; it has {', '.join(splits)}: choose one with --split, or cut it "
            f"from train as training did, such as --source splits.{split}=0.25"
        )
    return splits[split]


def open_split(loaded: Loaded, arguments: argparse.Namespace) -> tuple[ArraySplit, int]:
    """The split that the arguments name, as the model takes it, and how many rows were left out for lack of a label."""
    options = source_options(arguments, len(loaded.class_names))
    warn_of_other_reading(loaded, options)
    return labelled_rows(loaded, arguments.data, arguments.split, options, arguments.labels)


def labelled_rows(
    loaded: Loaded, data: list[str], split: str, options: SourceOptions, labels: str
) -> tuple[ArraySplit, int]:
    """A split as the model takes it, and how many rows were left out for lack of a label.

    Raises ValueError where none is left.
    """
    source = load_split(data, split, options)
    rows = load_arrays(source, loaded.processor, labels=labels, names=loaded.class_names)
    if not len(rows):
        raise ValueError(
            f"{' '.join(data)}: none of the {len(source):,} rows of its split {split} has a label of {labels}"
        )
    return rows, len(source) - len(rows)


def record_head(loaded: Loaded, split: ArraySplit, arguments: argparse.Namespace) -> dict:
    """What every record begins with: which model was scored on which rows."""
    return {
        "model": loaded.name,
        "split": arguments.split,
        "labels": arguments.labels,
        "n": len(split),
        "data_sha256": split.sha256(),
        "row_ids_sha256": row_ids_sha256(split.row_ids),
        "weights_sha256": loaded.weights_sha256,
    }


def score(
    loaded: Loaded, split: ArraySplit, tta: str | None, batch_size: int, fitted_here: tuple[str, ...] = ()
) -> Scored:
    """What the model says of the plain pictures and of the views of ``tta``; equal views are computed once.

    ``fitted_here`` names what was fitted on these rows, and is cross-fitted.
    """
    wanted = parse_views(tta) if tta else ()
    views = tuple(dict.fromkeys((View(), *wanted)))
    model = loaded.model
    is_ensemble = isinstance(model, FerEnsembleForImageClassification)
    answer = model.member_log_probabilities if is_ensemble else lambda pixels: model(pixels).raw_logits[:, None]
    normalize = loaded.processor.normalize_uint8
    logs = predict_views(model, split.images, normalize, views, batch_size=batch_size, answer=answer).numpy()
    return Scored(
        split,
        loaded.class_names,
        logs,
        np.array([views.index(view) for view in wanted]) if tta else None,
        model.config.temperature,
        np.array(model.config.weights) if is_ensemble else np.ones(1),
        fitted_here,
    )
