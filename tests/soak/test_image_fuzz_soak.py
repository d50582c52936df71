"""A thousand mutated pictures of each format, in one child; see docs/soak.md for a run's figures."""

from collections import Counter

import pytest

from tests.mutated_pictures import MUTATED_FORMATS, read_in_child
from tests.test_image_fuzz import assert_bounded

COPIES = 1000


@pytest.fixture(scope="module")
def records() -> dict[str, dict]:
    return read_in_child("mutated", str(COPIES), "1")


def test_mutated_pictures_are_read_or_refused_within_bounds(records):
    assert len(records) == COPIES * len(MUTATED_FORMATS)
    assert_bounded(records)
    print(f"\nslowest {max(r['seconds'] for r in records.values()):.3f} s of processor time,", end=" ")
    print(f"peak memory {max(r['peak_mb'] for r in records.values()):.0f} MB")


@pytest.mark.parametrize("format", MUTATED_FORMATS)
def test_a_fifth_of_the_mutations_gets_past_the_header(records, format):
    outcomes = Counter(record["outcome"] for name, record in records.items() if name.startswith(format))
    print(f"\n{format}: {dict(outcomes)}")
    assert outcomes["decoded"] >= COPIES // 5
