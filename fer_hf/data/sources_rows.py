"""What every reader gives: rows with a picture that is not yet decoded, or the reason why a row cannot be used."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fer_hf.labels import ALIASES, NUMBERINGS, canonical_label, numbering_of

SPLIT_ALIASES = {
    "train": ("training", "train"),
    "validation": ("validation", "valid", "val", "dev", "publictest", "public_test"),
    "test": ("testing", "test", "privatetest", "private_test"),
}
_SPLIT_PATTERNS = {
    split: re.compile(rf"(?:{'|'.join(names)})(?![a-z])", re.IGNORECASE) for split, names in SPLIT_ALIASES.items()
}
_LAST_WORDS = {
    split: re.compile(rf".*[-_. ](?:{'|'.join(names)})(?:-\d+-of-\d+)?(?:\.[a-z]\w*)?", re.IGNORECASE)
    for split, names in SPLIT_ALIASES.items()
}


@dataclass(frozen=True)
class Row:
    """One picture and what its source says about it.

    ``row_id`` is where it stands: a relative path, or split and position in a table. ``picture`` is a file, the bytes
    of one, or grey pixels ``(H, W)`` uint8. ``label`` is one of this project's names or a key of the remap.
    """

    row_id: str
    picture: Path | bytes | np.ndarray
    label: str
    split: str | None = None
    subject: str | None = None
    votes: Sequence[int] | None = None


@dataclass(frozen=True)
class SkippedRow:
    """A row that cannot be used: where it stands, and why in a few words."""

    row_id: str
    reason: str


@dataclass
class Listing:
    """A source whose layout is understood.

    ``rows()`` starts reading from the first row each time it is called. ``state`` changes whenever the source does:
    file names, sizes and times. ``total`` is the number of rows where it is known beforehand.
    """

    layout: str
    rows: Callable[[], Iterator[Row | SkippedRow]]
    state: list[str]
    total: int | None = None
    has_votes: bool = False
    has_subjects: bool = False
    notes: list[str] = field(default_factory=list)


def split_name(text: str) -> str | None:
    """``train``, ``validation`` or ``test`` for the usual names (``Training``, ``val``, ``PublicTest``), or None."""
    return next((split for split, pattern in _SPLIT_PATTERNS.items() if pattern.match(text.strip())), None)


def split_of_place(name: str) -> str | None:
    """The split that the name of a file or folder begins or ends with (``train-0.parquet``, ``fer_val.csv``), or None.

    >>> split_of_place("fer_test-00000-of-00002.parquet")
    'test'
    """
    last = (split for split, pattern in _LAST_WORDS.items() if pattern.fullmatch(name))
    return split_name(name) or next(last, None)


def split_of_path(path: Path) -> str | None:
    """The split that the last part of a path below a source names, else the one before it, and so on, or None."""
    return next((split for part in reversed(path.parts) if (split := split_of_place(part))), None)


def named_split(written: str, column: str) -> str | None:
    """The split that a row names in a column; None where it names none. Raises ValueError for what is no split."""
    if not written.strip():
        return None
    split = split_name(written)
    if split is None:
        raise ValueError(f"{column} is {written[:20]!r}; it should be train, validation or test")
    return split


def files_under(root: Path) -> Iterator[Path]:
    """Every file under ``root``, folder by folder in a stable order, through links to folders too.

    Hidden files and folders, the ones macOS adds to archives, and links back to a folder on the way are passed by.
    """
    for folder, subfolders, files in os.walk(root, followlinks=True):
        here = Path(folder)
        subfolders[:] = sorted(
            name for name in subfolders if not name.startswith((".", "__MACOSX")) and not _leads_back(here / name, root)
        )
        yield from (here / name for name in sorted(files) if not name.startswith("."))


def _leads_back(folder: Path, root: Path) -> bool:
    on_the_way = [parent for parent in folder.parents if parent == root or root in parent.parents]
    return folder.is_symlink() and folder.resolve() in {parent.resolve() for parent in on_the_way}


def table_row_id(split: str | None, index: int) -> str:
    """The stable id of a row of a table, e.g. ``train/000123``."""
    return f"{split or 'train'}/{index:06d}"


def file_state(path: Path) -> str:
    """A line that changes when the file does: its path, size and time of change."""
    modified = path.stat().st_mtime_ns if path.exists() else None
    return f"{path.absolute()} {file_size(path)} {modified}"


def file_size(path: Path) -> int:
    """Bytes in the file; 0 for a link that leads nowhere."""
    return path.stat().st_size if path.exists() else 0


def label_text(value: int | float | str | None) -> str:
    """A label as it is written, "" for none; numbers of a column that had gaps have become ``3.0``, or NaN."""
    text = "" if value is None or value != value else str(value).strip()
    return re.sub(r"^(\d{1,3})\.0+$", r"\1", text)


def resolve_labels(
    written: Iterable[str], remap: Mapping[str, str | None], numbering: str = "auto"
) -> tuple[dict[str, str], list[str]]:
    """This project's name for each label as it is written in a source, and notes on how numbers were read.

    Numbers go through ``numbering``; ``auto`` takes the one that all numbers together fit. A name that is neither known
    nor in ``remap`` is a ValueError that lists the known ones.
    """
    written = sorted(set(written))
    numbers = {text: int(text) for text in written if re.fullmatch(r"\d{1,3}", text.strip())}
    chosen = numbering_of(numbers.values()) if numbers and numbering == "auto" else numbering
    names, unknown = {}, []
    for text in written:
        try:
            names[text] = _numbered(numbers[text], chosen) if text in numbers else known_label(text, remap)
        except ValueError:
            unknown.append(text)
    if unknown:
        raise ValueError(
            f"unknown expression {', '.join(map(repr, unknown))}; known are {', '.join(ALIASES)}, their usual "
            f"synonyms and the numbers of {', '.join(NUMBERINGS)}; leave a class out with remap: {{{unknown[0]}: null}}"
        )
    notes = [f"remap names {key!r}, which is no class here" for key in remap if key not in {*ALIASES, *names.values()}]
    if numbers:
        meaning = ", ".join(f"{text} {names[text]}" for text in sorted(numbers, key=numbers.get))
        notes.append(f"labels are numbers, read as {chosen}'s: {meaning}")
    return names, notes


def known_label(text: str, remap: Mapping[str, str | None]) -> str:
    """This project's name for a label, or the key of ``remap`` that it is. Raises ValueError for any other name."""
    key = text.strip().lower()
    return key if key in remap else canonical_label(text)


def remap_key(text: str) -> str:
    """The key under which ``known_label`` finds a class: this project's name, or a foreign one in lower case."""
    key = text.strip().lower()
    try:
        return canonical_label(key)
    except ValueError:
        return key


def _numbered(number: int, numbering: str) -> str:
    if number not in NUMBERINGS[numbering]:
        raise ValueError(f"label {number} is not one of {numbering}'s numbers, {sorted(NUMBERINGS[numbering])}")
    return NUMBERINGS[numbering][number]
