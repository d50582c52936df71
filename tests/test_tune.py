"""The search: ranges as written, every trial kept, and a second call that goes on."""

import json

import optuna
import pytest

from tests.tiny_recipe import write
from training import train, tune
from training.loop import TrainingDiverged


def arguments(recipe, data, output, trials: int) -> list[str]:
    return [
        "--recipe", str(recipe), "--data", str(data), "--output", str(output), "--trials", str(trials),
        "--search", "optimizer.lr=log:1e-3:1e-1", "augment.erasing=0.0:0.5", "loss.label_smoothing=choice:0.0,0.1",
        "--set", "epochs=1",
    ]  # fmt: skip


def test_trials_are_recorded_and_gone_on_with(tiny_data_path, tmp_path):
    recipe = write(tmp_path)
    tune.main(arguments(recipe, tiny_data_path, tmp_path / "out", 1))
    study = tune.main(arguments(recipe, tiny_data_path, tmp_path / "out", 2))
    lines = [json.loads(line) for line in (tmp_path / "out" / "trials.jsonl").read_text().splitlines()]
    assert [line["trial"] for line in lines] == [0, 1]
    for line in lines:
        assert 1e-3 <= line["optimizer.lr"] <= 1e-1
        assert 0 <= line["augment.erasing"] <= 0.5
        assert line["loss.label_smoothing"] in (0.0, 0.1)
    assert study.best_value == max(line["score"] for line in lines)
    assert len(list((tmp_path / "out").glob("*/log.jsonl"))) == 2


def test_each_trial_has_the_precision_that_it_tries(tiny_data_path, tmp_path):
    command = ["--recipe", str(write(tmp_path, epochs=1)), "--data", str(tiny_data_path), "--output", str(tmp_path)]
    tune.main([*command, "--trials", "4", "--search", "precision=choice:fp32,bf16"])
    lines = [json.loads(line) for line in (tmp_path / "trials.jsonl").read_text().splitlines()]
    assert {line["precision"] for line in lines} == {"fp32", "bf16"}


def test_a_trial_that_was_killed_is_tried_again_with_its_values(tiny_data_path, tmp_path):
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    study = optuna.create_study(study_name="fer_hf", storage=storage, direction="maximize")
    killed = study.ask()
    values = {
        "optimizer.lr": killed.suggest_float("optimizer.lr", 1e-3, 1e-1, log=True),
        "augment.erasing": killed.suggest_float("augment.erasing", 0.0, 0.5),
        "loss.label_smoothing": killed.suggest_categorical("loss.label_smoothing", [0.0, 0.1]),
    }
    tune.main(arguments(write(tmp_path), tiny_data_path, tmp_path, 1))
    (line,) = [json.loads(line) for line in (tmp_path / "trials.jsonl").read_text().splitlines()]
    assert {key: line[key] for key in values} == values


def test_a_trial_that_diverges_is_recorded_and_the_search_goes_on(tiny_data_path, tmp_path, monkeypatch):
    def diverge(_):
        raise TrainingDiverged("the loss became nan")

    recipe = write(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(train, "main", diverge)
        with pytest.raises(ValueError, match=r"all 1 trials diverged; search lower rates"):
            tune.main(arguments(recipe, tiny_data_path, tmp_path / "out", 1))
    study = tune.main(arguments(recipe, tiny_data_path, tmp_path / "out", 2))
    scores = [json.loads(line)["score"] for line in (tmp_path / "out" / "trials.jsonl").read_text().splitlines()]
    assert scores == [None, study.best_value]


def test_a_recipe_that_watches_no_figure_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"select: last watches no figure.*--set select=accuracy"):
        tune.main(arguments(write(tmp_path, select="last"), tmp_path, tmp_path / "out", 1))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["1e-3", "log:a:b", "1:2:3", "choice:[1,2", "choice:"])
def test_a_range_that_cannot_be_read_is_named(text):
    trial = optuna.create_study().ask()
    with pytest.raises(ValueError, match=r"--search optimizer\.lr=.*log:low:high"):
        tune.suggest(trial, "optimizer.lr", text)


def test_whole_numbers_stay_whole():
    trial = optuna.create_study().ask()
    assert isinstance(tune.suggest(trial, "epochs", "2:9"), int)
    assert isinstance(tune.suggest(trial, "lr", "0.1:9"), float)
    assert isinstance(tune.suggest(trial, "batch_size", "log:32:256"), int)
    assert tune.suggest(trial, "sizes", "choice:[64,128],[32,64]") in ([64, 128], [32, 64])
    assert isinstance(tune.suggest(trial, "decay", "log:1e-3:1"), float)
