"""A recipe that trains in seconds, for tests; ``write`` puts it into a file with changes."""

from pathlib import Path

import yaml

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
