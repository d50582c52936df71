"""Paired comparison of saved predictions, and curves from a log."""

import json

import numpy as np
import pytest
from PIL import Image

from fer_hf.metrics import softmax
from training import compare, curves

NAMES = np.array(["angry", "happy", "sad"])


def save(path, targets, right_share, seed, **changes):
    """Probabilities that are right for the first ``right_share`` of the rows."""
    rows = len(targets)
    predictions = np.where(np.arange(rows) < right_share * rows, targets, (targets + 1) % 3)
    logits = 5 * np.eye(3)[predictions] + np.random.default_rng(seed).normal(size=(rows, 3)) * 0.1
    arrays = {
        "row_ids": np.array([f"validation/{row:06d}" for row in range(rows)]),
        "targets": targets,
        "names": NAMES,
        "probabilities": softmax(logits).astype(np.float32),
    }
    np.savez_compressed(path, **(arrays | changes))


@pytest.fixture
def targets():
    return np.random.default_rng(0).integers(0, 3, 400)


def test_differences_are_paired(tmp_path, targets):
    for name, share in (("base", 0.7), ("same", 0.7), ("better", 0.75)):
        save(tmp_path / f"{name}.npz", targets, share, seed=len(name))
    paths = [str(tmp_path / f"{name}.npz") for name in ("base", "same", "better")]
    tmp_path = tmp_path / "new"
    compare.main(["--predictions", *paths, "--output", str(tmp_path / "comparison.json"), "--resamples", "500"])
    record = json.loads((tmp_path / "comparison.json").read_text())
    assert (record["reference"], record["n"], list(record["models"])) == ("base", 400, ["better", "base", "same"])
    same, better = (record["models"][name]["difference"]["accuracy"] for name in ("same", "better"))
    # Where two models are right on the same rows, no draw tells them apart, however wide their own intervals are.
    assert same == {"value": 0, "low": 0, "high": 0}
    assert better["value"] == pytest.approx(0.05)
    assert 0.02 < better["low"] < better["high"] < 0.08
    own = record["models"]["better"]["accuracy"]
    assert own["high"] - own["low"] > better["high"] - better["low"]
    table = (tmp_path / "comparison.md").read_text()
    assert "| better | 75.0 [" in table
    assert "| base | 70.0 [" in table
    with Image.open(tmp_path / "comparison.png") as picture:
        assert picture.width > 600


def test_models_that_number_their_classes_otherwise_are_compared_by_name(tmp_path, targets):
    save(tmp_path / "one.npz", targets, 0.7, 0)
    with np.load(tmp_path / "one.npz") as one:
        order = [2, 0, 1]  # sad, angry, happy
        number = np.argsort(order)
        changes = {"names": NAMES[order], "probabilities": one["probabilities"][:, order]}
        np.savez_compressed(tmp_path / "two.npz", **{**one, **changes, "targets": number[targets]})
    paths = [str(tmp_path / "one.npz"), str(tmp_path / "two.npz")]
    compare.main(["--predictions", *paths, "--output", str(tmp_path / "comparison.json"), "--resamples", "50"])
    record = json.loads((tmp_path / "comparison.json").read_text())["models"]["two"]
    assert record["accuracy"]["value"] == pytest.approx(0.7)
    for key in ("accuracy", "macro_f1"):
        assert record["difference"][key] == {"value": 0, "low": 0, "high": 0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"row_ids": np.array([f"test/{row}" for row in range(400)])}, "differ in row_ids: score both with the same"),
        ({"names": np.array(["a", "b", "c"])}, "differ in names"),
    ],
)
def test_models_on_other_rows_are_not_compared(tmp_path, targets, changes, message):
    save(tmp_path / "one.npz", targets, 0.7, 0)
    save(tmp_path / "two.npz", targets, 0.7, 0, **changes)
    paths = [str(tmp_path / "one.npz"), str(tmp_path / "two.npz")]
    with pytest.raises(ValueError, match=message):
        compare.main(["--predictions", *paths, "--output", str(tmp_path / "comparison.json")])


def test_what_is_missing_is_said(tmp_path, targets):
    save(tmp_path / "one.npz", targets, 0.7, 0)
    output = ["--output", str(tmp_path / "comparison.json")]
    with pytest.raises(ValueError, match="at least two files"):
        compare.main(["--predictions", str(tmp_path / "one.npz"), *output])
    with pytest.raises(ValueError, match=r"has no probabilities_tta; write it with .* --tta"):
        compare.main(["--predictions", str(tmp_path / "one.npz"), "--tta", *output])


def test_curves_are_drawn_from_a_log(tmp_path):
    log = tmp_path / "log.jsonl"
    with pytest.raises(ValueError, match=r"is no file; give the log.jsonl"):
        curves.main(["--log", str(log), "--output", str(tmp_path / "curves.png")])
    log.write_text("")
    with pytest.raises(ValueError, match="holds no epoch yet"):
        curves.open_log(log)
    log.write_text(
        "".join(json.dumps({"epoch": e, "lr": 0.1, "validation_loss": 1 / e}) + "\n" for e in (1, 2)) + '{"epoch'
    )
    assert [one["epoch"] for one in curves.open_log(log)] == [1, 2]  # the disk had no room for the rest of a third
    curves.main(["--log", str(log), "--output", str(tmp_path / "curves.png")])
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 600
