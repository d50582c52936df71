"""Rows of any reader, decoded once, checked and kept on disk as Arrow files that ``datasets`` maps into memory."""

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
from datasets.utils import tqdm

from fer_hf.data.ferplus import VOTES_PER_ROW
from fer_hf.data.sources_pictures import stored_picture
from fer_hf.data.sources_rows import Listing, Row, SkippedRow, file_size
from fer_hf.labels import target_label, vocabulary

SCHEMA_VERSION = 4  # part of every key: raise it when what is stored for the same source changes
_GROUP_BYTES, _GROUP_ROWS = 2 << 20, 200  # decoded by a thread in one go; a photo of 2 MB may be 20 MB as PNG
_BATCH_BYTES = 16 << 20


@dataclass
class SourceReport:
    """What was found while a source was read: how it was understood, what was left out and why."""

    layout: str
    notes: list[str] = field(default_factory=list)
    skipped: list[SkippedRow] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)  # rows by class that the vocabulary lacks
    formats: dict[str, int] = field(default_factory=dict)  # pictures by the format they came in
    rows: dict[str, int] = field(default_factory=dict)  # by split

    def to_json(self) -> dict:
        """The report as JSON takes it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict) -> "SourceReport":
        """The report that ``to_json`` gave."""
        return cls(**{**values, "skipped": [SkippedRow(**row) for row in values["skipped"]]})

    def sentences(self) -> list[str]:
        """The notes, and a sentence each for dropped classes and skipped pictures."""
        said = list(self.notes)
        if self.dropped:
            classes = ", ".join(f"{name} ({count:,})" for name, count in self.dropped.items())
            said.append(f"rows of classes that are not used were left out: {classes}")
        if self.skipped:
            first = "; ".join(f"{row.row_id}: {row.reason.rstrip('.')}" for row in self.skipped[:3])
            more = f"; and {len(self.skipped) - 3:,} more" if len(self.skipped) > 3 else ""
            count = len(self.skipped)
            rows = "1 row that cannot be read was" if count == 1 else f"{count:,} rows that cannot be read were"
            said.append(f"{rows} skipped: {first}{more}")
        return said


def features_of(num_classes: int, has_votes: bool, has_subjects: bool) -> datasets.Features:
    """The one schema: image, label and row_id, and subject and votes where the source has them."""
    features = {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=list(vocabulary(num_classes))),
        "row_id": datasets.Value("string"),
    }
    if has_subjects:
        features["subject"] = datasets.Value("string")
    if has_votes:
        features["votes"] = datasets.Sequence(datasets.Value("int32"), length=VOTES_PER_ROW)
    return datasets.Features(features)


def examples(
    rows: Iterable[Row | SkippedRow], features: datasets.Features, options, report: SourceReport
) -> Iterator[tuple[str, dict]]:
    """Split and columns of every row that can be used, in order; the others go to ``report``.

    Pictures are decoded a few at a time in threads, so that memory stays bounded and two cores are used.
    """
    names = features["label"].names

    def usable() -> Iterator[Row]:
        for row in rows:
            if isinstance(row, SkippedRow):
                report.skipped.append(row)
            elif target_label(row.label, names, options.remap) is None:
                report.dropped[row.label] = report.dropped.get(row.label, 0) + 1
            else:
                yield row

    formats = Counter(report.formats)
    for row, result in _decoded(usable(), options.max_side_px):
        if isinstance(result, ValueError):
            report.skipped.append(SkippedRow(row.row_id, str(result)))
            continue
        data, kind = result
        formats[kind] += 1
        label = names.index(target_label(row.label, names, options.remap))
        columns = {"image": {"bytes": data, "path": None}, "label": label, "row_id": row.row_id}
        columns |= {"subject": row.subject, "votes": row.votes}
        yield row.split or "train", {name: columns[name] for name in features}
    report.formats = dict(formats)


def _decoded(rows: Iterator[Row], max_side_px: int | None) -> Iterator[tuple[Row, tuple[bytes, str] | ValueError]]:
    """Each row, in order, with what ``stored_picture`` gives for it or why it gives nothing."""

    def decode(group: list[Row]) -> list[tuple[Row, tuple[bytes, str] | ValueError]]:
        return [(row, _stored_or_fault(row, max_side_px)) for row in group]

    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        under_way: deque[Future] = deque()
        for group in _groups(rows):
            under_way.append(pool.submit(decode, group))
            if len(under_way) > workers:
                yield from under_way.popleft().result()
        while under_way:
            yield from under_way.popleft().result()


def _stored_or_fault(row: Row, max_side_px: int | None) -> tuple[bytes, str] | ValueError:
    try:
        return stored_picture(row.picture, max_side_px)
    except ValueError as fault:
        return fault


def _groups(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Rows in groups that are worth a thread's while: many small pictures, or few large ones, which take memory."""
    group, weight = [], 0
    for row in rows:
        group.append(row)
        weight += len(row.picture) if isinstance(row.picture, bytes | np.ndarray) else file_size(row.picture)
        if weight >= _GROUP_BYTES or len(group) >= _GROUP_ROWS:
            yield group
            group, weight = [], 0
    if group:
        yield group


def store(listing: Listing, options, cache_dir: Path | None = None) -> tuple[datasets.DatasetDict, SourceReport]:
    """The splits of a source and the report on it, from disk where the same source was read the same way before."""
    root = cache_dir or Path(datasets.config.HF_DATASETS_CACHE) / "fer_hf"
    folder = root / _key(listing, options)
    if not (folder / "report.json").is_file():
        root.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=".reading-", dir=root))
        try:
            _write(listing, options, staged)
            try:
                staged.rename(folder)
            except OSError:
                if not (folder / "report.json").is_file():  # else another process was faster
                    raise
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    report = SourceReport.from_json(json.loads((folder / "report.json").read_text(encoding="utf-8")))
    splits = {name: datasets.Dataset.from_file(str(folder / f"{name}.arrow")) for name in report.rows}
    return datasets.DatasetDict(splits), report


def _key(listing: Listing, options) -> str:
    stored_by = {name: getattr(options, name) for name in ("classes", "remap", "numbering", "max_side_px")}
    stored_by["subject_pattern"] = options.subject_pattern
    digest = hashlib.sha256(json.dumps([SCHEMA_VERSION, listing.layout, stored_by], sort_keys=True).encode())
    for line in listing.state:
        digest.update(os.fsencode(line) + b"\n")
    return digest.hexdigest()[:32]


def _write(listing: Listing, options, folder: Path) -> None:
    """One Arrow file a split and ``report.json``, written last."""
    report = SourceReport(listing.layout, list(listing.notes))
    features = features_of(options.classes, listing.has_votes, listing.has_subjects)
    writers: dict[str, _SplitWriter] = {}
    try:
        with tqdm(total=listing.total, unit=" rows", desc="Reading pictures") as progress:
            for split, columns in examples(_counted(listing.rows(), progress), features, options, report):
                if split not in writers:
                    writers[split] = _SplitWriter(folder / f"{split}.arrow", features)
                writers[split].add(columns)
    finally:
        for writer in writers.values():
            writer.close()
    report.rows = {split: writers[split].count for split in sorted(writers, key=_split_order)}
    (folder / "report.json").write_text(json.dumps(report.to_json(), ensure_ascii=False), encoding="utf-8")


def _counted(rows: Iterable[Row | SkippedRow], progress: tqdm) -> Iterator[Row | SkippedRow]:
    for row in rows:
        progress.update()
        yield row


def _split_order(split: str) -> tuple[int, str]:
    known = ("train", "validation", "test")
    return (known.index(split) if split in known else len(known), split)


class _SplitWriter:
    """An Arrow stream that takes rows one at a time and writes them in batches of bounded size."""

    def __init__(self, path: Path, features: datasets.Features):
        self.count = 0
        self._features = features
        self._file = pa.OSFile(str(path), "wb")
        self._stream = pa.ipc.new_stream(self._file, features.arrow_schema)
        self._rows: list[dict] = []
        self._bytes = 0

    def add(self, columns: dict) -> None:
        self._rows.append(columns)
        self._bytes += len(columns["image"]["bytes"])
        self.count += 1
        if self._bytes >= _BATCH_BYTES or len(self._rows) >= 10_000:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._stream.close()
        self._file.close()

    def _flush(self) -> None:
        if self._rows:
            self._stream.write_batch(pa.RecordBatch.from_pylist(self._rows, schema=self._features.arrow_schema))
        self._rows, self._bytes = [], 0
