"""Model folders and Hub repositories: where models are found, how they are loaded, how a portable one is written."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.image_processing_utils import BaseImageProcessor

DEFAULT_MODEL = "resnet_swish_plus"
"""Its folder in model_cards/; setup.py reads the name here and packages the folder as fer_hf/_default_model."""


def default_model_path() -> Path:
    """The folder of the embedded model: beside this file in an installed wheel, in model_cards/ in a clone."""
    packaged = Path(__file__).parent / "_default_model"
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / "model_cards" / DEFAULT_MODEL


def save_portable(model: "PreTrainedModel", processor: "BaseImageProcessor", path: str | Path) -> Path:
    """The folder at ``path``, which now holds the model so that it loads where this package is not installed.

    Weights are float16 safetensors (buffers, such as the statistics of batch norms, keep their precision) beside a
    config whose dtype is float32, so that they load upcast; the processor's config and the Python files of both are
    added. The folder is written beside ``path`` and renamed, so a reader sees the old one or the new one, never a
    part; an older model folder at ``path`` is replaced as a whole. Raises ValueError where a weight does not fit
    float16 or ``path`` holds something that is not a model folder.
    """
    path = Path(path)
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
        _fsync(file)
    _fsync(staged)
    if path.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{path.name}-old-", dir=path.parent))
        path.rename(old / path.name)
        staged.rename(path)
        shutil.rmtree(old)
    else:
        staged.rename(path)
    _fsync(path.parent)


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
