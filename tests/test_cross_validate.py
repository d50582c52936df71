"""Figures over folds: every row once, by a model that did not see it, and nothing chosen on it."""

import json

import numpy as np
import pytest

from tests.tiny_recipe import write
from training import cross_validate


def arguments(recipe, data, folder) -> list[str]:
    given = {"--recipe": recipe, "--data": data, "--output": folder / "runs", "--report": folder / "new" / "folds.json"}
    return [str(part) for pair in given.items() for part in pair] + ["--resamples", "20"]


@pytest.fixture(scope="module")
def photos(tiny_data_path, tmp_path_factory):
    """Class folders of the tiny set's training rows, which have no splits."""
    from fer_hf.data.sources import load_source

    folder = tmp_path_factory.mktemp("photos")
    train = load_source(str(tiny_data_path))["train"]
    for row in train:
        label = train.features["label"].int2str(row["label"])
        (folder / label).mkdir(exist_ok=True)
        row["image"].save(folder / label / f"{row['row_id'].replace('/', '-')}.png")
    return folder


def test_every_row_is_scored_once_by_a_model_that_has_not_seen_it(photos, tmp_path):
    recipe = write(tmp_path, epochs=4, select="last", data={"labels": "dataset", "source": {"folds": 3}}, augment={})
    cross_validate.main([*arguments(recipe, photos, tmp_path), "--set", "augment={}"])
    report = json.loads((tmp_path / "new" / "folds.json").read_text())
    assert report["command"] == (
        f"python training/cross_validate.py --recipe {tmp_path.name}/tiny.yaml --data DATA --output RUNS"
        " --report folds.json --set 'augment={}'"
    )
    assert report["n"] == 140
    assert np.array(report["confusion"]).sum() == 140
    assert report["metrics"]["accuracy"]["value"] > 0.5  # of seven classes
    logs = [json.loads((tmp_path / "runs" / f"fold_{k}" / "log.jsonl").read_text().splitlines()[-1]) for k in range(3)]
    used = [json.loads((tmp_path / "runs" / f"fold_{k}" / "best" / "training_data.json").read_text()) for k in range(3)]
    assert sum(one["train"]["n"] for one in used) == 2 * 140
    assert all("selection" not in one for one in used)
    sizes = [140 - one["train"]["n"] for one in used]
    mean = np.average([log["validation_accuracy"] for log in logs], weights=sizes)
    assert report["metrics"]["accuracy"]["value"] == pytest.approx(mean, abs=1e-6)  # the last epoch's models


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"select": "last"}, "has no folds"),
        ({"data": {"source": {"folds": 3}}}, "selects by accuracy on the fold it is scored on"),
    ],
)
def test_what_would_flatter_is_refused(changes, message, tiny_data_path, tmp_path):
    with pytest.raises(ValueError, match=message):
        cross_validate.main(arguments(write(tmp_path, **changes), tiny_data_path, tmp_path))
