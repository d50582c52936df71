"""A step that is recorded once and replayed; what needs no GPU is tested with a stand-in for the recording."""

import contextlib
from types import SimpleNamespace

import pytest
import torch

from tests.tiny_recipe import last_weights, run, write
from training import loop, recording
from training.optimizers import OptimizerRecipe, build_optimizer, place_rate, set_rate
from training.recording import WARM_UPS, Recorded, RecordingError


class Graph:
    """Stands in for a CUDA graph: replaying runs the function on the held inputs, into the same outputs."""

    owner: Recorded

    def replay(self) -> None:
        for held, new in zip(self.owner.outputs, self.owner.function(*self.owner.inputs), strict=True):
            held.copy_(new)


@pytest.fixture
def stand_in(monkeypatch):
    stream = SimpleNamespace(wait_stream=lambda other: None)
    cuda = SimpleNamespace(
        CUDAGraph=Graph,
        graph=lambda graph: contextlib.nullcontext(),
        Stream=lambda: stream,
        current_stream=lambda: stream,
        stream=lambda one: contextlib.nullcontext(),
    )
    monkeypatch.setattr(recording, "torch", SimpleNamespace(cuda=cuda))


def test_every_call_answers_for_its_own_inputs_and_answers_last(stand_in):
    recorded = Recorded(lambda a, b: (a + b, a * b))
    Graph.owner = recorded
    answers = [recorded(torch.tensor([float(n)]), torch.tensor([2.0])) for n in range(WARM_UPS + 3)]
    assert [float(total) for total, _ in answers] == [2, 3, 4, 5, 6, 7]  # also those that were given long ago
    assert [float(product) for _, product in answers] == [0, 2, 4, 6, 8, 10]


def test_inputs_are_held_apart_from_what_the_caller_goes_on_to_change(stand_in):
    recorded = Recorded(lambda a: (a * 1,))
    Graph.owner = recorded
    given = torch.zeros(1)
    for _ in range(WARM_UPS + 1):
        recorded(given)
    given.fill_(5)
    assert float(recorded.inputs[0]) == 0
    assert float(recorded(given)[0]) == 5


def test_inputs_of_another_number_are_refused(stand_in):
    recorded = Recorded(lambda *a: (a[0] * 1,))
    Graph.owner = recorded
    for _ in range(WARM_UPS + 1):
        recorded(torch.zeros(1))
    with pytest.raises(ValueError, match="longer than argument 1"):
        recorded(torch.zeros(1), torch.zeros(1))


def test_what_cannot_be_recorded_is_said_with_what_to_set(stand_in):
    def waits(a: torch.Tensor) -> tuple[torch.Tensor]:
        if recorded.graph is not None:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        return (a,)

    recorded = Recorded(waits)
    for _ in range(WARM_UPS):
        recorded(torch.zeros(1))
    with pytest.raises(RecordingError, match=r"\(operation not permitted .* capturing\): set record=false"):
        recorded(torch.zeros(1))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_a_rate_in_a_tensor_moves_the_weights_as_a_number_does(name):
    def moved(device: torch.device | None) -> torch.Tensor:
        weight = torch.nn.Parameter(torch.ones(3, 2))
        optimizer = build_optimizer([weight], OptimizerRecipe(name, weight_decay=0.1), lr=0.5)
        place_rate(optimizer, device)
        for rate in (0.1, 0.02):
            set_rate(optimizer, rate)
            (weight**2).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        return weight.detach()

    torch.testing.assert_close(moved(torch.device("cpu")), moved(None), rtol=1e-6, atol=0)


def test_a_rate_goes_into_a_tensor_and_back_with_what_a_graph_needs():
    optimizer = build_optimizer([torch.nn.Parameter(torch.ones(2, 2))], OptimizerRecipe("adamw"), lr=0.25)
    (group,) = optimizer.param_groups
    place_rate(optimizer, torch.device("cpu"))
    rate = group["lr"]
    set_rate(optimizer, 0.125)
    assert group["lr"] is rate
    assert float(rate) == 0.125
    assert group["capturable"]
    place_rate(optimizer, None)
    assert group["lr"] == 0.125
    assert isinstance(group["lr"], float)
    assert not group["capturable"]


def test_nothing_is_recorded_on_a_cpu(tiny_data_path, tmp_path, monkeypatch):
    seen = []
    began = loop.Run.begin
    monkeypatch.setattr(loop.Run, "begin", lambda self: (began(self), seen.append(self)))
    run(write(tmp_path, epochs=1), tiny_data_path, tmp_path / "out")
    assert not seen[0].recorded
    assert seen[0].step.recorded is False
    assert isinstance(seen[0].optimizer.param_groups[0]["lr"], float)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="records a real graph, which takes a CUDA device")
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_recorded_and_launched_steps_move_the_weights_alike(tiny_data_path, tmp_path, name):
    recipe = write(tmp_path, optimizer={"name": name, "lr": 0.01}, phases=[{"epochs": 2}, {"epochs": 1, "lr": 0.002}])
    run(recipe, tiny_data_path, tmp_path / "recorded")
    run(recipe, tiny_data_path, tmp_path / "launched", "--set", "record=false")
    torch.testing.assert_close(last_weights(tmp_path / "recorded"), last_weights(tmp_path / "launched"))
