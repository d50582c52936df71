"""A review on disk: a copy of the contributions, decisions that are only added to, and the accepted pictures.

``REVIEW/contributions/data/…`` are the contributions' own files, ``decisions.jsonl`` says what was decided, and
``accepted/train.parquet`` follows from the two.
"""

import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from fer_hf.contributions.entries import from_parquet
from fer_hf.contributions.log import fsync_folder, read_lines
from fer_hf.data.loaders import pixel_sha256

_GROUP_ROWS = 100
_MADE_FROM = b"made_from"
_FEATURES = {"image": {"_type": "Image"}} | {
    name: {"dtype": "string", "_type": "Value"} for name in ("label", "row_id", "subject")
}


@dataclass(frozen=True)
class Entry:
    """One picture of a contribution; its id is the start of the contribution's key and the picture's number in it."""

    id: str
    png: bytes
    label: str
    predicted: str | None
    time: str

    @property
    def subject(self) -> str:
        """What all pictures of a contribution share, so that no split parts them."""
        return self.id.partition("-")[0]

    def picture(self) -> Image.Image:
        with Image.open(io.BytesIO(self.png), formats=["PNG"]) as opened:
            return opened.convert("RGB")

    def pixel_sha256(self) -> str:
        """By which exact copies are known, here and among the pictures of other sources."""
        return pixel_sha256(self.picture())


class Review:
    """The folder of a review, made where it is missing. Decisions are read when they are first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.contributions, self.accepted = folder / "contributions", folder / "accepted"
        self.decisions = folder / "decisions.jsonl"
        for path in (self.contributions, self.accepted):
            path.mkdir(parents=True, exist_ok=True)

    def files(self) -> list[Path]:
        """The contributions' files, by key."""
        return sorted(self.contributions.glob("data/??/*.parquet"))

    def entries(self) -> Iterator[Entry]:
        """Every entry, the oldest contribution first, read file by file."""
        times = {file: pq.read_table(file, columns=["time"])["time"][0].as_py() for file in self.files()}
        for file in sorted(times, key=lambda file: (times[file], file)):
            for number, row in enumerate(from_parquet(file)):
                name = f"{file.stem[:16]}-{number}"
                yield Entry(name, row["image"]["bytes"], row["label"], row["predicted"], row["time"])

    def state(self, entry: Entry) -> str:
        """``waiting``, ``accepted`` or ``rejected``."""
        return self._decided.get(entry.id, {}).get("decision", "waiting")

    def label(self, entry: Entry) -> str:
        """The reviewer's label, or the giver's where the reviewer gave none."""
        return self._decided.get(entry.id, {}).get("label", entry.label)

    def counts(self) -> Counter:
        """How many entries are in each state."""
        return Counter(self.state(entry) for entry in self.entries())

    @cached_property
    def _decided(self) -> dict[str, dict]:
        return {line["entry"]: line for line in read_lines(self.decisions)}


def write_accepted(review: Review) -> int:
    """How many entries are accepted; ``accepted/train.parquet`` holds exactly these when it returns.

    The file is written beside its place, synced and renamed, and left alone where nothing has changed.
    """
    target = review.accepted / "train.parquet"
    chosen = [(entry.id, review.label(entry)) for entry in review.entries() if review.state(entry) == "accepted"]
    if not chosen:
        target.unlink(missing_ok=True)
        return 0
    made_from = hashlib.sha256(json.dumps(chosen).encode()).hexdigest().encode()
    if target.is_file() and (pq.read_schema(target).metadata or {}).get(_MADE_FROM) == made_from:
        return len(chosen)
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    fields = [("image", image), *((name, pa.string()) for name in ("label", "row_id", "subject"))]
    metadata = {"huggingface": json.dumps({"info": {"features": _FEATURES}}), _MADE_FROM: made_from}
    schema, labels, rows = pa.schema(fields, metadata=metadata), dict(chosen), []
    part = target.with_name(".train.parquet.part")  # what is left of a killed run goes with the next one
    with pq.ParquetWriter(part, schema) as writer:
        for entry in review.entries():
            if entry.id in labels:
                image = {"bytes": entry.png, "path": f"{entry.id}.png"}
                names = {"label": labels[entry.id], "row_id": entry.id, "subject": entry.subject}
                rows.append({"image": image} | names)
            if len(rows) == _GROUP_ROWS:
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                rows = []
        writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    with part.open("rb") as written:
        os.fsync(written.fileno())
    part.rename(target)
    fsync_folder(target.parent)
    return len(chosen)
