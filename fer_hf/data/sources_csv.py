"""Reader of pixels in a CSV: ``fer2013.csv``, ``ckextended.csv``, ``icml_face_data.csv`` with spaces in its header."""

import csv
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fer_hf.data.ferplus import read_votes
from fer_hf.data.sources_rows import Listing, Row, SkippedRow, file_state, label_text, split_name, table_row_id
from fer_hf.labels import NUMBERINGS

if TYPE_CHECKING:
    from fer_hf.data.sources import SourceOptions

logger = logging.getLogger(__name__)
SIDE_PX = 48
_MAX_FIELD_CHARACTERS = 1 << 20


def csv_header(path: Path) -> list[str]:
    """Column names in lower case, without the spaces and the byte order mark that some files have around them.

    Empty where the first row cannot be read, as in a file that is no CSV at all.
    """
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        try:
            return _header(csv.reader(file))
        except csv.Error:
            return []


def is_pixel_csv(path: Path) -> bool:
    """Whether the file has the columns emotion and pixels."""
    return {"emotion", "pixels"} <= set(csv_header(path))


def csv_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Row number (the header is row 1) and values by lower-case column; a missing field is an empty string."""
    csv.field_size_limit(_MAX_FIELD_CHARACTERS)
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.reader(file)
        header = _header(reader)
        try:
            for number, row in enumerate(reader, start=2):
                if row:
                    yield number, dict(zip(header, row + [""] * (len(header) - len(row)), strict=False))
        except csv.Error as fault:
            raise ValueError(f"{path}, line {reader.line_num}: {fault}") from fault


def _header(reader: Iterator[list[str]]) -> list[str]:
    return [name.strip().lower() for name in next(reader, [])]


def pixel_array(text: str) -> np.ndarray:
    """Grey pixels (48, 48) uint8 from 2,304 numbers in a string; ValueError says what is wrong with them."""
    words = text.split()
    if len(words) != SIDE_PX * SIDE_PX:
        raise ValueError(f"{len(words):,} pixels instead of {SIDE_PX * SIDE_PX:,}")
    try:
        return np.frombuffer(bytes(map(int, words)), np.uint8).reshape(SIDE_PX, SIDE_PX)
    except ValueError:
        strange = next(word for word in words if not (word.isdecimal() and int(word) < 256))
        raise ValueError(f"a pixel is {strange[:20]!r}; pixels are whole numbers from 0 to 255") from None


def pixel_listing(path: Path, options: "SourceOptions") -> Listing:
    """Rows of a CSV with emotion, pixels and, mostly, Usage columns; without Usage all rows are the train split.

    Numbers are FER2013's, and 7 is contempt, as in CK+'s file of this kind.
    """
    names = NUMBERINGS["ckextended" if options.numbering == "auto" else options.numbering]
    votes = votes_by_split(options.votes)

    def rows() -> Iterator[Row | SkippedRow]:
        seen: dict[str, int] = {}
        for number, values in csv_rows(path):
            try:
                yield _pixel_row(values, names, votes, seen)
            except ValueError as fault:
                yield SkippedRow(f"row {number}", str(fault))
        check_votes(votes, seen, options.votes)

    state = [file_state(path), *([file_state(Path(options.votes))] if options.votes else [])]
    return Listing("CSV of pixels", rows, state, has_votes=votes is not None)


def _pixel_row(
    values: dict[str, str], names: Mapping[int, str], votes: Mapping[str, np.ndarray] | None, seen: dict[str, int]
) -> Row:
    usage = values.get("usage", "train")
    split = split_name(usage)
    if split is None:
        raise ValueError(f"Usage is {usage[:20]!r}; it should be Training, PublicTest or PrivateTest")
    index = seen.get(split, 0)
    seen[split] = index + 1  # before anything can fail: a bad row keeps its place, and its votes, in the order
    label = label_text(values["emotion"])
    if not label.isdecimal() or int(label) not in names:
        raise ValueError(f"emotion is {label[:20]!r}; it should be a number from {min(names)} to {max(names)}")
    row_votes = votes_of(votes, split, index)
    return Row(table_row_id(split, index), pixel_array(values["pixels"]), names[int(label)], split, votes=row_votes)


def votes_by_split(path: str | Path | None) -> dict[str, np.ndarray] | None:
    """The votes of a ``fer2013new.csv`` by this project's split names; None without a path."""
    return None if path is None else {split_name(usage) or usage: votes for usage, votes in read_votes(path).items()}


def votes_of(votes: Mapping[str, np.ndarray] | None, split: str, index: int) -> list[int] | None:
    """One row's ten votes, None where there are none."""
    known = () if votes is None else votes.get(split, ())
    return known[index].tolist() if index < len(known) else None


def check_votes(votes: Mapping[str, np.ndarray] | None, seen: Mapping[str, int], path: str | Path | None) -> None:
    """Raise ValueError unless each split has as many votes as ``seen`` has rows of it; one without any is logged."""
    for split, count in seen.items() if votes is not None else ():
        if split not in votes:
            logger.warning("%s has no votes for %s, whose rows have none", path, split)
        elif len(votes[split]) != count:
            raise ValueError(
                f"{path} has {len(votes[split]):,} rows of votes for {split} and the source has {count:,} rows "
                "of it; they are matched by order, so both must be of the same edition of FER2013"
            )
