"""Runs that differ in their seed: each one's figures, and their mean and deviation."""

import json
import shutil
import statistics

import pytest
import yaml

from tests.tiny_recipe import write
from training import seeds, train


@pytest.fixture(scope="module")
def runs(tiny_data_path, tmp_path_factory):
    """Two runs of one recipe, from the seeds 0 and 1."""
    folder = tmp_path_factory.mktemp("seeds")
    recipe = write(folder, epochs=1)
    for seed in (0, 1):
        command = ["--recipe", recipe, "--data", tiny_data_path, "--output", folder / str(seed), "--tracker", "none"]
        train.main([*map(str, command), "--set", f"seed={seed}"])
    return folder


def score(data, output, *runs):
    command = ["--runs", *runs, "--data", data, "--tta", "--output", output, "--resamples", "20"]
    seeds.main([str(part) for part in command])
    return json.loads(output.read_text())


def test_each_run_and_their_mean_are_written(runs, tiny_data_path, tmp_path):
    record = score(tiny_data_path, tmp_path / "seeds.json", runs / "0", runs / "1")
    assert [run["seed"] for run in record["runs"]] == [0, 1]
    logs = [json.loads((runs / str(seed) / "log.jsonl").read_text()) for seed in (0, 1)]
    found = [run["one_view"]["accuracy"] for run in record["runs"]]
    assert found == pytest.approx([log["validation_accuracy"] for log in logs], abs=1e-6)
    for view in ("one_view", "views_averaged"):
        values = [run[view]["macro_f1"] for run in record["runs"]]
        over = record["over_runs"][view]["macro_f1"]
        assert over["mean"] == pytest.approx(statistics.mean(values), abs=1e-6)
        assert over["deviation"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5, abs=1e-6)
    assert len({run["weights_sha256"] for run in record["runs"]}) == 2


def test_only_runs_that_differ_in_their_seed_make_a_mean(runs, tiny_data_path, tmp_path):
    with pytest.raises(ValueError, match="the runs have the seeds 0, 0"):
        score(tiny_data_path, tmp_path / "seeds.json", runs / "0", runs / "0")
    with pytest.raises(ValueError, match="holds no finished epoch"):
        score(tiny_data_path, tmp_path / "seeds.json", runs / "0", tmp_path)
    other = shutil.copytree(runs / "1", tmp_path / "other")
    recipe = yaml.safe_load((other / "best" / "recipe.yaml").read_text())
    (other / "best" / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"epochs": 9}))
    with pytest.raises(ValueError, match=r"differs from .* in epochs"):
        score(tiny_data_path, tmp_path / "seeds.json", runs / "0", other)
