"""When a phase ends and what share of it is over, by epochs and by the clock."""

import json

import pytest
import yaml

from tests.tiny_recipe import run, write
from training.config import Phase, Recipe, as_run
from training.pace import Pace


class Clock:
    """Tells the time that it is set to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def epochs_run(pace: Pace, clock: Clock, planned: int, seconds: float, later: int = 0) -> list[float]:
    """The share that is over before each epoch of a phase whose epochs take so many seconds."""
    pace.enter(planned, 0, later)
    shares = []
    while not pace.is_over(len(shares)):
        shares.append(pace.next_epoch(len(shares))[0])
        clock.now += seconds
    return shares


def test_without_a_limit_epochs_alone_count():
    clock = Clock()
    assert epochs_run(Pace(None, clock), clock, planned=4, seconds=1e6) == [0, 0.25, 0.5, 0.75]


def test_time_to_spare_changes_nothing():
    clock = Clock()
    assert epochs_run(Pace(100, clock), clock, planned=4, seconds=1) == [0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize(("seconds", "count"), [(10, 10), (30, 3), (45, 2), (70, 1), (1000, 1)])
def test_too_little_time_leaves_epochs_out_and_none_overruns_by_more_than_half(seconds, count):
    clock = Clock()
    shares = epochs_run(Pace(100, clock), clock, planned=20, seconds=seconds)
    assert shares == pytest.approx([n * seconds / 100 for n in range(count)])


def test_an_epoch_moves_the_rate_as_far_as_the_last_ones_did():
    clock = Clock()
    pace = Pace(100, clock)
    pace.enter(planned=20, done=0, later=0)
    assert pace.next_epoch(0) == (0, 1 / 20)  # nobody knows yet how long it takes
    clock.now += 25
    assert pace.next_epoch(1) == pytest.approx((0.25, 0.25))


def test_phases_share_the_time_by_their_epochs_and_what_one_leaves_goes_to_the_next():
    clock = Clock()
    pace = Pace(100, clock)
    assert len(epochs_run(pace, clock, planned=10, seconds=11, later=30)) == 2  # 25 s of the 100
    assert clock.now == 122
    assert len(epochs_run(pace, clock, planned=30, seconds=13)) == 6  # the 78 s that are left


def test_a_phase_that_goes_on_keeps_the_share_it_had():
    clock = Clock()
    pace = Pace(40, clock)
    pace.enter(planned=10, done=5, later=0)
    assert pace.next_epoch(5) == (0.5, 0.1)
    clock.now += 20
    assert pace.next_epoch(6) == pytest.approx((0.75, 0.25))
    assert pace.is_over(10)


def test_the_recipe_of_what_was_run_counts_its_epochs():
    recipe = Recipe("a", phases=[Phase(5), Phase(4, lr=0.1), Phase(3)])
    assert as_run(recipe, [2, 1, 0]).phases == [Phase(2), Phase(1, lr=0.1)]
    assert as_run(recipe, [2, 1, 0]).epochs == 3


def test_a_run_within_a_limit_ends_with_the_rate_and_says_what_was_run(tiny_data_path, tmp_path):
    output = tmp_path / "out"
    run(write(tmp_path, epochs=5000), tiny_data_path, output, "--minutes", "0.02")
    rates = [json.loads(line)["lr"] for line in (output / "log.jsonl").read_text().splitlines()]
    assert 1 <= len(rates) < 5000
    for folder in (output, output / "best"):
        assert yaml.safe_load((folder / "recipe.yaml").read_text())["epochs"] == len(rates)
    before = (output / "log.jsonl").read_text()
    run(output / "recipe.yaml", tiny_data_path, output)  # finished, by what it says of itself
    assert (output / "log.jsonl").read_text() == before


@pytest.mark.parametrize(
    ("minutes", "average", "message"),
    [("0", {}, "must be above 0; 0 was given"), ("1", {"swa_last": 2}, "swa_last needs all epochs")],
)
def test_limits_that_mean_nothing_are_refused(tiny_data_path, tmp_path, minutes, average, message):
    with pytest.raises(ValueError, match=message):
        run(write(tmp_path, average=average), tiny_data_path, tmp_path / "out", "--minutes", minutes)
