"""FER+ votes: the majority and soft rules and the file reader, on made votes."""

import numpy as np
import pytest

from fer_hf.data.ferplus import labels_given_votes, majority_label, majority_labels, read_votes, soft_labels
from fer_hf.labels import FER7, VOCABULARIES

HEADER = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\n"


@pytest.mark.parametrize(
    ("votes", "name"),
    [
        ([6, 4, 0, 0, 0, 0, 0, 0, 0, 0], "neutral"),
        ([0, 10, 0, 0, 0, 0, 0, 0, 0, 0], "happy"),
        ([0, 0, 0, 0, 0, 0, 8, 2, 0, 0], "fear"),
        ([5, 5, 0, 0, 0, 0, 0, 0, 0, 0], None),  # half is not over half
        ([4, 0, 0, 1, 3, 2, 0, 0, 0, 0], None),  # 4 of the 9 that remain
        ([5, 0, 1, 1, 1, 1, 1, 0, 0, 0], "neutral"),  # single votes vanish: 5 of 5
        ([0, 0, 0, 0, 0, 0, 0, 9, 1, 0], None),  # contempt wins
        ([0, 0, 0, 0, 0, 0, 0, 0, 8, 2], None),  # unknown wins
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 10], None),  # not a face
        ([4, 0, 0, 0, 0, 0, 0, 0, 6, 0], None),  # unknown counts in the total
        ([1, 1, 1, 1, 1, 1, 1, 1, 1, 1], None),  # nothing remains
        ([0] * 10, None),
    ],
)
def test_majority_needs_over_half_of_what_remains_and_a_wanted_winner(votes, name):
    assert majority_label(votes) == (None if name is None else FER7.index(name))


def test_majority_labels_of_many_rows_equal_the_single_ones_and_take_other_vocabularies():
    votes = np.random.default_rng(0).multinomial(10, [0.3, 0.3, 0.1, 0.05, 0.05, 0.05, 0.05, 0.05, 0.04, 0.01], 200)
    expected = [-1 if label is None else label for label in map(majority_label, votes)]
    assert majority_labels(votes).tolist() == expected
    assert majority_labels([[0, 0, 0, 0, 0, 0, 0, 9, 1, 0]], VOCABULARIES[8]).tolist() == [7]
    assert majority_labels([[9, 0, 0, 0, 0, 0, 0, 0, 1, 0]], VOCABULARIES[5]).tolist() == [-1]


def test_soft_labels_are_shares_of_the_wanted_columns_with_and_without_single_votes():
    votes = [[4, 0, 0, 1, 3, 2, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0, 9, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0, 5, 5]]
    shares, counts = soft_labels(votes)
    assert counts.tolist() == [True, False, False]
    np.testing.assert_allclose(shares[0], [3 / 9, 2 / 9, 0, 0, 0, 0, 4 / 9], rtol=1e-6)
    assert not shares[1:].any()
    shares, counts = soft_labels(votes, drop_single_votes=False)
    assert counts.tolist() == [True, True, False]
    np.testing.assert_allclose(shares[0], [0.3, 0.2, 0, 0, 0.1, 0, 0.4], rtol=1e-6)
    np.testing.assert_allclose(shares[1], [0, 0, 0, 1, 0, 0, 0])


def test_what_votes_say_of_labels_is_how_often_rows_with_such_votes_have_them():
    happy, sad = [0, 9, 0, 1, 0, 0, 0, 0, 0, 0], [1, 0, 0, 9, 0, 0, 0, 0, 0, 0]
    labels = np.array([0] * 30 + [2] * 10 + [1] * 36 + [0] * 4)
    expected = labels_given_votes([happy] * 40 + [sad] * 40, labels, 3)
    assert expected.dtype == np.float32
    np.testing.assert_allclose(expected.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(expected[0], [0.75, 0, 0.25], atol=0.01)
    np.testing.assert_allclose(expected[-1], [0.1, 0.9, 0], atol=0.01)
    assert (expected[:40] == expected[0]).all()
    assert (expected[40:] == expected[40]).all()


@pytest.mark.parametrize("votes", [np.zeros((3, 9)), np.zeros(10), [[-1] + [0] * 9]])
def test_votes_of_another_shape_or_negative_are_refused(votes):
    with pytest.raises(ValueError, match=r"votes should"):
        majority_labels(votes)


def test_reading_keeps_file_order_within_each_usage(tmp_path):
    path = tmp_path / "fer2013new.csv"
    rows = [
        "Training,a.png,4,0,0,1,3,2,0,0,0,0",
        "PublicTest,b.png,0,10,0,0,0,0,0,0,0,0",
        "Training,,0,0,0,0,0,0,0,0,0,10",
    ]
    path.write_bytes(("\ufeff" + HEADER + "\n".join(rows) + "\n\n").replace("\n", "\r\n").encode())
    votes = read_votes(path)
    assert votes["Training"].tolist() == [[4, 0, 0, 1, 3, 2, 0, 0, 0, 0], [0] * 9 + [10]]
    assert votes["PublicTest"].shape == (1, 10)


@pytest.mark.parametrize(
    ("row", "reason"),
    [("Training,a.png,1,2", "row 2: 2 votes instead of 10"), ("Training,a.png," + "x," * 9 + "1", "row 2: the votes")],
)
def test_a_malformed_row_is_named(tmp_path, row, reason):
    path = tmp_path / "votes.csv"
    path.write_text(HEADER + row)
    with pytest.raises(ValueError, match=reason):
        read_votes(path)


def test_a_file_that_is_no_votes_file_is_refused(tmp_path):
    path = tmp_path / "votes.csv"
    path.write_text("emotion,pixels\n0,1 2 3\n")
    with pytest.raises(ValueError, match="no FER\\+ file"):
        read_votes(path)
