"""Damaged and hostile pictures: nothing but ImageError comes out, within bounded time and memory, and nothing dies."""

from collections import Counter

import pytest

from tests.mutated_pictures import MUTATED_FORMATS, mutated, read_in_child

COPIES = 50
MAX_SECONDS, MAX_MB = 2, 500  # processor time and resident memory, both of which a busy machine leaves as they are


def assert_bounded(records: dict[str, dict]) -> None:
    """Checks what holds for every file. That the child came back with records says that no other exception left."""
    strange = {
        name: record
        for name, record in records.items()
        if record["outcome"] not in ("decoded", "refused")
        or record["seconds"] > MAX_SECONDS
        or record["peak_mb"] > MAX_MB
    }
    assert not strange


@pytest.fixture(scope="module")
def mutated_records() -> dict[str, dict]:
    return read_in_child("mutated", str(COPIES), "0")


@pytest.fixture(scope="module")
def hostile_records() -> dict[str, dict]:
    return read_in_child("hostile")


def test_mutated_pictures_are_read_or_refused_within_bounds(mutated_records):
    assert len(mutated_records) == COPIES * len(MUTATED_FORMATS)
    assert_bounded(mutated_records)


@pytest.mark.parametrize("format", MUTATED_FORMATS)
def test_a_fifth_of_the_mutations_gets_past_the_header_and_some_are_refused(mutated_records, format):
    outcomes = Counter(record["outcome"] for name, record in mutated_records.items() if name.startswith(format))
    assert outcomes["decoded"] >= COPIES // 5  # else the decoders behind the header checks would go untried
    assert outcomes["refused"] >= COPIES // 10


def test_mutations_depend_on_the_seed_alone():
    assert list(mutated(3, seed=1)) == list(mutated(3, seed=1))
    assert list(mutated(3, seed=1)) != list(mutated(3, seed=2))


def test_hostile_pictures_are_read_or_refused_within_bounds(hostile_records):
    assert_bounded(hostile_records)


def test_hostile_metadata_does_not_keep_an_intact_picture_from_being_read(hostile_records):
    decoded = {name for name, record in hostile_records.items() if record["outcome"] == "decoded"}
    assert decoded == {
        "jpeg exif in many segments",
        "jpeg exif of 64 kB",
        "png text of 15 MB",
        "tiff exif that shares a value",
        "avif exif",
    }
