"""Which rows of a source are published, in which split and order: each picture once, none alike in two new splits."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import datasets
import numpy as np

from fer_hf.data.audit_duplicates import clusters, near_pairs
from fer_hf.data.audit_scan import Scan, scan
from fer_hf.data.splits import split_rows

CONFLICT = "equal pictures have different labels"
MAX_NEAR_ROWS = 60_000
"""Near copies are looked for in no more pictures than this: time grows with the square, to two minutes here."""


@dataclass(frozen=True)
class LeftOut:
    """A row that is not published: where its source has it, why, and what of."""

    row_id: str
    reason: str
    of: str = ""


@dataclass(frozen=True)
class Chosen:
    """The splits to publish, their rows in order, and the rows that stay behind."""

    splits: datasets.DatasetDict
    left_out: tuple[LeftOut, ...]

    def key(self) -> str:
        """A hash of everything that is published: the same rows in the same order have the same key."""
        digest = hashlib.sha256(repr(self.splits["train"].features).encode())
        for name, split in self.splits.items():
            columns = [column for column in ("image", "label", "subject", "votes") if column in split.column_names]
            for row in split.select_columns(columns).cast_column("image", datasets.Image(decode=False)):
                row["image"] = hashlib.sha256(row["image"]["bytes"]).hexdigest()
                digest.update(repr((name, *row.values())).encode())
        return digest.hexdigest()[:16]


def choose_rows(source: datasets.DatasetDict, shares: Mapping[str, float], seed: int, near: bool = True) -> Chosen:
    """The rows of a source that are published.

    Pictures of one colour are left out. Of equal pictures one stays, in the first of test, validation and train that
    has it, or none where their labels differ. Splits of ``shares`` that the source lacks are then cut from train: rows
    of one subject, and with ``near`` pictures that show the same photo, stay together, and away from new splits where
    the source's own have one of them. The rows of each split are shuffled, because folders come class by class.
    """
    scanned = scan(source)
    kept, left_out = _first_copies(scanned)
    rows = {name: kept[scanned.splits[kept] == index] for index, name in enumerate(scanned.split_names)}
    rows = {name: of_split for name, of_split in rows.items() if len(of_split)}
    wanted = {name: share for name, share in shares.items() if name not in source}
    if "train" not in rows or sum(wanted.values()) >= 1:
        raise ValueError(f"splits {wanted} are cut from train, which should be there and keep a share of its own")
    if wanted:
        shares = {"train": 1 - sum(wanted.values()), **wanted}
        rows |= _cut(scanned, kept, rows["train"], shares, seed, near and len(kept) <= MAX_NEAR_ROWS)
    generator = np.random.default_rng(seed)
    rows = {name: generator.permutation(of_split) for name, of_split in rows.items()}
    # A new split is cut from train, whose rows alone it has.
    splits = {n: source[n if n in source else "train"].select(scanned.row_of[r]) for n, r in rows.items()}
    return Chosen(datasets.DatasetDict(splits), tuple(left_out))


def _first_copies(scanned: Scan) -> tuple[np.ndarray, list[LeftOut]]:
    """The rows that stay, ascending, and those that do not."""
    order = {name: place for place, name in enumerate(("test", "validation", "train"))}
    rank = np.array([order.get(name, len(order)) for name in scanned.split_names])[scanned.splits]
    places: dict[str, list[int]] = {}
    for row in np.lexsort((np.arange(len(rank)), rank)):
        places.setdefault(str(scanned.hashes[row]), []).append(int(row))
    kept, left_out = [], []
    for copies in places.values():
        labels = sorted({scanned.class_of(row) for row in copies})
        if scanned.is_constant[copies[0]]:
            reason, of, out = "it has one colour only", "", copies
        elif len(labels) > 1:
            reason, of, out = CONFLICT, " and ".join(labels), copies
        else:
            reason, of, out = "it is a copy of a picture that is here", str(scanned.row_ids[copies[0]]), copies[1:]
            kept.append(copies[0])
        left_out += [LeftOut(str(scanned.row_ids[row]), reason, of) for row in out]
    return np.array(sorted(kept), dtype=np.int64), left_out


def _cut(
    scanned: Scan, kept: np.ndarray, train: np.ndarray, shares: Mapping[str, float], seed: int, near: bool
) -> dict[str, np.ndarray]:
    """The rows of train in parts, ascending. What is alike to a row of a split that the source has stays in train."""
    groups = _groups(scanned, kept, near)
    group_of = dict(zip(kept.tolist(), groups, strict=True))
    elsewhere = {group_of[row] for row in np.setdiff1d(kept, train).tolist()} - {None}
    stays = np.array([group_of[row] in elsewhere for row in train.tolist()], dtype=bool)
    free = train[~stays]
    grouped = [group_of[row] for row in free.tolist()]
    parts = split_rows(
        scanned.labels[free],
        scanned.class_names,
        shares,
        seed=seed,
        groups=grouped if any(group is not None for group in grouped) else None,
    )
    cut = {name: free[part] for name, part in parts.items()}
    return cut | {"train": np.sort(np.concatenate([cut["train"], train[stays]]))}


def _groups(scanned: Scan, rows: np.ndarray, near: bool) -> list[str | None]:
    """The subject or photo that each row shares with others; None for a row on its own."""
    place = {int(row): index for index, row in enumerate(rows)}
    links = [(place[p.first], place[p.second]) for p in near_pairs(scanned.thumbnails, rows)] if near else []
    if scanned.subjects is not None:
        of_subject: dict[str, list[int]] = {}
        for index, subject in enumerate(scanned.subjects[rows]):
            if subject is not None:
                of_subject.setdefault(subject, []).append(index)
        links += [pair for indices in of_subject.values() for pair in pairwise(indices)]
    groups: list[str | None] = [None] * len(rows)
    for number, together in enumerate(clusters(links, len(rows))):
        for index in together:
            groups[index] = str(number)
    return groups
