"""Is a model folder whole, safe and clear? Looked at before anything in it is loaded; each fault has its sentence.

A folder may also describe an ensemble in ``ensemble.json``, by the folders of its members and their weights, and hold
no weights itself.
"""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from .download import ModelError
from .registry import MODEL_TYPES

DESCRIPTION = "ensemble.json"
CONFIG_KEYS = ("temperature", "conformal_threshold", "conformal_coverage")
"""Keys of a description that go into the ensemble's config; the last four below are for its card and the tables."""
DESCRIPTION_KEYS = ("members", "weights", "image_size", *CONFIG_KEYS, "source", "claim", "claimed_accuracy", "trials")


def is_described(folder: Path) -> bool:
    """Whether a folder describes an ensemble of others instead of holding a model."""
    return (folder / DESCRIPTION).is_file() and not (folder / "config.json").is_file()


def settings_file(folder: Path) -> Path:
    """The file that holds a model's temperature, answer sets and member weights: config.json, or the description."""
    return folder / (DESCRIPTION if is_described(folder) else "config.json")


def read_description(folder: Path, source: str) -> dict[str, Any]:
    """What ``ensemble.json`` says; ``members`` are paths relative to the folder. Raises ModelError for its faults."""
    described = _read_json(folder / DESCRIPTION, source)
    for key in described:
        if key not in DESCRIPTION_KEYS:
            raise ModelError(source, f"its {DESCRIPTION} has the key {key!r}; known are {', '.join(DESCRIPTION_KEYS)}")
    members = described.get("members")
    if not members or not isinstance(members, list) or not all(isinstance(member, str) for member in members):
        raise ModelError(source, f"its {DESCRIPTION} must list the folders of its members under members")
    for member in members:
        if not (folder / member / "config.json").is_file():
            raise ModelError(source, f"its member {member} is no model folder; {DESCRIPTION} names them from its place")
    return described


def member_folders(folder: Path) -> list[Path]:
    """The folders of a described ensemble's members; empty for a folder that holds a model itself."""
    if not is_described(folder):
        return []
    return [folder / member for member in read_description(folder, str(folder))["members"]]


def weight_files(folder: Path) -> list[Path]:
    """The files that a model's weights are read from, in order: its own, or its members'."""
    return [file for part in member_folders(folder) or [folder] for file in sorted(part.glob("*.safetensors"))]


def check_model_folder(folder: Path, source: str, trust_remote_code: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The contents of config.json and of the image processor's config, of a folder that can be loaded.

    Raises ModelError, which calls the model ``source``, for missing or broken files, code that was not asked for,
    classes without clear names, and weights that are missing, pickled, cut short or only a pointer.
    """
    config = _read_json(folder / "config.json", source)
    processor_config = _read_processor_config(folder, source)
    if not trust_remote_code:
        _refuse_foreign_code(config, processor_config, source)
    _check_labels(config, source)
    _check_weights(folder, source)
    return config, processor_config


def _read_json(path: Path, source: str) -> dict[str, Any]:
    if not path.is_file():
        raise ModelError(
            source, f"it has no {path.name}, so it is not a transformers model; check what was saved there"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(source, f"its {path.name} is not JSON; save or upload the model again") from error
    if not isinstance(content, dict):
        raise ModelError(source, f"its {path.name} is not a JSON object; save or upload the model again")
    return content


def _read_processor_config(folder: Path, source: str) -> dict[str, Any]:
    nested = folder / "processor_config.json"
    if nested.is_file() and "image_processor" in (content := _read_json(nested, source)):
        return content["image_processor"]
    if not (folder / "preprocessor_config.json").is_file():
        raise ModelError(
            source, "it has no preprocessor_config.json, so nobody knows how pictures must be prepared for it; add one"
        )
    return _read_json(folder / "preprocessor_config.json", source)


def has_our_processor(processor_config: dict[str, Any]) -> bool:
    return processor_config.get("image_processor_type") == "FerImageProcessor"


def _refuse_foreign_code(config: dict[str, Any], processor_config: dict[str, Any], source: str) -> None:
    foreign = config.get("model_type") not in MODEL_TYPES and config.get("auto_map")
    if foreign or (not has_our_processor(processor_config) and processor_config.get("auto_map")):
        raise ModelError(
            source, "it brings its own Python code, which is not run unless trust_remote_code=True asks for it"
        )


def _check_labels(config: dict[str, Any], source: str) -> None:
    names, inverse = config.get("id2label"), config.get("label2id")
    if not names:
        raise ModelError(source, "its config.json has no id2label, so its classes have no names; add them")
    for name, value in (("id2label", names), ("label2id", inverse)):
        if value is not None and not isinstance(value, dict):
            raise ModelError(source, f"its {name} must be a JSON object; it is a {type(value).__name__}")
    if sorted(names, key=lambda index: (len(index), index)) != [str(index) for index in range(len(names))]:
        raise ModelError(source, f"its id2label must number the classes from 0 without gaps; it has {', '.join(names)}")
    if inverse is not None and {str(index): name for name, index in inverse.items()} != names:
        raise ModelError(source, "its id2label and label2id contradict each other; make one the inverse of the other")


def _check_weights(folder: Path, source: str) -> None:
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise ModelError(source, "it has no model.safetensors, and pickled weights are never read; save safetensors")
    for file in files:
        with file.open("rb") as opened:
            if opened.read(40).startswith(b"version https://git-lfs"):
                raise ModelError(source, f"{file.name} is only a Git LFS pointer; fetch it with `git lfs pull`")
        try:
            with safe_open(file, framework="pt"):
                pass
        except SafetensorError as error:
            raise ModelError(
                source, f"{file.name} is truncated or not a safetensors file; download or save it again"
            ) from error
