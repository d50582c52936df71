"""The local store of contributions: it only grows, and forgets on request.

A folder with ``entries.jsonl``, to which lines are appended, and ``pictures/``. An entry is acknowledged once its
picture and its line are on the disk. Pictures are encoded anew from pixels, so that no metadata comes along.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from .entries import Offer, check_offers, key_of, new_receipt, now, picture_name, png_bytes, prepare, to_parquet
from .log import append_lines, fsync_folder, read_lines

_STAGED = ".fer-staged-"


def _is_ours(path: Path) -> bool:
    """Whether a file's name is one that ``picture_name`` gives."""
    return re.fullmatch(r"[0-9a-f]{32}\.png", path.name) is not None


class ContributionStore:
    """The store in a folder, safe for several threads and processes; entries are given back in order of arrival.

    ``repo_id`` is the data set on the Hub that a ``Pusher`` sends them to, if there is one. Raises ValueError where
    the folder has pictures of a store and no line in ``entries.jsonl``, which alone says whose they are.
    """

    def __init__(self, folder: str | Path, labels: Sequence[str], repo_id: str | None = None) -> None:
        self.folder, self.labels, self.repo_id = Path(folder), tuple(labels), repo_id
        self._log = self.folder / "entries.jsonl"
        self._pictures = self.folder / "pictures"
        self._pictures.mkdir(parents=True, exist_ok=True)
        with self._locked():
            if not read_lines(self._log):
                if any(map(_is_ours, self._pictures.iterdir())):
                    raise ValueError(
                        f"{self._pictures} holds contributed pictures, and {self._log} is missing or empty, without "
                        "which all of them would count as withdrawn: put it back, or give the store another folder"
                    )
                append_lines(self._log, [{"action": "begin", "time": now()}])
            self._sweep()

    def add(self, offers: Sequence[Offer], *, consent: bool) -> str:
        """The receipt with which all the offers can be withdrawn; they are on the disk when it is returned.

        Raises ValueError without consent, without offers, or for a label that is not one of the store's.
        """
        check_offers(offers, self.labels, consent=consent)
        receipt, shared = new_receipt()
        with self._locked():
            written: list[Path] = []
            try:
                names = [self._write_picture(offer.picture, written) for offer in offers]
                lines = [
                    {"action": "add", **shared, "picture": name, "label": offer.label, "predicted": offer.predicted}
                    for name, offer in zip(names, offers, strict=True)
                ]
                append_lines(self._log, lines)
            except BaseException:
                for path in written:
                    path.unlink(missing_ok=True)
                raise
        return receipt

    def withdraw(self, receipt: str) -> int:
        """How many pictures were withdrawn with a receipt and deleted; 0 for an unknown or used one."""
        key = key_of(receipt)
        with self._locked():
            mine = [entry for entry in self.entries() if entry["receipt"] == key]
            if not mine:
                return 0
            append_lines(
                self._log, [{"action": "withdraw", "receipt": key, "sha256": self._file_sha256(mine), "time": now()}]
            )
            self._sweep()
        return len(mine)

    def entries(self) -> Iterator[dict]:
        """Every entry that was not withdrawn: picture (a file name), label, predicted, receipt, consent, time."""
        lines = read_lines(self._log)
        withdrawn = {line["receipt"] for line in lines if line["action"] == "withdraw"}
        return (line for line in lines if line["action"] == "add" and line["receipt"] not in withdrawn)

    def contributions(self) -> dict[str, list[dict]]:
        """The same entries by the key of their receipt, oldest first."""
        found: dict[str, list[dict]] = {}
        for entry in self.entries():
            found.setdefault(entry["receipt"], []).append(entry)
        return found

    def withdrawn(self) -> dict[str, str | None]:
        """The keys of withdrawn contributions, with the SHA-256 of the file that each would have been on the Hub."""
        return {line["receipt"]: line.get("sha256") for line in read_lines(self._log) if line["action"] == "withdraw"}

    def parquet(self, entries: Sequence[dict]) -> bytes:
        """The file of one contribution. Raises OSError where a picture is gone or cannot be read."""
        names = {entry["picture"] for entry in entries}
        return to_parquet(entries, {name: (self._pictures / name).read_bytes() for name in names})

    def _file_sha256(self, entries: Sequence[dict]) -> str | None:
        """By which to find on the Hub what is only uploaded there; None where a lost picture must not stop anyone."""
        try:
            return hashlib.sha256(self.parquet(entries)).hexdigest()
        except OSError:
            return None

    def open_picture(self, name: str) -> Image.Image:
        """The picture of an entry."""
        with Image.open(self._pictures / name, formats=["PNG"]) as picture:
            return picture.convert("RGB")

    def holds(self, picture: Image.Image) -> bool:
        """Whether the same pixels are in the store already."""
        return (self._pictures / picture_name(prepare(picture))).is_file()

    def _write_picture(self, picture: Image.Image, written: list[Path]) -> str:
        """The name of the stored picture: PNG, RGB, at most ``MAX_SIDE_PX``, named by its pixels.

        Its path is added to ``written`` where it was not there before.
        """
        clean = prepare(picture)
        path = self._pictures / picture_name(clean)
        if not path.is_file():
            descriptor, staged = tempfile.mkstemp(prefix=_STAGED, dir=self._pictures)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(png_bytes(clean))
                    file.flush()
                    os.fsync(file.fileno())
                Path(staged).replace(path)
                written.append(path)
            finally:
                Path(staged).unlink(missing_ok=True)
            fsync_folder(self._pictures)
        return path.name

    def _sweep(self) -> None:
        """Delete the store's pictures that no entry names: withdrawn ones, and what a killed process left.

        Other files are not the store's, and stay.
        """
        named = {entry["picture"] for entry in self.entries()}
        for path in self._pictures.iterdir():
            if path.name not in named and (_is_ours(path) or path.name.startswith(_STAGED)):
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.folder / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
