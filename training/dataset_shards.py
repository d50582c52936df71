"""A split as parquet shards on disk: in bounded memory, the same bytes each time, whole files kept after a kill."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

SHARD_BYTES = 256 * 10**6
_GROUP_ROWS, _GROUP_BYTES = 100, 16 * 10**6  # what a reader has to take in one go
_SIZES_ROWS = 1000
_SUFFIX_OF_START = {b"\xff\xd8": "jpg", b"\x89P": "png", b"RI": "webp"}


def write_shards(
    split: datasets.Dataset,
    name: str,
    folder: Path,
    *,
    rename_subject: Callable[[str | None], str | None],
    shard_bytes: int = SHARD_BYTES,
    on_rows: Callable[[int], object] = lambda rows: None,
) -> list[Path]:
    """The files ``name-00000-of-00003.parquet`` in ``folder`` that hold the rows of a split, in order.

    Row ids become a hash of the picture's bytes, and pictures are named by it: nothing of a file's name or a person's
    is published. A file that is there already is kept: call again with the same rows to resume. ``on_rows`` hears how
    many more rows are done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    split = split.with_format("arrow")
    sizes = _picture_bytes(split)
    bounds = list(_runs(sizes, len(sizes), shard_bytes))
    files = [folder / f"{name}-{index:05d}-of-{len(bounds):05d}.parquet" for index in range(len(bounds))]
    for file, (start, stop) in zip(files, bounds, strict=True):
        if file.exists():
            on_rows(stop - start)
            continue
        part = file.with_name(f".{file.name}.part")
        # Chunks that follow the content let the Hub store only what differs between two versions of a data set.
        schema = split.features.arrow_schema
        with pq.ParquetWriter(part, schema, compression="snappy", use_content_defined_chunking=True) as writer:
            for first, last in _runs(sizes[start:stop], _GROUP_ROWS, _GROUP_BYTES):
                writer.write_table(_published(split[start + first : start + last], schema, rename_subject))
                on_rows(last - first)
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.rename(file)
    return files


def _picture_bytes(split: datasets.Dataset) -> list[int]:
    sizes = []
    for start in range(0, len(split), _SIZES_ROWS):
        pictures = split[start : start + _SIZES_ROWS]["image"]
        sizes += pc.binary_length(pc.struct_field(pictures, "bytes")).to_pylist()
    return sizes


def _runs(sizes: list[int], max_rows: int, max_bytes: int) -> Iterator[tuple[int, int]]:
    """Start and stop of runs of rows that stay within both limits, or are one row; an empty split has one run."""
    start = total = 0
    for index, size in enumerate(sizes):
        if index > start and (index - start == max_rows or total + size > max_bytes):
            yield start, index
            start, total = index, 0
        total += size
    yield start, len(sizes)


def _published(rows: pa.Table, schema: pa.Schema, rename_subject: Callable[[str | None], str | None]) -> pa.Table:
    columns = {name: rows[name].to_pylist() for name in schema.names}
    columns["row_id"] = [picture_id(image["bytes"]) for image in columns["image"]]
    columns["image"] = [
        {"bytes": image["bytes"], "path": f"{row_id}.{_SUFFIX_OF_START[image['bytes'][:2]]}"}
        for image, row_id in zip(columns["image"], columns["row_id"], strict=True)
    ]
    if "subject" in columns:
        columns["subject"] = [rename_subject(subject) for subject in columns["subject"]]
    return pa.table(columns, schema=schema)


def picture_id(data: bytes) -> str:
    """The id of a published row: the start of its picture's SHA-256."""
    return hashlib.sha256(data).hexdigest()[:16]
