"""Several sources as one."""

from collections.abc import Sequence
from pathlib import Path

import datasets


def merge_sources(names: Sequence[str | Path], sources: Sequence[datasets.DatasetDict]) -> datasets.DatasetDict:
    """The rows of several sources, split by split; row ids and subjects begin with the source's name.

    All must have the same classes (ValueError). Votes stay only where every source has them.
    """
    every = [split for splits in sources for split in splits.values()]
    classes = sorted({tuple(split.features["label"].names) for split in every})
    if len(classes) > 1:
        raise ValueError(f"sources of different classes cannot be merged: {' and '.join(map(str, classes))}")
    columns = ["image", "label", "row_id"]
    if any("subject" in split.column_names for split in every):
        columns.append("subject")
    if all("votes" in split.column_names for split in every):
        columns.append("votes")
    merged: dict[str, list[datasets.Dataset]] = {}
    for title, splits in zip(_titles(names), sources, strict=True):
        for name, split in splits.items():
            merged.setdefault(name, []).append(_titled(split, title, columns))
    return datasets.DatasetDict({name: datasets.concatenate_datasets(parts) for name, parts in merged.items()})


def source_title(name: str | Path) -> str:
    """The last part of a source's name, also where it is ``.``."""
    return Path(name).name or Path(name).resolve().name


def _titles(names: Sequence[str | Path]) -> list[str]:
    """The last part of each name, with a number where two are the same."""
    titles: list[str] = []
    for name in names:
        base = source_title(name)
        tried = (base, *(f"{base}-{number}" for number in range(2, len(names) + 2)))
        titles.append(next(title for title in tried if title not in titles))
    return titles


def _titled(split: datasets.Dataset, title: str, columns: list[str]) -> datasets.Dataset:
    """The split with ``title`` before row ids and subjects, and with just these columns."""
    ids = [f"{title}/{row_id}" for row_id in split["row_id"]]
    subjects = (
        [subject and f"{title}/{subject}" for subject in split["subject"]] if "subject" in split.column_names else None
    )
    split = split.select_columns(
        [name for name in columns if name in split.column_names and name not in ("row_id", "subject")]
    )
    split = split.add_column("row_id", ids, feature=datasets.Value("string"))
    if "subject" in columns:
        split = split.add_column("subject", subjects or [None] * len(split), feature=datasets.Value("string"))
    return split.select_columns(columns)
