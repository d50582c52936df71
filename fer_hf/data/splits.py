"""Splits that keep the shares of the classes, that never part a subject's pictures, and that repeat with their seed."""

from collections.abc import Mapping, Sequence

import datasets
import numpy as np


def split_rows(
    labels: Sequence[int],
    class_names: Sequence[str],
    shares: Mapping[str, float],
    *,
    seed: int = 0,
    groups: Sequence[str | None] | None = None,
) -> dict[str, np.ndarray]:
    """Ascending row indices of each part, stratified by ``labels`` (N,).

    ``shares`` are relative sizes, e.g. ``{"train": 0.9, "validation": 0.1}``. Rows of one group stay together (None is
    a group of its own). Every class is in every part; ValueError names the classes that are too small for that.
    """
    labels = np.asarray(labels, dtype=np.int64)
    if not shares or min(shares.values()) <= 0:
        raise ValueError(f"shares should be above 0; {dict(shares)} was given")
    units = np.arange(len(labels)) if groups is None else _group_indices(groups)
    _check_sizes(labels, units, class_names, list(shares), "rows" if groups is None else "subjects")
    ideal = np.array(list(shares.values())) / sum(shares.values())
    generator = np.random.default_rng(seed)
    if groups is None:
        part = _stratified(labels, ideal, generator)
    else:
        part = _grouped(labels, units, ideal, generator)
        _check_presence(labels, part, class_names, list(shares))
    return {name: np.flatnonzero(part == index) for index, name in enumerate(shares)}


def k_folds(
    labels: Sequence[int],
    class_names: Sequence[str],
    k: int,
    *,
    seed: int = 0,
    groups: Sequence[str | None] | None = None,
) -> list[np.ndarray]:
    """The row indices held out in each of ``k`` stratified folds; together they are all rows, each once."""
    if k < 2:
        raise ValueError(f"folds should be at least 2; {k} was given")
    parts = split_rows(labels, class_names, {f"fold {i}": 1.0 for i in range(k)}, seed=seed, groups=groups)
    return list(parts.values())


def with_splits(splits: datasets.DatasetDict, shares: Mapping[str, float], seed: int = 0) -> datasets.DatasetDict:
    """The splits with those of ``shares`` (e.g. ``{"validation": 0.1}``) cut from train where the source has none.

    A source's own splits stay as they are. Where subjects are known, no subject is in two of the new splits.
    """
    wanted = {name: share for name, share in shares.items() if name not in splits}
    if not wanted:
        return splits
    if "train" not in splits or sum(wanted.values()) >= 1:
        raise ValueError(f"splits {dict(wanted)} are cut from train, which should be there and keep a share of its own")
    rest = 1 - sum(wanted.values())
    parts = _split_dataset(splits["train"], {"train": rest, **wanted}, seed)
    others = {name: split for name, split in splits.items() if name != "train"}
    return datasets.DatasetDict({"train": parts.pop("train"), **parts, **others})


def folded(splits: datasets.DatasetDict, folds: int, fold: int, seed: int = 0) -> datasets.DatasetDict:
    """The splits of fold number ``fold`` (from 0) of ``folds``: its rows of train become validation."""
    if not 0 <= fold < folds:
        raise ValueError(f"fold should be from 0 to {folds - 1}; {fold} was given")
    if "train" not in splits or "validation" in splits:
        raise ValueError(f"folds are made of a source that has train and no validation; this has {', '.join(splits)}")
    train = splits["train"]
    held_out = k_folds(train["label"], train.features["label"].names, folds, seed=seed, groups=_subjects(train))[fold]
    kept = np.setdiff1d(np.arange(len(train)), held_out)
    others = {name: split for name, split in splits.items() if name != "train"}
    return datasets.DatasetDict({"train": train.select(kept), "validation": train.select(held_out), **others})


def class_gaps(splits: datasets.DatasetDict) -> list[str]:
    """A sentence for each class that no row of train shows, or that another split lacks although train shows it."""
    counts = {
        name: np.bincount(split["label"], minlength=split.features["label"].num_classes)
        for name, split in splits.items()
    }
    if "train" not in counts:
        return []
    said = []
    for index, name in enumerate(splits["train"].features["label"].names):
        if not counts["train"][index]:
            said.append(f"class {name} has no rows in train")
        else:
            said += [f"class {name} has no rows in {s}" for s in counts if not counts[s][index]]
    return said


def _split_dataset(split: datasets.Dataset, shares: Mapping[str, float], seed: int) -> dict[str, datasets.Dataset]:
    names = split.features["label"].names
    parts = split_rows(split["label"], names, shares, seed=seed, groups=_subjects(split))
    return {name: split.select(rows) for name, rows in parts.items()}


def _subjects(split: datasets.Dataset) -> list[str | None] | None:
    return list(split["subject"]) if "subject" in split.column_names else None


def _group_indices(groups: Sequence[str | None]) -> np.ndarray:
    """A number (N,) for each row that is equal for rows of the same group."""
    keys = [f"row {row}" if group is None else f"group {group}" for row, group in enumerate(groups)]
    return np.unique(keys, return_inverse=True)[1]


def _check_sizes(
    labels: np.ndarray, units: np.ndarray, class_names: Sequence[str], parts: list[str], what: str
) -> None:
    small = []
    for label in np.unique(labels):
        count = len(np.unique(units[labels == label]))
        if count < len(parts):
            small.append(f"{class_names[label]} ({count})")
    if small:
        raise ValueError(
            f"too few {what} for {len(parts)} parts ({', '.join(parts)}): {', '.join(small)}; add pictures, ask for "
            "fewer parts or leave the class out with remap"
        )


def _check_presence(labels: np.ndarray, part: np.ndarray, class_names: Sequence[str], parts: list[str]) -> None:
    for index, name in enumerate(parts):
        absent = np.setdiff1d(labels, labels[part == index])
        if len(absent):
            raise ValueError(
                f"{name} would have no {', '.join(class_names[i] for i in absent)}, because subjects cannot be parted; "
                "give it a larger share, try another seed or leave the class out with remap"
            )


def _stratified(labels: np.ndarray, ideal: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The part (N,) of each row: within each class the shares are kept to a row, and every part gets one at least."""
    part = np.empty(len(labels), dtype=np.int64)
    missing = np.zeros(len(ideal))  # rows that earlier classes left each part short of
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        counts = np.maximum(np.floor(ideal * len(rows)).astype(np.int64), 1)
        missing += ideal * len(rows) - counts
        while (left := len(rows) - counts.sum()) != 0:
            index = missing.argmax() if left > 0 else np.where(counts > 1, missing, np.inf).argmin()
            counts[index] += np.sign(left)
            missing[index] -= np.sign(left)
        part[rows] = np.repeat(np.arange(len(ideal)), counts)
    return part


def _grouped(labels: np.ndarray, units: np.ndarray, ideal: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The part (N,) of each row, whole groups together: the heaviest first, each to where it leaves the shares
    of the classes closest to ``ideal`` (the idea of scikit-learn's StratifiedGroupKFold, for unequal parts)."""
    classes, columns = np.unique(labels, return_inverse=True)
    counts = np.zeros((units.max(initial=-1) + 1, len(classes)))
    np.add.at(counts, (units, columns), 1)
    counts /= counts.sum(axis=0)  # shares of each class
    order = generator.permutation(len(counts))
    order = order[np.argsort(-(counts[order] ** 2).sum(axis=1), kind="stable")]
    filled = np.zeros((len(ideal), len(classes)))
    part_of_unit = np.empty(len(counts), dtype=np.int64)
    for unit in order:
        before = ((filled - ideal[:, None]) ** 2 / ideal[:, None]).sum(axis=1)
        after = ((filled + counts[unit] - ideal[:, None]) ** 2 / ideal[:, None]).sum(axis=1)
        part_of_unit[unit] = np.argmin(after - before)
        filled[part_of_unit[unit]] += counts[unit]
    return part_of_unit[units]
