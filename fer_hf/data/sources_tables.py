"""Reader of tables: parquet files and data sets on the Hub, whole or streamed."""

import glob
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import fsspec
import numpy as np
import pyarrow as pa

from fer_hf.data.ferplus import VOTES_PER_ROW
from fer_hf.data.sources_csv import check_votes, pixel_array, votes_by_split, votes_of
from fer_hf.data.sources_rows import (
    Listing,
    Row,
    SkippedRow,
    file_state,
    files_under,
    known_label,
    label_text,
    named_split,
    resolve_labels,
    split_name,
    split_of_path,
    split_of_place,
    table_row_id,
)
from fer_hf.labels import NUMBERINGS

if TYPE_CHECKING:
    from fer_hf.data.sources import SourceOptions

Tables = Mapping[str, datasets.Dataset | datasets.IterableDataset]

COLUMN_NAMES = {
    "image": ("image", "img", "picture", "photo", "pixels"),
    "label": ("label", "labels", "emotion", "expression", "class"),
    "split": ("usage", "split"),
    "votes": ("votes", "ferplus_votes"),
    "subject": ("subject", "subject_id"),
    "row_id": ("row_id",),
}


def parquet_files(folder: Path) -> dict[str, list[Path]]:
    """The parquet files of a folder and its subfolders by split, which its name names or its nearest folder's."""
    by_split: dict[str, list[Path]] = {}
    for file in sorted(file for file in files_under(folder) if file.suffix == ".parquet"):
        split = split_of_path(file.relative_to(folder)) or split_of_place(folder.name) or "train"
        by_split.setdefault(split, []).append(file)
    return by_split


def open_parquet(files: Mapping[str, list[Path]], streaming: bool) -> Tables:
    """The tables of parquet files by split. Raises ValueError that names the files of which one is no parquet."""
    names = {split: [str(file) for file in of_split] for split, of_split in files.items()}
    patterns = {split: [glob.escape(name) for name in of_split] for split, of_split in names.items()}
    try:
        return datasets.load_dataset("parquet", data_files=patterns, streaming=streaming)
    except (datasets.exceptions.DatasetGenerationError, pa.ArrowInvalid, OSError) as fault:
        every = ", ".join(name for of_split in names.values() for name in of_split)
        raise ValueError(f"one of {every} is no readable parquet file: {fault.__cause__ or fault}") from fault


def open_hub(name: str, options: "SourceOptions") -> Tables:
    """The tables of a data set on the Hub by split. Raises ValueError in one sentence where it cannot be had."""
    try:
        return datasets.load_dataset(name, options.config_name, revision=options.revision, streaming=options.streaming)
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as fault:
        reason = " ".join(str(fault).partition("\nExample of usage")[0].split()) or type(fault).__name__
        raise ValueError(f"{name} is neither a file or folder nor a data set that the Hub gives: {reason}") from fault


@dataclass(frozen=True)
class TableReader:
    """How a source's columns become rows.

    ``columns`` maps what is wanted to the column that has it, ``class_names`` are those of a ClassLabel column,
    ``names`` maps a label as it is written to this project's name (of a stream, what is known beforehand), and
    ``votes`` are a ``fer2013new.csv``'s by split.
    """

    columns: Mapping[str, str]
    class_names: list[str] | None
    names: Mapping[str, str]
    votes: Mapping[str, np.ndarray] | None
    remap: Mapping[str, str | None]

    def split(self, example: Mapping[str, Any], table_name: str) -> str:
        """The split of one example of a table. Raises ValueError where its column of splits names none."""
        column = self.columns.get("split")
        written = "" if column is None or example[column] is None else str(example[column])
        return table_name if written in ("", table_name) else named_split(written, column) or table_name

    def row(self, example: Mapping[str, Any], split: str, index: int) -> Row | SkippedRow:
        """One example, its picture not decoded, as a row; ``index`` is its place among the rows of its split."""
        values = {key: example[column] for key, column in self.columns.items()}
        row_id, subject = (None if values.get(key) is None else str(values[key]) for key in ("row_id", "subject"))
        row_id = row_id or table_row_id(split, index)
        votes = votes_of(self.votes, split, index) or values.get("votes")
        try:
            picture, label = picture_of(values["image"]), self._label(values["label"])
            if votes is not None and len(votes) != VOTES_PER_ROW:
                raise ValueError(f"it has {len(votes)} votes; FER+ has {VOTES_PER_ROW} counts a row")
        except (ValueError, OSError) as fault:
            return SkippedRow(row_id, str(fault))
        return Row(row_id, picture, label, split, subject, votes)

    def _label(self, value: int | str | None) -> str:
        text = label_text(value)
        if not text or (self.class_names and value == -1):  # the Hub's sign for a test row without label
            raise ValueError("it has no label")
        if self.class_names and not 0 <= value < len(self.class_names):
            raise ValueError(f"its label is {value}; the {len(self.class_names)} classes are numbered from 0")
        text = self.class_names[value] if self.class_names else text
        return self.names.get(text) or known_label(text, self.remap)


def table_listing(tables: Tables, state: list[str], options: "SourceOptions") -> Listing:
    """Rows of tables with a column of pictures and one of labels, and of votes and subjects where there are such.

    Raises ValueError where pictures or labels are missing.
    """
    reader, notes = table_reader(tables, options)
    if options.votes:
        state = [*state, file_state(Path(options.votes))]

    def rows() -> Iterator[Row | SkippedRow]:
        seen: dict[str, int] = {}
        for name, table in tables.items():
            of_table = split_name(name) or name
            for number, example in enumerate(undecoded(table, reader)):
                try:
                    split = reader.split(example, of_table)
                except ValueError as fault:
                    yield SkippedRow(f"row {number} of {name}", str(fault))
                    continue
                yield reader.row(example, split, seen.get(split, 0))
                seen[split] = seen.get(split, 0) + 1
        check_votes(reader.votes, seen, options.votes)

    return Listing(
        "tables",
        rows,
        state,
        sum(table.num_rows for table in tables.values()),
        has_votes=reader.votes is not None or "votes" in reader.columns,
        has_subjects="subject" in reader.columns,
        notes=notes,
    )


def table_reader(tables: Tables, options: "SourceOptions") -> tuple[TableReader, list[str]]:
    """The reader that fits the tables' columns, and notes on how it reads them."""
    features = next(iter(tables.values())).features
    if features is None:
        raise ValueError("the stream does not say which columns it has; read it without streaming")
    by_name = {column.strip().lower(): column for column in features}
    columns = {key: next((by_name[n] for n in names if n in by_name), None) for key, names in COLUMN_NAMES.items()}
    columns = {key: column for key, column in columns.items() if column is not None}
    for key in ("image", "label"):
        if key not in columns:
            wanted = ", ".join(COLUMN_NAMES[key])
            raise ValueError(f"the columns are {', '.join(features)}; one of {wanted} should be there for the {key}")
    feature = features[columns["label"]]
    if not isinstance(feature, datasets.Value | datasets.ClassLabel):
        raise ValueError(f"the column {columns['label']} holds lists; a label is one name or number")
    passed_by = []
    if "votes" in columns and not _is_list_of_numbers(features[columns["votes"]]):
        passed_by = [f"the column {columns.pop('votes')} holds no lists of votes and is passed by"]
    class_names = feature.names if isinstance(feature, datasets.ClassLabel) else None
    names, notes = resolve_labels(
        class_names or _written_labels(tables, columns["label"], options), options.remap, options.numbering
    )
    reader = TableReader(columns, class_names, names, votes_by_split(options.votes), options.remap)
    return reader, [*passed_by, *notes]


def undecoded(table: datasets.Dataset | datasets.IterableDataset, reader: TableReader):
    """The table without its other columns, and with pictures as bytes or paths."""
    if isinstance(table, datasets.IterableDataset):
        return table.decode(False).select_columns(list(reader.columns.values()))
    table = table.select_columns(list(reader.columns.values()))
    if isinstance(table.features[reader.columns["image"]], datasets.Image):
        table = table.cast_column(reader.columns["image"], datasets.Image(decode=False))
    return table


def _written_labels(tables: Tables, column: str, options: "SourceOptions") -> Iterable[str]:
    """Every label of whole tables; of a stream, which would have to be read for it, all that could come.

    Raises ValueError where a stream's labels are numbers and nobody says whose.
    """
    if options.streaming:
        if options.numbering != "auto":
            return [str(number) for number in NUMBERINGS[options.numbering]]
        if _is_number(next(iter(tables.values())).features[column]):
            raise ValueError(
                f"the labels in the column {column} are numbers, and which numbering fits them all is not known "
                f"before a stream has been read: give numbering as {', '.join(NUMBERINGS)}, or read it whole"
            )
        return []
    return {label_text(value) for table in tables.values() for value in table.unique(column)} - {""}


def _is_number(feature: Any) -> bool:
    return isinstance(feature, datasets.Value) and feature.dtype.startswith(("int", "uint", "float"))


def _is_list_of_numbers(feature: Any) -> bool:
    inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
    return _is_number(inner)


def picture_of(value: Any) -> bytes | np.ndarray:
    """A file's bytes, or the pixels of a FER2013 string or list."""
    if isinstance(value, Mapping):
        if value.get("bytes") is None:
            if not value.get("path"):
                raise ValueError("it has no picture")
            try:
                with fsspec.open(value["path"], "rb") as file:
                    return file.read()
            except ImportError as fault:  # a kind of address that needs another package
                raise ValueError(f"its picture at {value['path']} cannot be fetched: {fault}") from fault
        return value["bytes"]
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return pixel_array(value)
    if isinstance(value, list):
        return pixel_array(" ".join(map(str, np.ravel(value))))
    raise ValueError(f"its picture is {type(value).__name__}; it should be an image, bytes or 2,304 pixels")
