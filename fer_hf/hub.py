"""Model folders and Hub repositories: where models are found, how they are loaded, how a portable one is written."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .download import ModelError, download_model, split_hub_id
from .model_folder import (
    CONFIG_KEYS,
    check_model_folder,
    has_our_processor,
    is_described,
    read_description,
    settings_file,
    weight_files,
)
from .registry import MODEL_TYPES, config_class, model_class

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.image_processing_utils import BaseImageProcessor

DEFAULT_MODEL = "resnet_swish_plus"
"""Its folder in model_cards/; setup.py reads the name here and packages the folder as fer_hf/_default_model."""


def default_model_path() -> Path:
    """The folder of the embedded model: beside this file in an installed wheel, in model_cards/ in a clone."""
    packaged = Path(__file__).parent / "_default_model"
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / "model_cards" / DEFAULT_MODEL


def configured_model() -> str:
    """What the environment variable FER_MODEL names, a folder or ``user/name@revision``; else the embedded model."""
    return os.environ.get("FER_MODEL") or str(default_model_path())


def model_folders(root: Path) -> list[Path]:
    """The folders in ``root`` that hold a model, or describe an ensemble of others, by name."""
    return sorted(folder for folder in root.iterdir() if settings_file(folder).is_file())


def weights_bytes(folder: Path) -> int:
    """The size of the files that a model's weights are read from; of a described ensemble, its members'."""
    return sum(file.stat().st_size for file in weight_files(folder))


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode with its image processor, where it came from, and the commit where from the Hub."""

    model: "PreTrainedModel"
    processor: "BaseImageProcessor"
    source: str
    revision: str | None


def load_model(
    name_or_path: str | Path,
    revision: str | None = None,
    *,
    dtype: "str | torch.dtype | None" = None,
    trust_remote_code: bool = False,
    max_bytes: int | None = None,
) -> LoadedModel:
    """An image classification model and its processor, from a folder or from the Hub (``user/name@revision``).

    Our model types load with the classes installed here; a folder that describes an ensemble of others is put together
    in memory. Code that comes with another model runs only with ``trust_remote_code``; pickled weights are never read.
    ``dtype`` None takes the one that the config names. Weights on the Hub of more than ``max_bytes`` are not fetched.
    Raises ModelError with one sentence for whatever is wrong.
    """
    source = str(name_or_path)
    try:
        folder, source, commit = _find(source, revision, trust_remote_code, max_bytes)
        if commit is None and is_described(folder):
            model, processor = _assemble(folder, source, dtype)
        else:
            config, processor_config = check_model_folder(folder, source, trust_remote_code)
            with _no_progress_bars():
                model, processor = _load(folder, config, processor_config, dtype or "auto", trust_remote_code, source)
    except ModelError:
        raise
    # The classes that a folder names may raise anything for what its files say: ZeroDivisionError for no heads,
    # AttributeError for an unknown dtype, ... Whatever it is, it is a property of the folder.
    except Exception as error:
        raise ModelError(source, _reason(error)) from error
    return LoadedModel(model, processor, source, commit)


def _find(name: str, revision: str | None, with_code: bool, max_bytes: int | None) -> tuple[Path, str, str | None]:
    """The folder with the files, what to call it, and the commit where it came from the Hub."""
    if Path(name).is_dir():
        return Path(name), name, None
    if Path(name).exists():
        wanted = "give the folder that holds config.json and model.safetensors"
        if Path(name).suffix == ".onnx":
            wanted = f"run it with backend='onnx' (--backend onnx), or {wanted}"
        raise ModelError(name, f"this is a file; {wanted}")
    repo_id, revision = split_hub_id(name, revision)
    folder, commit = download_model(repo_id, revision, with_code=with_code, max_bytes=max_bytes)
    return folder, repo_id if revision is None else f"{repo_id}@{revision}", commit


def _load(
    folder: Path,
    config: dict[str, Any],
    processor_config: dict[str, Any],
    dtype: "str | torch.dtype",
    trust_remote_code: bool,
    source: str,
) -> tuple["PreTrainedModel", "BaseImageProcessor"]:
    # Sizes that do not fit are reported below, in one sentence.
    options = {
        "dtype": dtype, "use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True
    }  # fmt: skip
    if config.get("model_type") in MODEL_TYPES:  # without the Auto classes, which take seconds to import
        kind = config["model_type"]
        loaded = config_class(kind).from_pretrained(folder)
        model, info = model_class(kind).from_pretrained(folder, config=loaded, **options)
    else:
        from transformers import AutoModelForImageClassification

        model, info = AutoModelForImageClassification.from_pretrained(
            folder, trust_remote_code=trust_remote_code, **options
        )
    for name, stored, wanted in sorted(info["mismatched_keys"]):
        raise ModelError(source, f"its weight {name} is {tuple(stored)}, but its config asks for {tuple(wanted)}")
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise ModelError(source, f"its weights lack {missing[0]} ({len(missing)} in all); save the whole model")
    if has_our_processor(processor_config):
        from .models.image_processing_fer import FerImageProcessor

        processor = FerImageProcessor.from_pretrained(folder)
    else:
        from transformers import AutoImageProcessor

        processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=trust_remote_code)
    return model.eval(), processor


def _assemble(
    folder: Path, source: str, dtype: "str | torch.dtype | None"
) -> tuple["PreTrainedModel", "BaseImageProcessor"]:
    from .models.modeling_ensemble import FerEnsembleForImageClassification, shared_processor

    described = read_description(folder, source)
    folders = [folder / member for member in described["members"]]
    loaded = [load_model(member, dtype=dtype) for member in folders]
    values = {key: described[key] for key in CONFIG_KEYS if key in described}
    model = FerEnsembleForImageClassification.from_members(
        [(one.model, one.processor) for one in loaded],
        described.get("weights"),
        [member.resolve().name for member in folders],
        described.get("image_size"),
        **values,
    )
    processor = shared_processor([one.processor for one in loaded], model.config.image_size)
    return model.to(loaded[0].model.dtype).eval(), processor


def _reason(error: Exception) -> str:
    """Why a model cannot be loaded, on one line and without a full stop."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1]).rstrip(".")
    if said and isinstance(error, ValueError | OSError | RuntimeError | ImportError):  # those are worded for people
        return said
    kind = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return f"building it failed ({kind}); check the values in its config.json and preprocessor_config.json"


def save_portable(model: "PreTrainedModel", processor: "BaseImageProcessor", path: str | Path) -> Path:
    """The folder at ``path``, which now holds the model so that it loads where this package is not installed.

    Weights are float16 safetensors (buffers, such as the statistics of batch norms, keep their precision) beside a
    config whose dtype is float32, so that they load upcast; the processor's config and the Python files of both are
    added. The folder is written beside ``path`` and renamed, so a reader sees the old model or the new one, never a
    part; what else an older model folder held, such as its card or ``.git``, stays in it. Raises ValueError where a
    weight does not fit float16, ``path`` holds something that is not a model folder, or it is the current directory.
    """
    path = Path(path)
    if Path.cwd().is_relative_to(path.resolve()):
        raise ValueError(f"{path} is the current directory or holds it, and cannot be replaced; name another folder")
    if path.exists() and not (path / "config.json").is_file() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{path} exists and is not a model folder (no config.json); choose another path")
    weights = _half_precision(model)
    _copy_code_on_save(model, processor)
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        with _no_progress_bars():
            model.save_pretrained(staged, state_dict=weights)
        processor.save_pretrained(staged)
        config = json.loads((staged / "config.json").read_text()) | {"dtype": "float32"}
        (staged / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        staged.chmod(0o755)
        _replace_folder(staged, path)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return path


def _half_precision(model: "PreTrainedModel") -> dict[str, torch.Tensor]:
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    weights = {}
    for name, tensor in model.state_dict().items():
        tensor = tensor.detach().cpu()
        if name in parameters and tensor.is_floating_point():
            tensor = tensor.half()
            if not tensor.isfinite().all():
                raise ValueError(f"weight {name} is not finite in float16; a portable model needs |values| ≤ 65504")
        weights[name] = tensor.contiguous()
    return weights


def _copy_code_on_save(model: "PreTrainedModel", processor: "BaseImageProcessor") -> None:
    """Classes that transformers does not ship are saved with their code, and with an auto_map that names it."""
    for thing, auto_class in (
        (model.config, "AutoConfig"),
        (model, "AutoModelForImageClassification"),
        (processor, "AutoImageProcessor"),
    ):
        if not type(thing).__module__.startswith("transformers."):
            type(thing).register_for_auto_class(auto_class)


def _replace_folder(staged: Path, path: Path) -> None:
    for file in staged.iterdir():
        file.chmod(0o644)  # safetensors writes files that only their owner may read
        _fsync(file)
    _fsync(staged)
    if path.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{path.name}-old-", dir=path.parent))
        path.rename(old / path.name)
        staged.rename(path)
        for other in (old / path.name).iterdir():
            if not _is_of_a_model(other):
                other.rename(path / other.name)
        shutil.rmtree(old)
    else:
        staged.rename(path)
    _fsync(path.parent)


def _is_of_a_model(file: Path) -> bool:
    """Whether a file of a model folder is part of the model, so that another model in the same place has its own."""
    code = Path(__file__).parent / "models" / file.name
    settings = ("config.json", "preprocessor_config.json", "processor_config.json")
    is_weights = file.name.endswith((".safetensors", ".safetensors.index.json"))
    return file.name in settings or is_weights or code.is_file()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _no_progress_bars() -> Iterator[None]:
    from transformers.utils import logging

    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()
