"""A dataset from anywhere, in one schema: ``load_source`` gives a ``DatasetDict`` of ``image``, ``label``, ``row_id`` and,
where known, ``votes`` (FER+, ten raters) and ``subject``."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

from fer_hf.data.ferplus import VOTES_PER_ROW, read_votes
from fer_hf.labels import FER7

SPLIT_OF_USAGE = {"training": "train", "publictest": "validation", "privatetest": "test"}
FER_SIDE_PX = 48


def load_source(spec: str | Path, *, votes: str | Path | None = None) -> datasets.DatasetDict:
    """The splits of a folder of parquet files (``train.parquet``, …) or of a ``fer2013.csv``.

    Every split has ``image`` (Image), ``label`` (ClassLabel), ``row_id`` (string, e.g. ``train/000123``: stable between
    runs) and ``votes`` (ten int32) where the source carries FER+ votes or ``votes`` names a ``fer2013new.csv``, whose rows
    are matched by order. Raises ValueError when the source or the votes do not fit.
    """
    path = Path(spec)
    splits = _read_parquet(path) if path.is_dir() else _read_csv(path)
    if votes is not None:
        splits = _with_votes(splits, votes)
    return datasets.DatasetDict(splits)


def _read_parquet(folder: Path) -> dict[str, datasets.Dataset]:
    files = {name: str(folder / f"{name}.parquet") for name in ("train", "validation", "test")}
    files = {name: file for name, file in files.items() if Path(file).is_file()}
    if not files:
        raise ValueError(f"{folder} has none of train.parquet, validation.parquet and test.parquet")
    return {name: _in_schema(split, name) for name, split in datasets.load_dataset("parquet", data_files=files).items()}


def _in_schema(split: datasets.Dataset, name: str) -> datasets.Dataset:
    if "ferplus_votes" in split.column_names:
        split = split.rename_column("ferplus_votes", "votes")
        split = split.cast_column("votes", datasets.Sequence(datasets.Value("int32"), length=VOTES_PER_ROW))
    split = split.cast_column("image", datasets.Image()).cast_column("label", datasets.ClassLabel(names=list(FER7)))
    if "row_id" not in split.column_names:
        split = split.add_column("row_id", [row_id(name, index) for index in range(len(split))])
    return split


def row_id(split: str, index: int) -> str:
    """The stable id of a row of a table, e.g. ``train/000123``."""
    return f"{split}/{index:06d}"


def _read_csv(path: Path) -> dict[str, datasets.Dataset]:
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=list(FER7)), row_id=datasets.Value("string")
    )
    columns: dict[str, dict[str, list]] = {}
    for split, image, label in _csv_rows(path):
        rows = columns.setdefault(split, {"image": [], "label": [], "row_id": []})
        rows["row_id"].append(row_id(split, len(rows["row_id"])))
        rows["image"].append({"bytes": image, "path": None})
        rows["label"].append(label)
    return {split: datasets.Dataset.from_dict(rows, features=features) for split, rows in columns.items()}


def _csv_rows(path: Path) -> Iterator[tuple[str, bytes, int]]:
    csv.field_size_limit(1 << 20)
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = [name.strip().lower() for name in next(reader, [])]
        emotion, pixels, usage = (header.index(name) for name in ("emotion", "pixels", "usage"))
        for row in reader:
            values = np.array(row[pixels].split(), np.uint8).reshape(FER_SIDE_PX, FER_SIDE_PX)
            buffer = io.BytesIO()
            Image.fromarray(values).save(buffer, "PNG", compress_level=3)
            yield SPLIT_OF_USAGE[row[usage].strip().lower()], buffer.getvalue(), int(row[emotion])


def _with_votes(splits: dict[str, datasets.Dataset], path: str | Path) -> dict[str, datasets.Dataset]:
    by_split = {SPLIT_OF_USAGE[usage.lower()]: votes for usage, votes in read_votes(path).items()}
    feature = datasets.Sequence(datasets.Value("int32"), length=VOTES_PER_ROW)
    for name, split in splits.items():
        votes = by_split.get(name, np.empty((0, VOTES_PER_ROW)))
        if len(votes) != len(split):
            raise ValueError(f"{path} has {len(votes)} rows of votes for {name}, the source has {len(split)} rows")
        if "votes" in split.column_names:
            split = split.remove_columns("votes")
        splits[name] = split.add_column("votes", votes.tolist(), feature=feature)
    return splits
