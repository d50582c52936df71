"""A run that was broken off goes on to the same weights, whenever it was, and keeps its last good state."""

import json
import math
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import torch

from tests.tiny_recipe import last_weights, run, same, write
from training import loop
from training.checkpoints import CheckpointError, latest_checkpoint, load_checkpoint, save_checkpoint
from training.loop import Progress, Run
from training.provenance import read_used, record_used
from training.run_log import read_log


def run_until_it_dies(batch: int, monkeypatch, recipe: Path, data: Path, output: Path) -> None:
    """A run that is broken off at the start of this batch, counted from 1."""
    calls, step = 0, loop.Step.__call__

    def dying_step(self, *arguments):
        nonlocal calls
        calls += 1
        if calls == batch:
            raise KeyboardInterrupt
        return step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Step, "__call__", dying_step)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, data, output)


def test_a_run_that_dies_goes_on_to_the_same_weights(finished, tiny_data_path, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_S", 0)  # after every batch
    recipe = write(tmp_path, average={"ema_decay": 0.9})
    run_until_it_dies(12, monkeypatch, recipe, tiny_data_path, tmp_path / "out")  # in the second epoch of eight batches
    assert load_checkpoint(latest_checkpoint(tmp_path / "out" / "checkpoints"))["progress"]["batch"] == 3
    run(recipe, tiny_data_path, tmp_path / "out")
    assert same(last_weights(tmp_path / "out"), last_weights(finished))
    logs = [
        [json.loads(line) for line in (o / "log.jsonl").read_text().splitlines()] for o in (tmp_path / "out", finished)
    ]
    for ours, whole in zip(*logs, strict=True):
        assert ours["train_loss"] == pytest.approx(whole["train_loss"], abs=1e-6)
        assert ours["validation_loss"] == whole["validation_loss"]


def test_a_run_that_dies_between_two_waits_for_gradients_goes_on_to_the_same_weights(
    tiny_data_path, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_S", 0)  # whenever it may
    recipe = write(tmp_path, epochs=1, optimizer={"name": "sgd", "lr": 0.05, "accumulate": 2})
    run(recipe, tiny_data_path, tmp_path / "whole")
    run_until_it_dies(4, monkeypatch, recipe, tiny_data_path, tmp_path / "out")  # the third batch waits for this one
    assert load_checkpoint(latest_checkpoint(tmp_path / "out" / "checkpoints"))["progress"]["batch"] == 2
    run(recipe, tiny_data_path, tmp_path / "out")
    assert same(last_weights(tmp_path / "out"), last_weights(tmp_path / "whole"))


def test_epochs_that_no_checkpoint_knows_are_not_logged_twice(tiny_data_path, tmp_path, monkeypatch):
    run_until_it_dies(12, monkeypatch, write(tmp_path), tiny_data_path, tmp_path / "out")
    assert latest_checkpoint(tmp_path / "out" / "checkpoints") is None
    run(write(tmp_path), tiny_data_path, tmp_path / "out")
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in log] == [1, 2, 3]


def test_a_finished_run_is_not_run_again(finished, tiny_data_path, capsys):
    before = (finished / "log.jsonl").read_text()
    run(finished / "recipe.yaml", tiny_data_path, finished)
    assert (finished / "log.jsonl").read_text() == before
    out = capsys.readouterr().out
    assert "this run is finished, after 3 epochs" in out
    assert "best accuracy" in out


def test_a_run_does_not_go_on_under_another_recipe(finished, tiny_data_path):
    before = (finished / "recipe.yaml").read_text()
    with pytest.raises(ValueError, match=r"holds a run whose recipe differs in seed, optimizer; give another --output"):
        run(finished / "recipe.yaml", tiny_data_path, finished, "--set", "seed=7", "optimizer.lr=0.5")
    assert (finished / "recipe.yaml").read_text() == before


def test_a_run_does_not_go_on_with_other_pictures(finished, tiny_data_path, tmp_path):
    before = (finished / "best" / "training_data.json").read_text()
    recipe = finished / "recipe.yaml"
    for split, named in (("validation", "validation"), ("train", "training")):
        other = tmp_path / split
        shutil.copytree(tiny_data_path, other)
        path = other / f"{split}.parquet"
        table = pq.read_table(path)
        pq.write_table(table.slice(0, len(table) - 1), path)
        with pytest.raises(ValueError, match=rf"holds a run on other {named} rows or labels; give the data"):
            run(recipe, other, finished)
    assert (finished / "best" / "training_data.json").read_text() == before


def test_what_a_run_has_had_stays_in_its_recipe(tiny_data_path, tmp_path):
    recipe = write(tmp_path, phases=[{"epochs": 1, "lr": 0.01}, {"epochs": 2}])
    run(recipe, tiny_data_path, tmp_path / "out")
    before = (tmp_path / "out" / "recipe.yaml").read_text()
    for phases, said in (
        ([{"epochs": 1, "lr": 7.0}, {"epochs": 3}], "recipe differs in phases"),
        ([{"epochs": 3}], "recipe differs in phases"),
        ([{"epochs": 1, "lr": 0.01}, {"epochs": 1}], r"has had 3 epochs, and the recipe has fewer \(1, 1\)"),
    ):
        with pytest.raises(ValueError, match=said):
            run(write(tmp_path, phases=phases), tiny_data_path, tmp_path / "out")
        assert (tmp_path / "out" / "recipe.yaml").read_text() == before


def test_a_run_that_stopped_early_goes_on_without_that_rule(tiny_data_path, tmp_path, capsys):
    recipe = write(tmp_path, epochs=3, early_stopping=1, optimizer={"name": "sgd", "lr": 1e-9})
    run(recipe, tiny_data_path, tmp_path / "out")
    assert "stopping early" in capsys.readouterr().out
    epochs = len((tmp_path / "out" / "log.jsonl").read_text().splitlines())
    assert epochs < 3
    run(recipe, tiny_data_path, tmp_path / "out", "--set", "early_stopping=null")
    assert len((tmp_path / "out" / "log.jsonl").read_text().splitlines()) == 3


def test_what_was_fitted_to_earlier_weights_is_not_recorded_of_later_ones(tiny_data_path, tmp_path):
    for epochs in (1, 2):
        run(write(tmp_path, epochs=epochs, select="last"), tiny_data_path, tmp_path / "out")
        used = read_used(tmp_path / "out" / "best")
        assert "temperature" not in used
        record_used(tmp_path / "out" / "best", used | {"temperature": used["train"]})


@pytest.mark.parametrize(
    ("phase_epochs", "best_epoch", "stops"),
    [
        ([3, 0], 0, True),
        ([2, 0], 0, False),
        ([8, 1], 0, False),  # what the first phase waited is not held against the second
        ([8, 2], 0, True),
        ([8, 2], 8, False),
        ([8, 3], 8, True),
    ],
)
def test_early_stopping_counts_the_epochs_of_one_phase(phase_epochs, best_epoch, stops):
    phase = 1 if phase_epochs[1] else 0
    progress = Progress(epoch=sum(phase_epochs), phase=phase, phase_epochs=phase_epochs, best_epoch=best_epoch)
    run_so_far = SimpleNamespace(
        progress=progress,
        recipe=SimpleNamespace(early_stopping=2, select="accuracy", phases=[None, None]),
        accelerator=SimpleNamespace(print=lambda _: None),
        _phase_is_over=lambda: False,
    )
    assert Run._out_of_epochs(run_so_far) is stops


def test_a_log_that_was_cut_short_stops_no_run(tiny_data_path, tmp_path):
    run(write(tmp_path, epochs=1), tiny_data_path, tmp_path / "out")
    with (tmp_path / "out" / "log.jsonl").open("a") as log:
        log.write('{"epoch": 2, "lr": 0.0')
    run(write(tmp_path, epochs=2), tiny_data_path, tmp_path / "out")
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in log] == [1, 2]
    (tmp_path / "log.jsonl").write_text('{"epo\n{"epoch": 2}\n')
    with pytest.raises(ValueError, match=r"log\.jsonl, line 1, is no JSON"):
        read_log(tmp_path / "log.jsonl")


def test_weights_that_no_epoch_averaged_are_not_kept(tiny_model_path, tiny_data_path, tmp_path, capsys):
    recipe = write(
        tmp_path,
        epochs=9,
        early_stopping=1,
        average={"swa_last": 2},
        optimizer={"name": "sgd", "lr": 1e-9},
    )
    run(recipe, tiny_data_path, tmp_path / "out")
    out = capsys.readouterr().out
    assert "stopping early" in out
    assert "averaged weights" not in out


def test_a_finished_run_goes_on_once_its_recipe_has_more_epochs(tiny_data_path, tmp_path):
    short, longer = [{"epochs": 2}], [{"epochs": 2}, {"epochs": 1, "lr": 0.001}]
    for output, plans in ((tmp_path / "grown", (short, longer)), (tmp_path / "whole", (longer,))):
        for phases in plans:
            run(write(tmp_path, phases=phases), tiny_data_path, output)
    assert same(last_weights(tmp_path / "grown"), last_weights(tmp_path / "whole"))


def test_a_longer_recipe_averages_its_own_last_epochs(tiny_data_path, tmp_path):
    recipe = write(tmp_path, epochs=2, average={"swa_last": 1}, schedule={"name": "constant"})
    run(recipe, tiny_data_path, tmp_path / "grown")
    run(recipe, tiny_data_path, tmp_path / "grown", "--set", "epochs=4")
    run(recipe, tiny_data_path, tmp_path / "whole", "--set", "epochs=4")
    grown, whole = (
        load_checkpoint(latest_checkpoint(tmp_path / name / "checkpoints"))["averages"] for name in ("grown", "whole")
    )
    assert grown["swa"]["n_averaged"] == 1
    assert grown["first_swa_epoch"] == 3
    assert same(grown["swa"], whole["swa"])


def _train_in_child(recipe: Path, data: Path, output: Path) -> None:
    torch.set_num_threads(1)
    loop.CHECKPOINT_EVERY_S = 0
    run(recipe, data, output)


def killed_and_resumed(recipe: Path, data: Path, output: Path, delays_s: list[float]) -> int:
    """Train in children killed after these delays, then once to the end; how many were killed while running."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.test_resuming"])
    killed = 0
    for delay in [*delays_s, None]:
        child = context.Process(target=_train_in_child, args=(recipe, data, output))
        child.start()
        if delay is not None:
            deadline = time.monotonic() + 120
            while (
                latest_checkpoint(output / "checkpoints") is None and child.is_alive() and time.monotonic() < deadline
            ):
                time.sleep(0.01)
            time.sleep(delay)
            killed += child.is_alive()
            os.kill(child.pid, signal.SIGKILL)
        child.join(300)
    assert child.exitcode == 0
    return killed


def test_killed_at_any_moment_it_resumes_to_the_same_weights(tiny_data_path, tmp_path):
    recipe = write(tmp_path, epochs=6)
    killed_and_resumed(recipe, tiny_data_path, tmp_path / "whole", [])
    killed = killed_and_resumed(recipe, tiny_data_path, tmp_path / "killed", [0.02, 0.1, 0.2])
    assert killed == 3
    assert same(last_weights(tmp_path / "killed"), last_weights(tmp_path / "whole"))


def test_a_full_disk_keeps_the_older_checkpoint(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 1, {"a": torch.ones(3)})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(
        CheckpointError, match=r"step 2 could not be written .*No space left.*step_000000001.pt is intact"
    ):
        save_checkpoint(tmp_path, 2, {"a": torch.zeros(3)})
    assert [path.name for path in tmp_path.iterdir()] == ["step_000000001.pt"]
    assert torch.equal(load_checkpoint(latest_checkpoint(tmp_path))["a"], torch.ones(3))


def test_old_checkpoints_go_only_after_the_new_one_is_there(tmp_path):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, {"step": step}, keep=2)
    (tmp_path / "step_000000009.part").write_bytes(b"half")
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == ["step_000000002.pt", "step_000000003.pt"]
    assert load_checkpoint(latest_checkpoint(tmp_path)) == {"step": 3}


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_state(tiny_data_path, tmp_path, monkeypatch):
    calls = 0
    step = loop.Step.__call__

    def breaking_step(self, *arguments):
        nonlocal calls
        calls += 1
        loss, logits, targets = step(self, *arguments)
        return (loss * math.nan if calls > 10 else loss), logits, targets

    monkeypatch.setattr(loop.Step, "__call__", breaking_step)
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_S", 0)  # after every batch
    with pytest.raises(
        loop.TrainingDiverged, match=r"the loss became nan in epoch 2.*last good state is step_000000010"
    ):
        run(write(tmp_path), tiny_data_path, tmp_path / "out")
    assert load_checkpoint(latest_checkpoint(tmp_path / "out" / "checkpoints"))["progress"]["epoch"] == 1
