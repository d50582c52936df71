"""How many faces a sample of the pictures shows."""

from collections import Counter

import datasets
import numpy as np
from datasets.utils import tqdm
from PIL import Image, ImageOps

from fer_hf.detection import FaceDetector

_CROP_PX = 128  # smaller pictures are taken for tight crops of a face, in which a detector sees little
_BORDER = 0.3  # of the picture's side, added around a crop
_ENLARGED_PX = 192


def faces_per_picture(
    source: datasets.DatasetDict, detector: FaceDetector, num_pictures: int, seed: int = 0
) -> tuple[Counter, list[tuple[str, int, int]]]:
    """How many of the sampled pictures show 0, 1, 2, … faces, and split, row and faces of those that do not show one.

    Small pictures are enlarged with a border, because detectors expect some surroundings.
    """
    places = [(name, row) for name, split in source.items() for row in range(len(split))]
    chosen = np.random.default_rng(seed).permutation(len(places))[:num_pictures]
    counts, others = Counter(), []
    for index in tqdm(sorted(chosen), unit=" pictures", desc="Finding faces"):
        name, row = places[index]
        number = len(detector.detect(_with_surroundings(source[name][row]["image"].convert("RGB"))).faces)
        counts[number] += 1
        if number != 1:
            others.append((name, row, number))
    return counts, others


def _with_surroundings(image: Image.Image) -> Image.Image:
    if max(image.size) >= _CROP_PX:
        return image
    image = ImageOps.expand(
        image, round(_BORDER * max(image.size)), fill=tuple(np.asarray(image).mean((0, 1)).astype(int))
    )
    scale = _ENLARGED_PX / max(image.size)
    return image.resize([round(scale * side) for side in image.size], Image.Resampling.BICUBIC)
