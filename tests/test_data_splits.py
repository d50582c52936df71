"""Splits keep class shares, never part a subject, repeat with their seed and name classes that are too small."""

import datasets
import numpy as np
import pytest

from fer_hf.data.splits import class_gaps, folded, k_folds, split_rows, with_splits
from fer_hf.labels import FER7

LABELS = np.repeat(np.arange(7), [95, 20, 192, 230, 142, 86, 33])


def dataset(labels, subjects=None) -> datasets.Dataset:
    columns = {"label": list(labels), "row_id": [str(i) for i in range(len(labels))]}
    features = {"label": datasets.ClassLabel(names=list(FER7)), "row_id": datasets.Value("string")}
    if subjects is not None:
        columns["subject"], features["subject"] = subjects, datasets.Value("string")
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def test_parts_are_all_rows_once_with_class_shares_kept_to_a_row():
    parts = split_rows(LABELS, FER7, {"train": 0.8, "validation": 0.15, "test": 0.05}, seed=3)
    assert np.array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(len(LABELS)))
    for name, share in (("train", 0.8), ("validation", 0.15), ("test", 0.05)):
        counts = np.bincount(LABELS[parts[name]], minlength=7)
        assert (np.abs(counts - share * np.bincount(LABELS)) <= 1).all()
        assert abs(len(parts[name]) - share * len(LABELS)) <= 1.5


def test_the_same_seed_gives_the_same_parts_and_another_gives_others():
    shares = {"train": 0.9, "validation": 0.1}
    first = split_rows(LABELS, FER7, shares, seed=1)["validation"]
    assert np.array_equal(first, split_rows(LABELS, FER7, shares, seed=1)["validation"])
    assert not np.array_equal(first, split_rows(LABELS, FER7, shares, seed=2)["validation"])


def test_a_tiny_share_still_gets_a_row_of_every_class():
    part = split_rows(LABELS, FER7, {"train": 0.99, "validation": 0.01})["validation"]
    assert set(LABELS[part]) == set(range(7))


@pytest.mark.parametrize("k", [2, 5, 10])
def test_folds_hold_out_every_row_once_and_are_even(k):
    folds = k_folds(LABELS, FER7, k, seed=5)
    assert np.array_equal(np.sort(np.concatenate(folds)), np.arange(len(LABELS)))
    assert max(map(len, folds)) - min(map(len, folds)) <= 1
    for fold in folds:
        assert (np.abs(np.bincount(LABELS[fold], minlength=7) - np.bincount(LABELS) / k) < 1).all()


def test_subjects_stay_together_while_class_shares_come_close():
    generator = np.random.default_rng(0)
    subjects = [f"S{i:03d}" for i in generator.integers(0, 118, 981)]
    labels = generator.choice(7, 981, p=[0.14, 0.18, 0.08, 0.21, 0.08, 0.26, 0.05])
    folds = k_folds(labels, FER7, 5, seed=1, groups=subjects)
    assert np.array_equal(np.sort(np.concatenate(folds)), np.arange(981))
    held = [{subjects[row] for row in fold} for fold in folds]
    assert sum(map(len, held)) == len(set(subjects))
    for fold in folds:
        np.testing.assert_allclose(np.bincount(labels[fold], minlength=7) / np.bincount(labels), 0.2, atol=0.06)


def test_rows_without_a_subject_are_groups_of_their_own():
    parts = split_rows([0] * 10, FER7, {"a": 1, "b": 1}, groups=["x"] * 5 + [None] * 5)
    assert sorted(map(len, parts.values())) == [5, 5]


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        ([0, 0, 0, 1], None, r"too few rows for 2 parts \(train, validation\): disgust \(1\)"),
        ([0, 0, 1, 1], ["a", "b", "c", "c"], r"too few subjects for 2 parts \(train, validation\): disgust \(1\)"),
        ([0, 1, 1, 0], ["a", "a", "b", "a"], r"too few subjects .*: angry \(1\)"),
    ],
)
def test_a_class_too_small_for_its_split_is_named(labels, groups, message):
    with pytest.raises(ValueError, match=message):
        split_rows(labels, FER7, {"train": 0.5, "validation": 0.5}, groups=groups)


@pytest.mark.parametrize("shares", [{}, {"train": 1, "validation": 0}])
def test_shares_must_be_above_zero(shares):
    with pytest.raises(ValueError, match="above 0"):
        split_rows(LABELS, FER7, shares)


def test_splits_that_a_source_has_stay_and_the_missing_are_cut_from_train():
    source = datasets.DatasetDict({"train": dataset(LABELS), "test": dataset([0, 1])})
    cut = with_splits(source, {"validation": 0.2, "test": 0.2}, seed=1)
    assert {name: split.num_rows for name, split in cut.items()} == {"train": 638, "validation": 160, "test": 2}
    assert not set(cut["train"]["row_id"]) & set(cut["validation"]["row_id"])
    with pytest.raises(ValueError, match="keep a share of its own"):
        with_splits(source, {"validation": 1.0})


def test_each_fold_is_validation_once():
    source = datasets.DatasetDict({"train": dataset(LABELS, [f"s{i // 3}" for i in range(len(LABELS))])})
    held = []
    for fold in range(3):
        splits = folded(source, 3, fold, seed=7)
        assert not set(splits["train"]["subject"]) & set(splits["validation"]["subject"])
        held += splits["validation"]["row_id"]
    assert sorted(held, key=int) == source["train"]["row_id"][:]
    with pytest.raises(ValueError, match="from 0 to 2; 3 was given"):
        folded(source, 3, 3)
    with pytest.raises(ValueError, match="no validation"):
        folded(datasets.DatasetDict({"train": source["train"], "validation": source["train"]}), 3, 0)


def test_gaps_between_classes_of_splits_are_said():
    splits = datasets.DatasetDict({"train": dataset([0, 1, 2, 3, 4, 5]), "validation": dataset([0, 1, 2, 3, 4])})
    assert class_gaps(splits) == ["class surprise has no rows in validation", "class neutral has no rows in train"]
