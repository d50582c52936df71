"""Checkpoints that are whole or absent: written beside, flushed, renamed, and only then are older ones removed."""

import os
import re
from pathlib import Path

import torch

_NAME = re.compile(r"step_(\d{9})\.pt")


class CheckpointError(OSError):
    """A checkpoint could not be written; the one before it is intact."""


def save_checkpoint(folder: Path, step: int, state: dict, *, keep: int = 2) -> Path:
    """Write ``step_<step>.pt`` atomically and keep the newest ``keep``.

    Raises CheckpointError in one sentence, for example when the disk is full; the older checkpoint survives.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"step_{step:09d}.pt"
    part = target.with_suffix(".part")
    try:
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
        sync_folder(folder)
    except (OSError, RuntimeError) as error:  # torch's zip writer reports a failed write as RuntimeError
        part.unlink(missing_ok=True)
        kept = latest_checkpoint(folder)
        kept = f"{kept.name} is intact" if kept else "there is none before it"
        raise CheckpointError(
            f"the checkpoint of step {step} could not be written to {folder} ({error}); {kept}"
        ) from error
    for old in _checkpoints(folder)[:-keep]:
        old.unlink()
    return target


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint, or None."""
    checkpoints = _checkpoints(folder)
    return checkpoints[-1] if checkpoints else None


def load_checkpoint(path: Path) -> dict:
    """The saved state, on the CPU; tensors and plain values only."""
    return torch.load(path, map_location="cpu", weights_only=True)


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step_*.pt") if _NAME.fullmatch(path.name)) if folder.is_dir() else []
