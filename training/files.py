"""Text and JSON files that appear whole or not at all."""

import json
import os
import tempfile
from pathlib import Path


def require_free(path: Path) -> None:
    """Raise ValueError where something is at ``path``, other than an empty folder."""
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ValueError(f"{path} exists already; choose another path or remove it")


def write_text(path: Path, text: str) -> None:
    """Write a text file, readable by all: beside its place, flushed, then renamed."""
    descriptor, part = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(part).chmod(0o644)
        Path(part).replace(path)
    finally:
        Path(part).unlink(missing_ok=True)


def write_json(path: Path, value: object, indent: int | None = 2) -> None:
    """Write a value as JSON. Raises ValueError where it holds a number that JSON lacks, such as NaN."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict:
    """What a JSON file holds."""
    return json.loads(Path(path).read_text(encoding="utf-8"))
