"""The review of contributions: nothing is trained on that was not accepted, or that was withdrawn."""

import itertools

import numpy as np
import pytest
from PIL import Image

from fer_hf.contributions import ContributionRepo, ContributionStore, Offer, Pusher, entries
from fer_hf.contributions.entries import key_of
from fer_hf.data.sources import load_source
from tests.contribution_runs import picture
from tests.data_folders import write_files
from tests.pictures import encode
from training import review_contributions, review_sources

LABELS = ("happy", "sad", "surprise")


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store whose clock goes on by a minute with each contribution, so that their order is known."""
    minutes = itertools.count()
    monkeypatch.setattr(entries, "now", lambda: f"2026-01-02T03:{next(minutes):02d}:00+00:00")
    return ContributionStore(tmp_path / "store", LABELS, "user/faces")


@pytest.fixture
def review(store, tmp_path):
    """Runs a command of the review; gives the lines that it says."""

    def run(*command, source=store.folder):
        arguments = ["--contributions", str(source), "--review", str(tmp_path / "review"), *map(str, command)]
        return review_contributions.run(review_contributions.parse_arguments(arguments))

    return run


def give(store, *numbers, label="happy") -> str:
    return store.add([Offer(picture(number), label, "sad") for number in numbers], consent=True)


def ids(lines) -> list[str]:
    return [line.split()[0] for line in lines[:-1]]


def accepted(tmp_path) -> list[tuple[str, bytes]]:
    """Label and pixels of every row that training would read."""
    train = load_source(str(tmp_path / "review" / "accepted"))["train"]
    names = train.features["label"].names
    return [(names[row["label"]], row["image"].tobytes()) for row in train]


def test_only_what_was_accepted_is_trained_on_with_the_reviewers_label(store, review, tmp_path):
    give(store, 1, 2, 3)
    give(store, 4)
    lines = review("list")
    assert lines[-1] == f"4 waiting, 0 accepted, 0 rejected; 0 are in {tmp_path / 'review' / 'accepted'}"
    assert all("happy  model: sad" in line for line in lines[:-1])
    first, second, third, fourth = ids(lines)
    assert first.split("-")[0] == second.split("-")[0] != fourth.split("-")[0]
    with pytest.raises(ValueError):
        accepted(tmp_path)
    review("accept", first)
    review("accept", second, "--label", "Sadness")
    review("reject", third)
    assert accepted(tmp_path) == [("happy", picture(1).tobytes()), ("sad", picture(2).tobytes())]
    assert ids(review("list")) == [fourth]
    assert ids(review("list", "--state", "rejected")) == [third]
    review("reject", first)
    review("accept", third)
    assert accepted(tmp_path) == [("sad", picture(2).tobytes()), ("happy", picture(3).tobytes())]
    assert len((tmp_path / "review" / "decisions.jsonl").read_text().splitlines()) == 5


def test_those_of_the_same_second_are_listed_by_key(store, review, monkeypatch):
    monkeypatch.setattr(entries, "now", lambda: "2026-01-02T02:00:00+00:00")
    receipts = [give(store, number, number + 10) for number in range(1, 7)]
    keys = sorted(key_of(receipt)[:16] for receipt in receipts)
    assert ids(review("list")) == [f"{key}-{number}" for key in keys for number in (0, 1)]


def test_a_lost_picture_holds_up_nobody(store, review, tmp_path):
    give(store, 1)
    next(iter(store.folder.glob("pictures/*"))).unlink()
    give(store, 2)
    review("accept", *ids(review("list")))
    assert accepted(tmp_path) == [("happy", picture(2).tobytes())]


def test_what_is_withdrawn_vanishes_from_the_accepted_too(store, review, tmp_path):
    mine = give(store, 1)
    give(store, 2)
    review("accept", *ids(review("list")))
    store.withdraw(mine)
    assert review("list")[-1].startswith("0 waiting, 1 accepted, 0 rejected; 1 are in")
    assert accepted(tmp_path) == [("happy", picture(2).tobytes())]
    assert len(list((tmp_path / "review" / "contributions").rglob("*.parquet"))) == 1


def test_from_the_hub_it_is_the_same(hub, store, review, tmp_path):
    mine = give(store, 1)
    give(store, 2)
    pusher = Pusher(store, ContributionRepo("user/faces"))
    pusher.push()
    lines = review("list", source="user/faces")
    assert ids(lines) == ids(review("list"))
    review("accept", *ids(lines), source="user/faces")
    assert len(accepted(tmp_path)) == 2
    store.withdraw(mine)
    pusher.push()
    assert len(ids(review("list", "--state", "accepted", source="user/faces"))) == 1
    assert accepted(tmp_path) == [("happy", picture(2).tobytes())]
    for path in (tmp_path / "review").rglob("*.parquet"):
        assert len(load_source(str(path))["train"]) == 1


def test_what_is_withdrawn_goes_also_where_something_else_cannot_be_fetched(hub, store, review, tmp_path, monkeypatch):
    mine = give(store, 1)
    give(store, 2)
    pusher = Pusher(store, ContributionRepo("user/faces"))
    pusher.push()
    review("accept", *ids(review("list", source="user/faces")), source="user/faces")
    part = tmp_path / "review" / "accepted" / ".train.parquet.part"
    part.write_bytes(b"of a run that was killed")
    store.withdraw(mine)
    pusher.push()

    def fail(*_, **__):
        raise OSError("broken off")

    monkeypatch.setattr(review_sources, "snapshot_download", fail)
    with pytest.raises(OSError, match="broken off"):
        review("list", source="user/faces")
    assert accepted(tmp_path) == [("happy", picture(2).tobytes())]
    assert not part.exists()


def test_exact_copies_are_named(store, review, tmp_path):
    files = {"contempt/a.png": encode(picture(1), "PNG"), "sad/b.png": encode(picture(9), "PNG")}
    known = write_files(tmp_path / "known", files)
    give(store, 1)
    give(store, 2)
    give(store, 2, label="sad")
    lines = review("list", "--existing", known)
    by_id = sorted(lines[:-1], key=len)
    assert "same picture" not in by_id[0]
    assert sum(f"same picture as {known} contempt/a.png" in line for line in lines) == 1
    assert sum("same picture as" in line and str(known) not in line for line in lines) == 1


def test_unknown_ids_decide_nothing(store, review, tmp_path):
    give(store, 1)
    (name,) = ids(review("list"))
    for command in (("accept", name, "nobody-0"), ("accept", name, "--label", "puzzled")):
        with pytest.raises(ValueError) as caught:
            review(*command)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "review" / "decisions.jsonl").exists()
    with pytest.raises(ValueError, match="no store of contributions"):
        review("list", source=tmp_path)


def test_a_decision_cut_short_by_a_kill_costs_only_itself(store, review, tmp_path):
    give(store, 1)
    give(store, 2)
    one, two = ids(review("list"))
    review("accept", one)
    with (tmp_path / "review" / "decisions.jsonl").open("a") as file:
        file.write('{"entry": "' + two)
    (tmp_path / "review" / "accepted" / ".train.parquet.part").write_bytes(b"half")
    review("accept", two)
    assert len(accepted(tmp_path)) == 2


def test_a_sheet_shows_each_picture(store, review, tmp_path):
    give(store, *range(7))
    said = review("sheet", "--output", tmp_path / "sheet.png")
    assert said[0].endswith("shows 7 waiting entries, page 1 of 1")
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet)
    assert pixels.shape == (2 * 204, 900, 3)
    assert (pixels[:150, :150] != 255).any()
    assert (pixels[204:354, :150] != 255).any()
    assert (pixels[204:, 150:] == 255).all()
    with pytest.raises(ValueError, match="there are 1 pages"):
        review("sheet", "--output", tmp_path / "sheet.png", "--page", 2)
