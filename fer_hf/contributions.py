"""Pictures that visitors gave with a label and their consent: a local store that only grows, and forgets on request.

A folder with ``entries.jsonl``, to which lines are appended, and ``pictures/``. An entry is acknowledged once its
picture and its line are on the disk. Pictures are encoded anew from pixels, so that no metadata comes along.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from PIL import Image

CONSENT = (
    "I may give this picture away, everyone shown agrees, and it may be published as part of a data set for training "
    "and testing models of perceived facial expression."
)
"""What a visitor agrees to; every entry names the text it was given under by its hash."""
MAX_SIDE_PX = 512


@dataclass(frozen=True)
class Offer:
    """A face picture with the label its giver sees in it, and what the model had said, if it was asked."""

    picture: Image.Image
    label: str
    predicted: str | None = None


class ContributionStore:
    """The store in a folder, safe for several threads and processes; entries are given back in order of arrival."""

    def __init__(self, folder: str | Path, labels: Sequence[str]) -> None:
        self.folder, self.labels = Path(folder), tuple(labels)
        self._log = self.folder / "entries.jsonl"
        self._pictures = self.folder / "pictures"
        self._pictures.mkdir(parents=True, exist_ok=True)

    def add(self, offers: Sequence[Offer], *, consent: bool) -> str:
        """The id with which all the offers can be withdrawn; they are on the disk when it is returned.

        Only a hash of the id is stored, so that the store does not tell who may withdraw what. Raises ValueError
        without consent, without offers, or for a label that is not one of the store's.
        """
        if not consent:
            raise ValueError("Nothing was stored: tick the consent first.")
        if not offers:
            raise ValueError("Nothing was stored: there is no picture.")
        for offer in offers:
            if offer.label not in self.labels:
                raise ValueError(f"{offer.label!r} is not a label; choose one of {', '.join(self.labels)}.")
        receipt = secrets.token_urlsafe(12)
        shared = {
            "action": "add",
            "receipt": _hash_text(receipt),
            "consent": _hash_text(CONSENT),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with self._locked():
            written: list[Path] = []
            try:
                names = [self._write_picture(offer.picture, written) for offer in offers]
                self._write_lines(
                    [
                        {**shared, "picture": name, "label": offer.label, "predicted": offer.predicted}
                        for name, offer in zip(names, offers, strict=True)
                    ]
                )
            except BaseException:
                for path in written:
                    path.unlink(missing_ok=True)
                raise
        return receipt

    def withdraw(self, receipt: str) -> int:
        """How many pictures were withdrawn with an id and deleted; 0 for an unknown or used one."""
        key = _hash_text(receipt.strip())
        with self._locked():
            entries = list(self.entries())
            mine = [entry for entry in entries if entry["receipt"] == key]
            if not mine:
                return 0
            now = datetime.now(UTC).isoformat(timespec="seconds")
            self._write_lines([{"action": "withdraw", "receipt": key, "time": now}])
            others = {entry["picture"] for entry in entries if entry["receipt"] != key}
            for name in {entry["picture"] for entry in mine} - others:
                (self._pictures / name).unlink(missing_ok=True)
        return len(mine)

    def entries(self) -> Iterator[dict]:
        """Every entry that was not withdrawn: picture (a file name), label, predicted, receipt, consent, time."""
        lines = self._read_lines()
        withdrawn = {line["receipt"] for line in lines if line["action"] == "withdraw"}
        return (line for line in lines if line["action"] == "add" and line["receipt"] not in withdrawn)

    def open_picture(self, name: str) -> Image.Image:
        """The picture of an entry."""
        with Image.open(self._pictures / name, formats=["PNG"]) as picture:
            return picture.convert("RGB")

    def holds(self, picture: Image.Image) -> bool:
        """Whether the same pixels are in the store already."""
        return (self._pictures / _picture_name(_prepare(picture))).is_file()

    def _write_picture(self, picture: Image.Image, written: list[Path]) -> str:
        """The name of the stored picture: PNG, RGB, at most ``MAX_SIDE_PX``, named by its pixels.

        Its path is added to ``written`` where it was not there before.
        """
        clean = _prepare(picture)
        path = self._pictures / _picture_name(clean)
        if not path.is_file():
            descriptor, staged = tempfile.mkstemp(prefix=".", dir=self._pictures)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    clean.save(file, "PNG")
                    file.flush()
                    os.fsync(file.fileno())
                Path(staged).replace(path)
                written.append(path)
            finally:
                Path(staged).unlink(missing_ok=True)
            _fsync_folder(self._pictures)
        return path.name

    def _write_lines(self, lines: Sequence[dict]) -> None:
        text = "".join(json.dumps(line) + "\n" for line in lines)
        with self._log.open("ab") as file:
            if file.tell() and not self._ends_with_newline():
                file.write(b"\n")  # a crash cut the last line short; it was never acknowledged
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        _fsync_folder(self.folder)

    def _ends_with_newline(self) -> bool:
        with self._log.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _read_lines(self) -> list[dict]:
        if not self._log.is_file():
            return []
        lines = []
        for text in self._log.read_text("utf-8").splitlines():
            # Only a write that was cut short leaves text that does not parse, and that one was never acknowledged.
            with contextlib.suppress(json.JSONDecodeError):
                lines.append(json.loads(text))
        return lines

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.folder / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _prepare(picture: Image.Image) -> Image.Image:
    """The pixels alone: a new RGB picture of bounded size without anything that was attached to the old one."""
    clean = Image.fromarray(np.asarray(picture.convert("RGB")))
    clean.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
    return clean


def _picture_name(clean: Image.Image) -> str:
    return hashlib.sha256(repr(clean.size).encode() + clean.tobytes()).hexdigest()[:32] + ".png"


def _hash_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
