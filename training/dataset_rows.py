"""Which rows of a source are published, in which split and order: each picture once, no subject in two new splits."""

import hashlib
import io
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import datasets
import numpy as np
from PIL import Image

from fer_hf.data.loaders import pixel_sha256
from fer_hf.data.splits import with_splits

_BATCH_ROWS = 8  # few, because a photo may have tens of megabytes


@dataclass(frozen=True)
class LeftOut:
    """A row that is not published: where its source has it, and why."""

    row_id: str
    reason: str


@dataclass(frozen=True)
class Chosen:
    """The splits to publish, in order; ``picture_sha256`` is of the stored bytes of each row of each split."""

    splits: datasets.DatasetDict
    picture_sha256: Mapping[str, list[str]]
    left_out: tuple[LeftOut, ...]

    def key(self) -> str:
        """A hash of everything that is published: the same rows in the same order have the same key."""
        digest = hashlib.sha256(repr(self.splits["train"].features).encode())
        for name, split in self.splits.items():
            columns = [self.picture_sha256[name], split["label"]]
            columns += [split[column] for column in ("subject", "votes") if column in split.column_names]
            for row in zip(*columns, strict=True):
                digest.update(repr((name, *row)).encode())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class _Picture:
    pixels: str
    stored: str
    is_constant: bool


def choose_rows(
    source: datasets.DatasetDict,
    shares: Mapping[str, float],
    seed: int,
    on_rows: Callable[[int], object] = lambda rows: None,
) -> Chosen:
    """The rows of a source that are published.

    Pictures of one colour are left out. Of equal pictures one stays, in the first of test, validation and train that
    has it, or none where their labels differ. Splits of ``shares`` that the source lacks are then cut from train by
    subject where subjects are known, and the rows of each split are shuffled, because folders come class by class.
    """
    pictures = {name: _look(split, on_rows) for name, split in source.items()}
    kept, left_out = _first_copies(source, pictures)
    if not len(kept.get("train", ())):
        raise ValueError("no row of train is left once copies and pictures of one colour are gone")
    rows = {name: split.select(kept[name]) for name, split in source.items() if len(kept[name])}
    splits = with_splits(datasets.DatasetDict(rows), shares, seed)
    generator = np.random.default_rng(seed)
    splits = {name: split.select(generator.permutation(len(split))) for name, split in splits.items()}
    sha256 = {
        row_id: picture.stored
        for name, split in source.items()
        for row_id, picture in zip(split["row_id"], pictures[name], strict=True)
    }
    stored = {name: [sha256[row_id] for row_id in split["row_id"]] for name, split in splits.items()}
    return Chosen(datasets.DatasetDict(splits), stored, tuple(left_out))


def _look(split: datasets.Dataset, on_rows: Callable[[int], object]) -> list[_Picture]:
    """What tells a split's pictures apart, decoded a few at a time."""
    encoded = split.select_columns("image").cast_column("image", datasets.Image(decode=False))
    found: list[_Picture] = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for batch in encoded.iter(_BATCH_ROWS):
            found += pool.map(lambda image: _picture(image["bytes"]), batch["image"])
            on_rows(len(batch["image"]))
    return found


def _picture(data: bytes) -> _Picture:
    with Image.open(io.BytesIO(data)) as image:
        extrema = image.getextrema()
        bands = [extrema] if isinstance(extrema[0], int) else extrema
        is_constant = all(low == high for low, high in bands)
        return _Picture(pixel_sha256(image), hashlib.sha256(data).hexdigest(), is_constant)


def _first_copies(
    source: datasets.DatasetDict, pictures: Mapping[str, list[_Picture]]
) -> tuple[dict[str, list[int]], list[LeftOut]]:
    """Row indices of each split that stay, and the rows that do not."""
    order = [*(name for name in ("test", "validation") if name in source)]
    order += [name for name in source if name not in order]
    labels = {name: split["label"][:] for name, split in source.items()}
    row_ids = {name: split["row_id"][:] for name, split in source.items()}
    class_names = next(iter(source.values())).features["label"].names
    seen: dict[str, list[tuple[str, int]]] = {}
    for name in order:
        for index, picture in enumerate(pictures[name]):
            seen.setdefault(picture.pixels, []).append((name, index))
    kept: dict[str, list[int]] = {name: [] for name in source}
    left_out = []
    for places in seen.values():
        first_name, first_index = places[0]
        given = sorted({class_names[labels[name][index]] for name, index in places})
        if pictures[first_name][first_index].is_constant:
            reason, out = "it has one colour only", places
        elif len(given) > 1:
            reason, out = f"equal pictures are labelled {' and '.join(given)}", places
        else:
            reason, out = f"the same picture is {row_ids[first_name][first_index]}", places[1:]
            kept[first_name].append(first_index)
        left_out += [LeftOut(row_ids[name][index], reason) for name, index in out]
    return {name: sorted(rows) for name, rows in kept.items()}, left_out
