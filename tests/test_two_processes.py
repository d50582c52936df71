"""Two CPU processes under accelerate: the same samples, the same evaluation, weighted sampling still right."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.tiny_recipe import TINY, write


def _be_one_of(rank: int, world: int, port: int) -> None:
    """What a launcher tells each of its processes."""
    os.environ.update(
        ACCELERATE_USE_CPU="true", RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), LOCAL_WORLD_SIZE=str(world),
    )  # fmt: skip
    torch.set_num_threads(1)


def _work(rank: int, world: int, port: int, recipe: Path, data: Path, model: Path, output: Path) -> None:
    """One process: draws an epoch of rows plain and weighted, scores a saved model, trains; leaves what it saw."""
    _be_one_of(rank, world, port)
    from accelerate import Accelerator
    from accelerate.utils import DataLoaderConfiguration

    from fer_hf.hub import load_model
    from training import train
    from training.averaging import share_statistics
    from training.config import load_recipe
    from training.engine import EpochSampler, predict_logits, split_loader

    loaded = load_model(str(model))
    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(split_batches=True))
    rows, validation, _ = train.load_data(load_recipe(recipe), loaded.processor, str(data), None)
    weights = torch.where(rows.labels == 0, 10.0, 0.1)
    seen = {}
    for name, sampler in {
        "plain": EpochSampler(len(rows), 0),
        "weighted": EpochSampler(len(rows), 0, weights),
    }.items():
        loader = accelerator.prepare_data_loader(split_loader(rows, 16, sampler))
        seen[name] = [batch.tolist() for batch in loader]
    odd = validation.select(range(67))  # does not divide by the batch size or by two
    seen["logits"] = predict_logits(accelerator, loaded.model, odd, loaded.processor.normalize_uint8, 16)
    norm = torch.nn.BatchNorm1d(3)
    norm.running_mean.fill_(rank)
    share_statistics(accelerator, norm)
    seen["shared_mean"] = norm.running_mean.clone()
    arguments = ["--recipe", str(recipe), "--data", str(data), "--output", str(output), "--tracker", "none"]
    seen["best"] = train.main(arguments).best_score
    torch.save(seen, output / f"seen_{rank}.pt")


def _train_only(rank: int, world: int, port: int, recipe: Path, data: Path, output: Path) -> None:
    """One process that does nothing but what the command line does, and leaves how many it found itself among."""
    _be_one_of(rank, world, port)
    from accelerate import PartialState

    from training import train

    train.main(["--recipe", str(recipe), "--data", str(data), "--output", str(output), "--tracker", "none"])
    torch.save({"processes": PartialState().num_processes}, output / f"seen_{rank}.pt")


def spread(world: int, *paths: Path, work: Callable = _work) -> list[dict]:
    """What every process of ``world`` saw at its ``work``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.tiny_recipe"])
    paths[-1].mkdir()
    children = [context.Process(target=work, args=(rank, world, port, *paths)) for rank in range(world)]
    for child in children:
        child.start()
    for child in children:
        child.join(240)
    assert [child.exitcode for child in children] == [0] * world
    return [torch.load(paths[-1] / f"seen_{rank}.pt", weights_only=True) for rank in range(world)]


@pytest.fixture(scope="module")
def one_and_two(tiny_data_path, tiny_model_path, tmp_path_factory) -> tuple[dict, list[dict], Path]:
    folder = tmp_path_factory.mktemp("processes")
    recipe = write(folder, epochs=2)
    (one,) = spread(1, recipe, tiny_data_path, tiny_model_path, folder / "one")
    return one, spread(2, recipe, tiny_data_path, tiny_model_path, folder / "two"), folder


def test_two_processes_see_the_samples_that_one_sees(one_and_two):
    one, two, _ = one_and_two
    for name in ("plain", "weighted"):
        together = [sorted(a + b) for a, b in zip(two[0][name], two[1][name], strict=True)]
        assert together == [sorted(batch) for batch in one[name]]
    drawn = [row for batch in one["plain"] for row in batch]
    assert len(set(drawn)) == len(drawn) == 128  # 139 rows, the short last batch dropped


def test_weighted_sampling_draws_the_wanted_class_in_each_process(one_and_two):
    _, two, _ = one_and_two
    for seen in two:
        drawn = [row for batch in seen["weighted"] for row in batch]
        assert len(drawn) == 64
        share = sum(row % 7 == 0 or row in (7 * k - 1 for k in range(1, 21)) for row in drawn) / len(drawn)
        assert share > 0.7  # expected 0.94; unweighted 0.14 to 0.28


def test_evaluation_is_the_same_and_counts_unequal_batches_once(one_and_two):
    one, two, _ = one_and_two
    assert one["logits"].shape == (67, 7)
    for seen in two:
        torch.testing.assert_close(seen["logits"], one["logits"], atol=1e-6, rtol=0)


def test_both_processes_agree_and_one_writes(one_and_two):
    _, two, folder = one_and_two
    assert two[0]["best"] == two[1]["best"]
    assert [seen["shared_mean"].tolist() for seen in two] == [[0.5] * 3] * 2
    assert (folder / "two" / "best" / "model.safetensors").is_file()
    assert len((folder / "two" / "log.jsonl").read_text().splitlines()) == 2


def test_a_run_that_starts_from_other_weights_is_one_run_of_two_processes(tiny_data_path, tiny_model_path, tmp_path):
    model = {"start_from": str(tiny_model_path), "config": TINY["model"]["config"]}
    recipe = write(tmp_path, epochs=1, model=model)
    seen = spread(2, recipe, tiny_data_path, tmp_path / "runs", work=_train_only)
    assert [one["processes"] for one in seen] == [2, 2]
    assert len((tmp_path / "runs" / "log.jsonl").read_text().splitlines()) == 1
