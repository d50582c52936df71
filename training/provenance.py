"""Which data a model has seen: ``training_data.json`` beside its weights, and comparison of a split with it."""

import hashlib
import json
import os
import tempfile
from pathlib import Path

from fer_hf.data.loaders import ArraySplit

FILE_NAME = "training_data.json"
ROLES = ("train", "selection", "temperature", "member_weights")
FITTED = ("temperature", "member_weights")
"""Roles of a split that a report on it cross-fits."""
_SAMPLE_SIZE = 1000


def describe(split: ArraySplit, **facts: object) -> dict:
    """What identifies a split later, after ``facts`` such as its labels.

    ``sha256`` is of pictures with targets, ``pixel_sha256`` of the source pictures in any order. ``sample`` holds the
    pictures whose hash is divisible by ``every``, so it can be compared with any other split, whatever its rows.
    """
    every = max(len(split) // _SAMPLE_SIZE, 1)
    return {
        **facts,
        "n": len(split),
        "row_ids_sha256": row_ids_sha256(split.row_ids),
        "sha256": split.sha256(),
        "pixel_sha256": pixels_sha256(split),
        "sample": {"every": every, "pixel_sha256": sorted({h[:16] for h in split.pixel_sha256 if _chosen(h, every)})},
    }


def row_ids_sha256(row_ids: tuple[str, ...]) -> str:
    """Hash of the names of rows, in order."""
    return hashlib.sha256("\n".join(row_ids).encode()).hexdigest()


def pixels_sha256(split: ArraySplit) -> str:
    """Hash of the source pictures, whatever their order and labels."""
    return hashlib.sha256("".join(sorted(split.pixel_sha256)).encode()).hexdigest()


def overlap(used: dict, split: ArraySplit) -> float | None:
    """Share of a split's pictures, in [0, 1], that are among those ``describe`` was given.

    Estimated from the sample where the two are not the same; None where the record has no sample.
    """
    if used["sha256"] == split.sha256() or used.get("pixel_sha256") == pixels_sha256(split):
        return 1.0
    if "sample" not in used:
        return None
    sample, every = set(used["sample"]["pixel_sha256"]), used["sample"]["every"]
    comparable = [h[:16] in sample for h in split.pixel_sha256 if _chosen(h, every)]
    return sum(comparable) / len(comparable) if comparable else 0.0


def _chosen(pixel_sha256: str, every: int) -> bool:
    return int(pixel_sha256[:16], 16) % every == 0


def write_used(model_folder: Path, role: str, split: ArraySplit, **facts: object) -> None:
    """Record in a model folder which split served in one of ``ROLES``; the others stay."""
    if role not in ROLES:
        raise ValueError(f"unknown role {role!r}; choose among {', '.join(ROLES)}")
    write_json(Path(model_folder) / FILE_NAME, read_used(model_folder) | {role: describe(split, **facts)})


def read_used(model_folder: Path) -> dict:
    """Role to what ``describe`` said; empty where the folder records nothing."""
    path = Path(model_folder) / FILE_NAME
    recorded = read_json(path) if path.is_file() else {}
    return {role: recorded[role] for role in ROLES if role in recorded}


def read_json(path: Path) -> dict:
    """What a JSON file holds."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_json(path: Path, value: object) -> None:
    """Write a value as indented JSON, whole or not at all."""
    descriptor, part = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=2, ensure_ascii=False, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        Path(part).chmod(0o644)
        Path(part).replace(path)
    finally:
        Path(part).unlink(missing_ok=True)
