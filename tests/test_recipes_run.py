"""Every recipe trains an epoch on a tiny set and its model loads back: no key is only parsed."""

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from training import loop, train
from training.config import load_recipe

RECIPES = sorted((Path(__file__).parent.parent / "training" / "recipes").rglob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_runs_end_to_end(path, tiny_data_path, tiny_model_path, tmp_path, monkeypatch):
    # Checkpoints of fifteen full-size networks with their optimizers would be gigabytes; other tests hold them.
    monkeypatch.setattr(loop.Run, "save", lambda self: None)
    recipe = load_recipe(path)
    changes = ["phases=[{epochs: 1}]", "batch_size=16", "data.fraction=0.3", "precision=fp32", "distill.teacher=null"]
    changes.append("compile=false")  # which takes minutes; tests/test_training.py holds it
    if recipe.data.source.leave_out:
        changes.append("data.source.leave_out=null")  # its rows are not in the tiny set
    if recipe.data.source.folds:
        changes.append("data.source.folds=0")  # which has a validation split of its own
    if recipe.model.start_from and not recipe.model.config:
        changes.append(f"model.start_from={tiny_model_path}")
    else:  # what lends its weights has the recipe's own backbone, and is not here
        changes += ["model.pretrained=false", "model.start_from=null", "model.config.image_size=48"]
    arguments = ["--recipe", str(path), "--data", str(tiny_data_path), "--output", str(tmp_path / "out")]
    progress = train.main([*arguments, "--tracker", "none", "--set", *changes])
    assert progress.finished
    (line,) = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert line["train_loss"] > 0
    config = json.loads((tmp_path / "out" / "best" / "config.json").read_text())
    assert list(config["id2label"].values()) == list(recipe.data.names)
    with safe_open(tmp_path / "out" / "best" / "model.safetensors", "pt") as weights:
        assert any(name.startswith("classifier") for name in weights.keys())  # noqa: SIM118


def test_fine_tuning_adapts_a_model_to_a_folder_of_photos(tiny_model_path, tmp_path):
    """Fifty pictures in class folders, no validation of their own: one command, which splits them itself."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for label, level in (("Happiness", 200), ("angry", 60)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(25):
            pixels = rng.normal(level, 20, (64, 64, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{number}.png")
    recipe = next(path for path in RECIPES if path.stem == "finetune")
    changes = [
        f"model.start_from={tiny_model_path}",
        "phases=[{epochs: 2, train_last: 0, lr: 0.03}, {epochs: 6, lr: 0.01}]",
    ]
    arguments = ["--recipe", str(recipe), "--data", str(tmp_path / "photos"), "--output", str(tmp_path / "out")]
    train.main(
        [
            *arguments,
            "--tracker",
            "none",
            "--set",
            *changes,
            "augment.brightness=0",
            "augment.contrast=0",
            "precision=fp32",
        ]
    )
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert max(line["validation_accuracy"] for line in log) >= 0.9  # two classes, told apart by their brightness
