"""A data set from anywhere in one schema: ``load_source`` gives a ``DatasetDict``.

Its columns are ``image`` (Image; upright, without metadata), ``label`` (ClassLabel), ``row_id`` (string, stable) and,
where the source knows them, ``subject`` (string) and ``votes`` (FER+, ten int32). ``docs/data.md`` shows every layout.
"""

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import datasets

from fer_hf.data.loaders import rows_without
from fer_hf.data.sources_csv import csv_header, is_pixel_csv, pixel_listing
from fer_hf.data.sources_files import (
    RAF_DB_LIST,
    class_folder_listing,
    file_list_listing,
    has_class_folders,
    is_file_list,
    picture_files,
)
from fer_hf.data.sources_merge import merge_sources
from fer_hf.data.sources_rows import Listing, file_state, remap_key, split_of_place
from fer_hf.data.sources_store import SourceReport, store
from fer_hf.data.sources_stream import stream_tables
from fer_hf.data.sources_tables import Tables, open_hub, open_parquet, parquet_files, table_listing
from fer_hf.data.splits import folded, with_splits
from fer_hf.labels import NUMBERINGS, canonical_label, vocabulary

CK_SUBJECT = r"(?:^|[^A-Za-z0-9])(S\d{3})_\d{3}_\d{6,8}"
"""Subjects in the file names of CK+ and CK+48, e.g. ``S010_004_00000017.png`` (Lucey et al., CVPRW 2010)."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceOptions:
    """How a source is read: the keys of a recipe's ``data.source`` section, one to one."""

    votes: str | None = None  # a fer2013new.csv; its rows are matched by order
    classes: int = 7  # the vocabulary: 5, 7 or 8 classes; rows of other classes are left out, and counted
    remap: dict[str, str | None] = field(default_factory=dict)  # e.g. {contempt: disgust}; null leaves a class out
    numbering: str = "auto"  # what numbers mean as labels: a key of NUMBERINGS, or the one that fits them
    splits: dict[str, float] = field(default_factory=dict)  # shares of train for splits that the source lacks
    folds: int = 0  # validation is fold number `fold` of this many; 0: no folds
    fold: int = 0
    seed: int = 0  # of splits and folds
    leave_out: str | None = None  # a draw's JSON file: its rows and their exact copies are not in train
    max_skipped_share: float = 0.1  # of rows that cannot be read; more is an error
    max_side_px: int | None = None  # larger pictures are stored smaller
    subject_pattern: str | None = CK_SUBJECT  # its first group in a file's name is the subject
    config_name: str | None = None  # of a data set on the Hub
    revision: str | None = None  # of a data set on the Hub
    streaming: bool = False  # parquet and the Hub: rows are read as they are asked for, and nothing is stored

    def __post_init__(self):
        names = vocabulary(self.classes)
        remap = {remap_key(name): target and canonical_label(target) for name, target in self.remap.items()}
        wrong = [target for target in remap.values() if target is not None and target not in names]
        if wrong:
            raise ValueError(f"remap leads to {', '.join(wrong)}, which is not one of {', '.join(names)}")
        object.__setattr__(self, "remap", remap)
        if self.numbering not in ("auto", *NUMBERINGS):
            raise ValueError(f"numbering is {self.numbering!r}; choose auto, {', '.join(NUMBERINGS)}")
        if not 0 <= self.max_skipped_share <= 1:
            raise ValueError(f"max_skipped_share should be from 0 to 1; {self.max_skipped_share} was given")
        if self.max_side_px is not None and self.max_side_px < 1:
            raise ValueError(f"max_side_px should be at least 1; {self.max_side_px} was given")
        if self.subject_pattern is not None and re.compile(self.subject_pattern).groups < 1:
            raise ValueError(f"subject_pattern {self.subject_pattern!r} needs a group: the part that is the subject")
        if self.streaming and (self.splits or self.folds):
            raise ValueError("a stream cannot be split: leave splits and folds out, or read without streaming")
        if self.streaming and self.votes:
            raise ValueError(
                "votes are matched by row order, which a stream loses to shuffling and to several workers: read "
                "without streaming, or give data that has them in a column"
            )
        if self.streaming and self.leave_out:
            raise ValueError("rows cannot be left out of a stream by a draw: read without streaming")
        if self.folds and "validation" in self.splits:
            raise ValueError("folds and splits.validation exclude each other: give one way to a validation split")


@dataclass(frozen=True)
class LoadedSource:
    """What ``read_source`` gives: the splits, and one report for each source in them."""

    splits: datasets.DatasetDict
    reports: tuple[SourceReport, ...]


def load_source(
    spec: str | Path | Sequence[str | Path], options: SourceOptions | None = None, **changes
) -> datasets.DatasetDict | datasets.IterableDatasetDict:
    """The splits of a source, or of several merged, in the one schema; what was left out is logged.

    ``spec`` is a folder, a CSV or parquet file, or the name of a data set on the Hub. ``changes`` are fields of
    ``SourceOptions``. Raises ValueError with one sentence where a source cannot be understood or too much of it read.
    """
    options = replace(options or SourceOptions(), **changes)
    if options.streaming:
        return stream_source(spec, options)
    return read_source(spec, options).splits


def read_source(spec: str | Path | Sequence[str | Path], options: SourceOptions | None = None) -> LoadedSource:
    """The same as ``load_source``, with the reports on what was found and left out."""
    options = options or SourceOptions()
    if options.streaming:
        raise ValueError("a stream has no report of what was left out; ask load_source for it")
    specs = [spec] if isinstance(spec, str | Path) else list(spec)
    if not specs:
        raise ValueError("no source was given")
    loaded = [_read_one(one, options) for one in specs]
    splits = loaded[0][0] if len(loaded) == 1 else merge_sources(specs, [splits for splits, _ in loaded])
    if options.leave_out:
        splits = _without_drawn(splits, Path(options.leave_out))
    return LoadedSource(splits, tuple(report for _, report in loaded))


def stream_source(spec: str | Path, options: SourceOptions) -> datasets.IterableDatasetDict:
    """The splits of parquet files or a data set on the Hub as streams; unreadable rows are logged and passed by."""
    if not isinstance(spec, str | Path):
        raise ValueError("one source can be streamed; several cannot be merged while they stream")
    opened = _open_tables(spec, options)
    if opened is None:
        raise ValueError(f"{spec} cannot be streamed; parquet files and data sets on the Hub can")
    return stream_tables(opened[0], options)


def _without_drawn(splits: datasets.DatasetDict, path: Path) -> datasets.DatasetDict:
    """The splits without the rows of a draw, and without rows of train that have the same picture as one of them."""
    drawn = set(drawn_row_ids(path))
    if "train" not in splits:
        raise ValueError(f"{path} names rows of train, which the source lacks; it has {', '.join(splits)}")
    train = splits["train"]
    rows = [row for row, row_id in enumerate(train["row_id"][:]) if row_id in drawn]
    if len(rows) != len(drawn):
        raise ValueError(
            f"{path} names {len(drawn):,} rows, of which train has {len(rows):,}: it was drawn from other data, or "
            "classes or remap leave some of its rows out, whose copies could not be found then"
        )
    return datasets.DatasetDict(splits | {"train": train.select(rows_without(train, train.select(rows)))})


def drawn_row_ids(path: Path) -> list[str]:
    """The row ids of a draw, a JSON object whose ``row_ids`` lists them by class."""
    try:
        by_class = json.loads(path.read_text(encoding="utf-8"))["row_ids"]
        return [row_id for row_ids in by_class.values() for row_id in row_ids]
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as fault:
        raise ValueError(f"{path} is no draw: it should be a JSON object whose row_ids lists ids by class") from fault


def _read_one(spec: str | Path, options: SourceOptions) -> tuple[datasets.DatasetDict, SourceReport]:
    splits, report = store(_listing(spec, options), options)
    skipped, kept = len(report.skipped), sum(report.rows.values())
    said = report.sentences()
    if skipped > options.max_skipped_share * (skipped + kept):
        raise ValueError(
            f"{spec}: more of its {skipped + kept:,} rows cannot be read than max_skipped_share="
            f"{options.max_skipped_share:g} allows; {said[-1]}"
        )
    if not kept:
        raise ValueError(f"{spec} has no row of the {options.classes} classes; {'; '.join(said) or 'it is empty'}")
    for sentence in said:
        logger.warning("%s: %s", spec, sentence)
    splits = with_splits(splits, options.splits, options.seed)
    if options.folds:
        splits = folded(splits, options.folds, options.fold, options.seed)
    return splits, report


def _listing(spec: str | Path, options: SourceOptions) -> Listing:
    """The source with its layout understood: tables first, then files of pixels, lists of files, and class folders."""
    opened = _open_tables(spec, options)
    if opened is not None:
        return table_listing(*opened, options)
    path = Path(spec)
    if path.is_file():
        if path.suffix.lower() not in (".csv", ".txt"):
            raise ValueError(f"{path} is a {path.suffix or 'nameless'} file; give a folder, a CSV or a parquet file")
        if path.suffix.lower() == ".csv" and is_pixel_csv(path):
            return pixel_listing(path, options)
        if is_file_list(path):
            return file_list_listing([path], _pictures_root(path.parent), options)
        raise ValueError(
            f"{path} has the columns {', '.join(csv_header(path)) or '(none)'}; it should have emotion, pixels and "
            "Usage, as fer2013.csv, or one column of picture files and one of labels"
        )
    return _folder_listing(path, options)


def _folder_listing(folder: Path, options: SourceOptions) -> Listing:
    lists = sorted(folder.rglob(RAF_DB_LIST))
    if lists:
        return file_list_listing(lists, folder, options)
    csvs = sorted(folder.glob("*.csv"))
    of_pixels = [file for file in csvs if is_pixel_csv(file) and "usage" in csv_header(file)]
    if of_pixels:
        listing = pixel_listing(of_pixels[0], options)
        if len(of_pixels) > 1:
            others = ", ".join(file.name for file in of_pixels[1:])
            listing.notes.append(f"{of_pixels[0].name} was read, and these like it were passed by: {others}")
        return listing
    pictures, others = picture_files(folder)
    lists = [file for file in csvs if is_file_list(file)]
    if lists and not has_class_folders(folder, pictures, options):
        return file_list_listing(lists, folder, options)
    if not pictures:
        raise ValueError(f"{folder} has no parquet, no fer2013.csv and no pictures in it")
    listing = class_folder_listing(folder, pictures, options)
    if others:
        kinds = ", ".join(f"{suffix} ({count:,})" for suffix, count in others.most_common(5))
        listing.notes.append(f"files that are no pictures were passed by: {kinds}")
    return listing


def _pictures_root(folder: Path) -> Path:
    """Where the pictures of a list are looked for: beside it, or, as in RAF-DB, beside its folder."""
    return folder if picture_files(folder)[0] else folder.parent


def _open_tables(spec: str | Path, options: SourceOptions) -> tuple[Tables, list[str]] | None:
    """The tables of a source and what changes when they do, or None where it is a file or folder of another kind."""
    path = Path(spec)
    if path.is_dir() or path.suffix.lower() == ".parquet":
        files = parquet_files(path) if path.is_dir() else {split_of_place(path.name) or "train": [path]}
        if not files:
            return None
        state = [f"{split} {file_state(file)}" for split, of_split in files.items() for file in of_split]
        return open_parquet(files, options.streaming), state
    if path.exists():
        return None
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(spec)):
        raise ValueError(f"there is no file or folder {spec}")
    tables = open_hub(str(spec), options)
    if options.streaming:
        return tables, []
    return tables, [f"{spec} {file['filename']}" for table in tables.values() for file in table.cache_files]
