"""One pass over every picture of a data set: what the checks of an audit look at."""

import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import datasets
import numpy as np
from datasets.utils import tqdm
from PIL import Image, ImageOps

from fer_hf.data.audit_duplicates import THUMB_PX
from fer_hf.data.loaders import pixel_sha256

_BATCH_ROWS = 16  # in memory at once; a photo may have tens of megabytes


@dataclass(frozen=True)
class Scan:
    """All rows of all splits, one after the other; every array is (N, …).

    ``splits`` are indices into ``split_names``, ``labels`` into ``class_names``; ``thumbnails`` are (N, 48, 48) uint8
    grey; ``sizes`` are widths and heights; ``row_of`` gives a row's index within its split.
    """

    split_names: tuple[str, ...]
    class_names: tuple[str, ...]
    splits: np.ndarray
    row_of: np.ndarray
    labels: np.ndarray
    row_ids: np.ndarray
    subjects: np.ndarray | None
    hashes: np.ndarray
    thumbnails: np.ndarray
    sizes: np.ndarray
    modes: np.ndarray
    is_constant: np.ndarray

    def split_of(self, row: int) -> str:
        """The name of the row's split."""
        return self.split_names[self.splits[row]]

    def class_of(self, row: int) -> str:
        """The name of the row's class."""
        return self.class_names[self.labels[row]]

    def hashes_of(self, split: str) -> np.ndarray:
        """The hashes of the pictures of one split, in its order."""
        return self.hashes[self.splits == self.split_names.index(split)]

    def rows_apart(self, split: str, other: str) -> np.ndarray:
        """Indices within ``split`` of the rows whose picture does not occur in ``other``, whatever the labels."""
        return np.flatnonzero(~np.isin(self.hashes_of(split), self.hashes_of(other)))


def scan(source: datasets.DatasetDict) -> Scan:
    """What the checks need of every row, from one decoding of each picture."""
    total = sum(map(len, source.values()))
    thumbnails = np.empty((total, THUMB_PX, THUMB_PX), np.uint8)
    hashes, sizes, modes, constant = [], [], [], []
    with (
        tqdm(total=total, unit=" pictures", desc="Looking at pictures") as progress,
        ThreadPoolExecutor(os.cpu_count() or 1) as pool,
    ):
        for split in source.values():
            encoded = split.select_columns("image").cast_column("image", datasets.Image(decode=False))
            for batch in encoded.iter(_BATCH_ROWS):
                for digest, size, mode, is_constant, thumbnail in pool.map(_look, batch["image"]):
                    thumbnails[len(hashes)] = thumbnail
                    hashes.append(digest)
                    sizes.append(size)
                    modes.append(mode)
                    constant.append(is_constant)
                progress.update(len(batch["image"]))
    has_subjects = all("subject" in split.column_names for split in source.values())
    return Scan(
        split_names=tuple(source),
        class_names=tuple(next(iter(source.values())).features["label"].names),
        splits=np.repeat(np.arange(len(source)), [len(split) for split in source.values()]),
        row_of=np.concatenate([np.arange(len(split)) for split in source.values()]),
        labels=np.concatenate([np.asarray(split["label"][:], dtype=np.int64) for split in source.values()]),
        row_ids=np.concatenate([np.asarray(split["row_id"][:], dtype=object) for split in source.values()]),
        subjects=np.concatenate([np.asarray(s["subject"][:], dtype=object) for s in source.values()])
        if has_subjects
        else None,
        hashes=np.array(hashes),
        thumbnails=thumbnails,
        sizes=np.array(sizes, dtype=np.int64).reshape(-1, 2),
        modes=np.array(modes),
        is_constant=np.array(constant, dtype=bool),
    )


def _look(picture: dict) -> tuple[str, tuple[int, int], str, bool, np.ndarray]:
    with Image.open(io.BytesIO(picture["bytes"])) as image:
        image = ImageOps.exif_transpose(image)  # as datasets decodes it
        extrema = image.getextrema()
        bands = [extrema] if isinstance(extrema[0], int) else extrema
        thumbnail = image.convert("L")
        if thumbnail.size != (THUMB_PX, THUMB_PX):
            thumbnail = thumbnail.resize((THUMB_PX, THUMB_PX), Image.Resampling.BOX)
        is_constant = all(low == high for low, high in bands)
        return pixel_sha256(image), image.size, image.mode, is_constant, np.asarray(thumbnail)
