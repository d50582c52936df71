"""Which data a model has seen: ``training_data.json`` beside its weights, and comparison of a split with it."""

import hashlib
import json
import os
import tempfile
from pathlib import Path

from fer_hf.data.loaders import ArraySplit

FILE_NAME = "training_data.json"
ROLES = ("training", "selection", "temperature")
_SAMPLE_SIZE = 1000


def describe(split: ArraySplit) -> dict:
    """What identifies a split later: n, hash of the row ids, of pictures with targets, and a sample of picture hashes.

    The sample holds the pictures whose hash is divisible by ``every``, so it can be compared with any other split,
    whatever its rows, order and labels.
    """
    every = max(len(split) // _SAMPLE_SIZE, 1)
    return {
        "n": len(split),
        "row_ids_sha256": row_ids_sha256(split.row_ids),
        "data_sha256": split.sha256(),
        "pixels": {"every": every, "sha256": sorted({h[:16] for h in split.pixel_sha256 if _chosen(h, every)})},
    }


def row_ids_sha256(row_ids: tuple[str, ...]) -> str:
    """Hash of the names of rows, in order."""
    return hashlib.sha256("\n".join(row_ids).encode()).hexdigest()


def overlap(used: dict, split: ArraySplit) -> float:
    """Share of a split's pictures, in [0, 1], that are among those ``describe`` was given; from its sample."""
    if used["data_sha256"] == split.sha256():
        return 1.0
    sample, every = set(used["pixels"]["sha256"]), used["pixels"]["every"]
    comparable = [h[:16] in sample for h in split.pixel_sha256 if _chosen(h, every)]
    return sum(comparable) / len(comparable) if comparable else 0.0


def _chosen(pixel_sha256: str, every: int) -> bool:
    return int(pixel_sha256[:16], 16) % every == 0


def write_used(model_folder: Path, **splits: ArraySplit) -> None:
    """Record in a model folder what ``training``, ``selection`` or ``temperature`` saw; other roles stay."""
    unknown = sorted(set(splits) - set(ROLES))
    if unknown:
        raise ValueError(f"unknown role {unknown[0]!r}; choose among {', '.join(ROLES)}")
    used = read_used(model_folder) | {role: describe(split) for role, split in splits.items()}
    write_json(Path(model_folder) / FILE_NAME, used)


def read_used(model_folder: Path) -> dict:
    """Role to what ``describe`` said; empty where the folder records nothing."""
    path = Path(model_folder) / FILE_NAME
    return json.loads(path.read_text()) if path.is_file() else {}


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
