"""The local store of contributions: on the disk before it is acknowledged, without metadata, withdrawable."""

import errno
import json
import os
import stat
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fer_hf.contributions import CONSENT, MAX_SIDE_PX, ContributionStore, Offer, log

LABELS = ("happy", "sad")


def picture(seed=0, size=(40, 30)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8))


@pytest.fixture
def store(tmp_path):
    return ContributionStore(tmp_path / "store", LABELS)


def test_an_entry_is_read_back_by_another_store_as_it_was_given(store):
    store.add([Offer(picture(1), "sad", "happy")], consent=True)
    again = ContributionStore(store.folder, LABELS)
    (entry,) = again.entries()
    assert (entry["label"], entry["predicted"]) == ("sad", "happy")
    assert np.array_equal(np.asarray(again.open_picture(entry["picture"])), np.asarray(picture(1)))


def test_files_that_are_not_the_stores_stay_and_what_a_killed_process_left_goes(store):
    store.add([Offer(picture(1), "sad", "happy")], consent=True)
    pictures = store.folder / "pictures"
    for name in ("holiday.jpg", "0123.png", f"{'a' * 32}.png", ".fer-staged-1"):
        (pictures / name).write_bytes(b"x")
    (pictures / "album").mkdir()
    (entry,) = ContributionStore(store.folder, LABELS).entries()
    assert {path.name for path in pictures.iterdir()} == {entry["picture"], "holiday.jpg", "0123.png", "album"}


def test_pictures_without_their_log_are_not_taken_for_withdrawn(store):
    store.add([Offer(picture(1), "sad", "happy")], consent=True)
    (store.folder / "entries.jsonl").rename(store.folder / "elsewhere")
    with pytest.raises(ValueError, match=r"entries\.jsonl is missing or empty, .*: put it back, or give"):
        ContributionStore(store.folder, LABELS)
    (store.folder / "entries.jsonl").touch()
    with pytest.raises(ValueError, match=r"entries\.jsonl is missing or empty"):
        ContributionStore(store.folder, LABELS)
    lines = (store.folder / "elsewhere").read_bytes()
    (store.folder / "entries.jsonl").write_bytes(b"\xef\xbb\xbf" + lines)  # as some editors save it
    assert len(list(ContributionStore(store.folder, LABELS).entries())) == 1


def test_metadata_and_names_do_not_come_along(store, tmp_path):
    source = tmp_path / "secret-name.jpg"
    exif = Image.Exif()
    exif[0x010E] = "GPS of my home"
    picture().save(source, exif=exif)
    with Image.open(source) as opened:
        receipt = store.add([Offer(opened, "happy")], consent=True)
    stored = b"".join(path.read_bytes() for path in store.folder.rglob("*") if path.is_file())
    assert b"my home" not in stored
    assert b"secret-name" not in stored
    assert receipt.encode() not in stored


def test_large_pictures_are_made_smaller(store):
    store.add([Offer(picture(size=(2000, 1000)), "happy")], consent=True)
    (entry,) = store.entries()
    assert store.open_picture(entry["picture"]).size == (MAX_SIDE_PX, MAX_SIDE_PX // 2)


@pytest.mark.parametrize(
    ("offers", "consent", "sentence"),
    [
        ([Offer(picture(), "happy")], False, "consent"),
        ([], True, "no picture"),
        ([Offer(picture(), "happy"), Offer(picture(), "joyful")], True, "not a label"),
    ],
)
def test_what_is_refused_leaves_nothing_behind(store, offers, consent, sentence):
    with pytest.raises(ValueError, match=sentence):
        store.add(offers, consent=consent)
    assert list(store.entries()) == []
    assert list((store.folder / "pictures").iterdir()) == []


def test_withdrawing_deletes_the_pictures_but_not_those_that_others_gave_too(store):
    mine = store.add([Offer(picture(1), "happy"), Offer(picture(2), "sad")], consent=True)
    store.add([Offer(picture(2), "happy")], consent=True)
    assert store.withdraw(f" {mine} ") == 2
    assert [entry["label"] for entry in store.entries()] == ["happy"]
    assert not store.holds(picture(1))
    assert store.holds(picture(2))
    assert store.withdraw(mine) == 0
    assert store.withdraw("guess") == 0


def test_the_log_only_grows(store):
    receipt = store.add([Offer(picture(1), "happy")], consent=True)
    before = (store.folder / "entries.jsonl").read_bytes()
    store.withdraw(receipt)
    assert (store.folder / "entries.jsonl").read_bytes().startswith(before)
    assert len((store.folder / "entries.jsonl").read_bytes()) > len(before)


def test_a_line_cut_short_by_a_crash_costs_only_itself(store):
    store.add([Offer(picture(1), "happy")], consent=True)
    with (store.folder / "entries.jsonl").open("ab") as file:
        file.write(b'{"action": "add", "recei')
    store.add([Offer(picture(2), "sad")], consent=True)
    assert [entry["label"] for entry in store.entries()] == ["happy", "sad"]


@pytest.mark.parametrize("failing_call", [1, 3])
def test_nothing_is_acknowledged_or_left_when_the_disk_fails(store, monkeypatch, failing_call):
    """The first call is for the picture itself, the third for the line that names it."""
    calls, real = [], os.fsync

    def fail(descriptor):
        calls.append(descriptor)
        if len(calls) == failing_call:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        store.add([Offer(picture(1), "happy")], consent=True)
    assert len(calls) == failing_call
    assert list((store.folder / "pictures").iterdir()) == []


def test_many_at_once_lose_nothing(store):
    def give(seed):
        store.add([Offer(picture(seed), "happy")], consent=True)

    threads = [threading.Thread(target=give, args=(seed,)) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries = list(store.entries())
    assert len({entry["picture"] for entry in entries}) == len(entries) == 12
    begun, *lines = (store.folder / "entries.jsonl").read_text("utf-8").splitlines()
    assert json.loads(begun)["action"] == "begin"
    assert all(json.loads(line)["action"] == "add" for line in lines)


def test_the_consent_text_names_what_is_agreed_to():
    assert "published" in CONSENT
    assert "everyone shown agrees" in CONSENT


def test_of_a_zip_that_the_disk_has_no_room_for_nothing_stays(store, monkeypatch):
    kept = store.add([Offer(picture(1), "sad")], consent=True)

    def fill_up(descriptor):
        if stat.S_ISREG(os.fstat(descriptor).st_mode):  # the lines are written; pictures are synced by the store
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(log, "os", SimpleNamespace(**{**vars(os), "fsync": fill_up}))
    with pytest.raises(OSError, match="No space left"):
        store.add([Offer(picture(number), "happy") for number in range(1, 5)], consent=True)
    monkeypatch.undo()
    (entry,) = store.entries()
    assert [path.name for path in (store.folder / "pictures").iterdir()] == [entry["picture"]]
    assert len((store.folder / "entries.jsonl").read_text().splitlines()) == 2  # the first says that the store begins
    assert store.withdraw(kept) == 1
