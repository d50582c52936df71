"""A split ready for a model: uint8 pictures and target distributions.

``ArraySplit`` is decoded once and stays on the training device; ``LazySplit`` decodes each batch when it is asked for,
for data larger than that. Both deal in row numbers, ``fetch`` and target distributions.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fer_hf.data.ferplus import VOTES_PER_ROW, labels_given_votes, majority_labels, soft_labels

LABEL_KINDS = ("fer2013", "fer2013-votes", "ferplus-majority", "ferplus-soft", "dataset")
"""What is learned or scored: the source's own label (fer2013 and dataset), that label and in equal parts what the FER+
votes say of it (fer2013-votes, learned only), FER+ majority or vote distribution (ferplus-soft, learned only)."""
SCORED_BY = {"fer2013-votes": "fer2013", "ferplus-soft": "ferplus-majority"}
"""The labels that judge what learned from distributions."""


@dataclass(frozen=True)
class ArraySplit:
    """One split, row by row.

    Shapes:
        images: (N, C, H, W) uint8, as ``FerImageProcessor.to_uint8`` makes them.
        targets: (N, K) float32 distributions in the model's class order.
        row_ids: N stable names, such as ``train/000123``.
        votes: (N, 10) FER+ votes, or None.
        pixel_sha256: N hashes of the source pictures' grey pixels, by which rows are equal.
    """

    images: Tensor
    targets: Tensor
    row_ids: tuple[str, ...]
    votes: np.ndarray | None
    pixel_sha256: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labels(self) -> Tensor:
        """(N,) most likely class of each target."""
        return self.targets.argmax(1)

    @property
    def batched(self) -> range:
        """What a DataLoader draws from: row numbers, since the pictures are where they are needed."""
        return range(len(self))

    def fetch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (B, C, H, W) uint8 and targets (B, K) of a drawn batch, on the split's device."""
        rows = rows.to(self.images.device)
        return self.images[rows], self.targets[rows]

    def select(self, rows: np.ndarray) -> "ArraySplit":
        """The rows at these indices, in this order."""
        rows = np.asarray(rows)
        at = torch.from_numpy(rows)
        return ArraySplit(
            self.images[at],
            self.targets[at],
            tuple(self.row_ids[i] for i in rows),
            None if self.votes is None else self.votes[rows],
            tuple(self.pixel_sha256[i] for i in rows),
        )

    @classmethod
    def concatenate(cls, splits: Sequence["ArraySplit"]) -> "ArraySplit":
        """The rows of several splits, one after another; votes only where all have them."""
        have_votes = all(split.votes is not None for split in splits)
        return cls(
            torch.cat([split.images for split in splits]),
            torch.cat([split.targets for split in splits]),
            tuple(row_id for split in splits for row_id in split.row_ids),
            np.concatenate([split.votes for split in splits]) if have_votes else None,
            tuple(sha256 for split in splits for sha256 in split.pixel_sha256),
        )

    def to(self, device: torch.device) -> "ArraySplit":
        """The same split with pictures and targets on ``device``."""
        return replace(self, images=self.images.to(device), targets=self.targets.to(device))

    def sha256(self) -> str:
        """Hash of pictures and targets in order: two splits are the same data exactly when it is equal."""
        digest = hashlib.sha256(self.images.cpu().numpy().tobytes())
        digest.update(self.targets.cpu().numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class LazySplit:
    """A split whose pictures stay encoded in the Arrow file on disk until their batch is drawn.

    Shapes as in ArraySplit; ``batched`` yields (C, H, W) uint8 with its target, which a DataLoader's workers decode.
    """

    source: object  # a datasets.Dataset, in row order
    processor: object  # a FerImageProcessor
    targets: Tensor
    device: torch.device | str = "cpu"

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return self.processor.to_uint8(self.source[row]["image"]), self.targets[row]

    @property
    def labels(self) -> Tensor:
        return self.targets.argmax(1)

    @property
    def row_ids(self) -> tuple[str, ...]:
        return tuple(self.source["row_id"])

    @property
    def pixel_sha256(self) -> tuple[str, ...]:
        """As in ArraySplit, where the source has a column of them."""
        return tuple(self.source["pixel_sha256"])

    def sha256(self) -> None:
        """Unknown: it would take every picture in the size that the network sees."""

    @property
    def batched(self) -> "LazySplit":
        return self

    def fetch(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        images, targets = batch
        return images.to(self.device, non_blocking=True), targets.to(self.device, non_blocking=True)

    def select(self, rows: np.ndarray) -> "LazySplit":
        return replace(self, source=self.source.select(rows), targets=self.targets[torch.from_numpy(np.asarray(rows))])

    def to(self, device: torch.device) -> "LazySplit":
        return replace(self, device=device)  # targets stay where the workers of a DataLoader can read them


def pixel_sha256(image: Image.Image) -> str:
    """Hash of a picture's size and grey pixels: equal exactly where the pictures are."""
    return hashlib.sha256(repr(image.size).encode() + image.convert("L").tobytes()).hexdigest()


def rows_without(split, other) -> np.ndarray:
    """Indices of the rows of ``split`` whose picture does not occur in ``other``, whatever the labels."""
    known = {pixel_sha256(image) for image in other["image"]}
    return np.array([i for i, image in enumerate(split["image"]) if pixel_sha256(image) not in known], dtype=np.int64)


def load_lazy(split, processor, *, labels: str, names: tuple[str, ...]) -> LazySplit:
    """A ``datasets.Dataset`` split that is decoded batch by batch; arguments and errors as for ``load_arrays``."""
    targets, rows = _targets(split, labels, names)
    return LazySplit(split.select(rows), processor, torch.from_numpy(targets[rows]))


def load_arrays(split, processor, *, labels: str, names: tuple[str, ...]) -> ArraySplit:
    """Decode a ``datasets.Dataset`` split through the image processor.

    Args:
        split: has ``image`` and ``label``, and ``votes`` where FER+ labels are asked for.
        processor: a FerImageProcessor; sets size and channels.
        labels: one of LABEL_KINDS; rows that it does not cover (no FER+ majority) are left out.
        names: the model's classes in order; rows of other classes are an error.

    Raises ValueError where the labels asked for are not in the data.
    """
    targets, rows = _targets(split, labels, names)
    split = split.select(rows)
    images = torch.empty(len(rows), processor.num_channels, processor.size_px, processor.size_px, dtype=torch.uint8)
    hashes = []
    for index, image in enumerate(split["image"]):
        images[index] = processor.to_uint8(image)
        hashes.append(pixel_sha256(image))
    return ArraySplit(
        images,
        torch.from_numpy(targets[rows]),
        tuple(split["row_id"]),
        _votes(split),
        tuple(hashes),
    )


def _targets(split, labels: str, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Distributions for every row (N, K), and the indices of the rows that count."""
    if labels not in LABEL_KINDS:
        raise ValueError(f"unknown labels {labels!r}; choose one of {', '.join(LABEL_KINDS)}")
    if labels.startswith("ferplus") or labels == "fer2013-votes":
        votes = _votes(split)
        if votes is None:
            raise ValueError(f"labels={labels} needs FER+ votes, and this data has none; give fer2013new.csv as votes")
    if labels.startswith("ferplus"):
        if labels == "ferplus-soft":
            distributions, counts = soft_labels(votes, names)
            return distributions.astype(np.float32), np.flatnonzero(counts)
        indices = majority_labels(votes, names)
    else:
        known = split.features["label"].names
        missing = sorted(set(known) - set(names))
        if missing:
            raise ValueError(
                f"the data has classes the model lacks: {', '.join(missing)}; the model has {', '.join(names)}"
            )
        to_model = np.array([names.index(name) for name in known])
        indices = to_model[np.array(split["label"], dtype=np.int64)]
    distributions = np.eye(len(names), dtype=np.float32)[np.maximum(indices, 0)]
    if labels == "fer2013-votes":
        distributions = (distributions + labels_given_votes(votes, indices, len(names))) / 2
    return distributions, np.flatnonzero(indices >= 0)


def _votes(split) -> np.ndarray | None:
    """FER+ votes (N, 10), ten zeros for a row without any; None where no row has votes."""
    written = split["votes"][:] if "votes" in split.column_names else []
    if all(votes is None for votes in written):
        return None
    return np.array([[0] * VOTES_PER_ROW if votes is None else votes for votes in written], dtype=np.int64)
