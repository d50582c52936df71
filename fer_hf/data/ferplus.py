"""FER+: what ten raters voted for each row of FER2013 (Barsoum et al., arXiv 1608.01041).

Votes are ``(N, 10)`` integers in the column order of ``fer_hf.labels.FERPLUS_COLUMNS``. Here *majority* means: votes of
1 are noise and become 0; a row counts when its top vote holds over half of all votes that remain in the ten columns and
is one of the wanted classes. Rows won by contempt, unknown or not-a-face do not count.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from fer_hf.labels import FER7, FERPLUS_COLUMNS

VOTES_PER_ROW = len(FERPLUS_COLUMNS)
_HEADER_START = ("usage", "image name")
_RIDGE = 1e-5  # on squared weights: what few rows tell of a rare class stays finite


def without_single_votes(votes: np.ndarray) -> np.ndarray:
    """The votes ``(N, 10)`` with every 1 set to 0, as FER+ does before it looks at them."""
    votes = np.asarray(votes)
    return np.where(votes == 1, 0, votes)


def majority_labels(votes: np.ndarray, names: Sequence[str] = FER7) -> np.ndarray:
    """Class indices ``(N,)`` into ``names`` by the majority rule, -1 where a row does not count.

    Raises ValueError when ``votes`` is not ``(N, 10)`` without negative numbers.
    """
    votes = without_single_votes(_checked(votes))
    top = votes.argmax(axis=1)
    is_majority = 2 * votes.max(axis=1) > votes.sum(axis=1)
    class_of_column = np.array([names.index(name) if name in names else -1 for name in FERPLUS_COLUMNS])
    return np.where(is_majority, class_of_column[top], -1)


def majority_label(votes: Sequence[int], names: Sequence[str] = FER7) -> int | None:
    """The class index of one row's ten votes by the majority rule, or None when the row does not count."""
    label = int(majority_labels(np.asarray(votes)[None], names)[0])
    return None if label < 0 else label


def soft_labels(
    votes: np.ndarray, names: Sequence[str] = FER7, drop_single_votes: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Vote shares ``(N, len(names))`` float32 and a mask ``(N,)`` of the rows that have any vote for ``names``.

    Shares of a row sum to 1 where the mask is true and are all 0 where it is not. ``drop_single_votes`` sets votes of 1
    to 0 first, as FER+ itself does; a row whose votes for ``names`` are all single then has none.
    """
    votes = _checked(votes)
    if drop_single_votes:
        votes = without_single_votes(votes)
    missing = [name for name in names if name not in FERPLUS_COLUMNS]
    if missing:
        raise ValueError(f"FER+ has no votes for {', '.join(missing)}; its columns are {', '.join(FERPLUS_COLUMNS)}")
    wanted = votes[:, [FERPLUS_COLUMNS.index(name) for name in names]].astype(np.float32)
    total = wanted.sum(axis=1, keepdims=True)
    return np.divide(wanted, total, out=np.zeros_like(wanted), where=total > 0), total[:, 0] > 0


def labels_given_votes(votes: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Probabilities ``(N, num_classes)`` float32 of each row's label, as far as its ten votes tell.

    A multinomial logistic regression from vote shares and their square roots to the labels ``(N,)`` of the same rows.
    The votes know more of a picture than its one label: probabilities learned from them are targets with less noise,
    a teacher with privileged information (Lopez-Paz et al., arXiv 1511.03643). A row without votes gets the frequencies
    that the others leave to it.
    """
    votes = _checked(votes).astype(np.float32)
    shares = votes / np.maximum(votes.sum(axis=1, keepdims=True), 1)
    known, truth = torch.from_numpy(np.hstack([shares, np.sqrt(shares)])), torch.from_numpy(np.asarray(labels))
    weight = torch.zeros(num_classes, known.shape[1], requires_grad=True)
    bias = torch.zeros(num_classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = cross_entropy(known @ weight.T + bias, truth) + _RIDGE * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        return (known @ weight.T + bias).softmax(1).numpy()


def read_votes(path: str | Path) -> dict[str, np.ndarray]:
    """The votes of a ``fer2013new.csv`` by its Usage column (Training, PublicTest, …): int32 ``(N, 10)``.

    Raises ValueError that names the row of the first thing that is wrong.
    """
    by_usage: dict[str, list[list[int]]] = {}
    with Path(path).open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file)
        header = [name.strip().lower() for name in next(rows, [])]
        if tuple(header[:2]) != _HEADER_START or len(header) != 2 + VOTES_PER_ROW:
            raise ValueError(
                f"{path} is no FER+ file: its header should be Usage, Image name and {VOTES_PER_ROW} columns"
            )
        for number, row in enumerate(rows, start=2):
            if not row:
                continue
            try:
                usage, _, *votes = row
                by_usage.setdefault(usage.strip(), []).append([int(vote) for vote in votes])
            except ValueError:
                raise ValueError(f"{path}, row {number}: the votes should be {VOTES_PER_ROW} whole numbers") from None
            if len(votes) != VOTES_PER_ROW:
                raise ValueError(f"{path}, row {number}: {len(votes)} votes instead of {VOTES_PER_ROW}")
    return {usage: np.array(votes, np.int32) for usage, votes in by_usage.items()}


def _checked(votes: np.ndarray) -> np.ndarray:
    votes = np.asarray(votes)
    if votes.ndim != 2 or votes.shape[1] != VOTES_PER_ROW:
        raise ValueError(f"FER+ votes should be (N, {VOTES_PER_ROW}), got {votes.shape}")
    if votes.size and votes.min() < 0:
        raise ValueError("FER+ votes should not be negative")
    return votes.astype(np.int64)
