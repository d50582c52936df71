"""What is wrong with a dataset before it trains: copies, leaks between splits, conflicts, constant pictures."""

import hashlib

import datasets
import numpy as np


def pixel_hashes(split: datasets.Dataset) -> np.ndarray:
    """A 16-byte digest ``(N,)`` of each picture's RGB pixels and size: equal where the pixels are equal."""
    digests = []
    for image in split["image"]:
        rgb = image.convert("RGB")
        digests.append(hashlib.blake2b(rgb.tobytes(), digest_size=16, salt=b"%dx%d" % rgb.size).digest())
    return np.array(digests, dtype="S16")


def leaking_rows(train: datasets.Dataset, validation: datasets.Dataset) -> np.ndarray:
    """Indices ``(M,)`` of the rows of ``train`` whose pixels equal those of a row of ``validation``, ascending."""
    return np.flatnonzero(np.isin(pixel_hashes(train), pixel_hashes(validation)))
