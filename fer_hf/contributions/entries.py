"""What one contribution is: pictures with labels under one receipt, and the parquet file that it becomes.

A receipt is the id that the giver gets. Only its SHA-256, the *key*, is stored, so that nothing that is stored tells
who may withdraw what. The key also names the contribution's one file, on the Hub and in a review, so that writing it
twice changes nothing.
"""

import hashlib
import io
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

CONSENT = (
    "I may give this picture away, everyone shown agrees, and it may be published as part of a data set for training "
    "and testing models of perceived facial expression."
)
"""What a visitor agrees to; every entry names the text it was given under by its hash."""
MAX_SIDE_PX = 512

_TEXTS = ("label", "predicted", "receipt", "consent", "time")
_FEATURES = {"image": {"_type": "Image"}} | {name: {"dtype": "string", "_type": "Value"} for name in _TEXTS}
_SCHEMA = pa.schema(
    [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), *((name, pa.string()) for name in _TEXTS)],
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)


@dataclass(frozen=True)
class Offer:
    """A face picture with the label its giver sees in it, and what the model had said, if it was asked."""

    picture: Image.Image
    label: str
    predicted: str | None = None


def check_offers(offers: Sequence[Offer], labels: Sequence[str], *, consent: bool) -> None:
    """Raises ValueError without consent, without offers, or for a label that is not one of ``labels``."""
    if not consent:
        raise ValueError("Nothing was stored: tick the consent first.")
    if not offers:
        raise ValueError("Nothing was stored: there is no picture.")
    for offer in offers:
        if offer.label not in labels:
            raise ValueError(f"{offer.label!r} is not a label; choose one of {', '.join(labels)}.")


def new_receipt() -> tuple[str, dict[str, str]]:
    """A receipt for its giver, and what all entries under it share: its key, the consent's hash and the time."""
    receipt = secrets.token_urlsafe(12)
    return receipt, {"receipt": key_of(receipt), "consent": _sha256(CONSENT), "time": now()}


def key_of(receipt: str) -> str:
    """The key of a receipt as somebody typed it."""
    return _sha256(receipt.strip())


def now() -> str:
    """The time, UTC, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def prepare(picture: Image.Image) -> Image.Image:
    """The pixels alone: a new RGB picture of bounded size without anything that was attached to the old one."""
    clean = Image.fromarray(np.asarray(picture.convert("RGB")))
    clean.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
    return clean


def picture_name(clean: Image.Image) -> str:
    """The file name of a prepared picture, made from its pixels."""
    return hashlib.sha256(repr(clean.size).encode() + clean.tobytes()).hexdigest()[:32] + ".png"


def png_bytes(clean: Image.Image) -> bytes:
    """A prepared picture as a PNG file."""
    buffer = io.BytesIO()
    clean.save(buffer, "PNG")
    return buffer.getvalue()


def path_of(key: str) -> str:
    """Where a contribution lies in its repository."""
    return f"data/{key[:2]}/{key}.parquet"


def to_parquet(entries: Sequence[Mapping[str, Any]], pictures: Mapping[str, bytes]) -> bytes:
    """A contribution as a file: the same bytes for the same entries; ``pictures`` are PNG files by name."""
    rows = [
        {"image": {"bytes": pictures[entry["picture"]], "path": entry["picture"]}}
        | {name: entry[name] for name in _TEXTS}
        for entry in entries
    ]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), buffer)
    return buffer.getvalue()


def from_parquet(source: bytes | Path) -> list[dict[str, Any]]:
    """The rows of a contribution's file: image (bytes, path), label, predicted, receipt, consent, time."""
    return pq.read_table(io.BytesIO(source) if isinstance(source, bytes) else source, schema=_SCHEMA).to_pylist()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
