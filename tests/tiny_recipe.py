"""A recipe that trains in seconds, for tests; ``write`` puts it into a file with changes, ``run`` trains it."""

from pathlib import Path

import torch
import yaml

from training import train
from training.checkpoints import latest_checkpoint, load_checkpoint

TINY = {
    "name": "tiny",
    "epochs": 3,
    "batch_size": 16,
    "precision": "fp32",
    "model": {"config": {"hidden_sizes": [8, 16], "depths": [1, 1], "stem_stride": 2, "spatial_dropout": 0.1}},
    "augment": {"flip": 0.5, "shift": 0.05, "erasing": 0.2},
    "optimizer": {"name": "adamw", "lr": 0.01},
}


def write(folder: Path, **changes) -> Path:
    """The path of a recipe file in ``folder``: TINY with whole sections replaced by ``changes``; phases have epochs."""
    path = folder / "tiny.yaml"
    recipe = {**TINY, **changes}
    path.write_text(yaml.safe_dump({key: recipe[key] for key in recipe if key != "epochs" or "phases" not in changes}))
    return path


def run(recipe: Path, data: Path, output: Path, *more: str) -> None:
    """Train a recipe as the command line does."""
    train.main(["--recipe", str(recipe), "--data", str(data), "--output", str(output), "--tracker", "none", *more])


def last_weights(output: Path) -> dict[str, torch.Tensor]:
    """The weights in a run's newest checkpoint."""
    return load_checkpoint(latest_checkpoint(output / "checkpoints"))["model"]


def same(a: dict, b: dict) -> bool:
    """Whether two dicts hold the same tensors, to the bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
