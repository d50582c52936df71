"""One place knows what class names and numbers mean."""

import pytest

from fer_hf.labels import ALIASES, NUMBERINGS, canonical_label, numbering_of, target_label, vocabulary


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("Anger", "angry"),
        (" HAPPINESS ", "happy"),
        ("3_sad", "sad"),
        ("001 - surprise", "surprise"),
        ("5.Fearful", "fear"),
        ("NF", "not a face"),
        ("not_a-face", "not a face"),
        ("Uncertain", "unknown"),
        ("contemptuous", "contempt"),
    ],
)
def test_names_resolve_in_any_spelling(written, name):
    assert canonical_label(written) == name


@pytest.mark.parametrize("written", ["sleepy", "", "7", "3_", "happy sad"])
def test_an_unknown_name_is_an_error_that_lists_the_known(written):
    with pytest.raises(ValueError, match=r"unknown expression .*known are angry, disgust, fear, happy, sad"):
        canonical_label(written)


def test_a_near_miss_is_suggested():
    with pytest.raises(ValueError, match="did you mean 'surprise'"):
        canonical_label("surprice")


def test_no_alias_belongs_to_two_names():
    every = [alias for name, aliases in ALIASES.items() for alias in (name, *aliases)]
    assert len(every) == len(set(every))
    assert all(canonical_label(alias) == name for name, aliases in ALIASES.items() for alias in aliases)


@pytest.mark.parametrize(
    ("numbers", "numbering"),
    [
        (range(7), "fer2013"),
        ([0, 3], "fer2013"),
        ([1, 2, 3], "fer2013"),
        (range(1, 8), "raf-db"),
        (range(8), "affectnet"),
        (range(11), "affectnet"),
        ([], "fer2013"),
    ],
)
def test_numbers_are_read_by_the_numbering_they_all_fit(numbers, numbering):
    assert numbering_of(numbers) == numbering


def test_numbers_of_no_numbering_are_refused():
    with pytest.raises(ValueError, match=r"\[11, 40\] are in no known numbering"):
        numbering_of([0, 11, 40])


def test_numberings_are_the_published_ones():
    assert NUMBERINGS["fer2013"][6] == "neutral"
    assert NUMBERINGS["raf-db"] == {
        1: "surprise",
        2: "fear",
        3: "disgust",
        4: "happy",
        5: "sad",
        6: "angry",
        7: "neutral",
    }
    assert [NUMBERINGS["affectnet"][i] for i in (0, 1, 7, 10)] == ["neutral", "happy", "contempt", "not a face"]


def test_a_class_becomes_what_remap_says_or_is_left_out():
    assert target_label("contempt", vocabulary(7), {}) is None
    assert target_label("contempt", vocabulary(8), {}) == "contempt"
    assert target_label("contempt", vocabulary(7), {"contempt": "disgust"}) == "disgust"
    assert target_label("happy", vocabulary(7), {"happy": None}) is None
    assert target_label("disgust", vocabulary(5), {"disgust": "angry"}) == "angry"
