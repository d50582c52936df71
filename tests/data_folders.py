"""Small data sets on disk, made when asked for: FER2013 files, class folders, lists, tables."""

import io
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

from fer_hf.labels import FER7

VOTES_HEADER = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\n"

FEATURES = datasets.Features(
    image=datasets.Image(), label=datasets.ClassLabel(names=list(FER7)), row_id=datasets.Value("string")
)
"""What every source reads into, where it knows neither subjects nor votes."""


def names(split: datasets.Dataset) -> list[str]:
    """The class names of a split's rows."""
    return [split.features["label"].names[label] for label in split["label"]]


def grey(image: Image.Image) -> np.ndarray:
    """Grey values that can be subtracted."""
    return np.asarray(image.convert("L"), dtype=np.int64)


def picture(seed: int, side_px: int = 48, colour: bool = False) -> Image.Image:
    """A smooth random picture, grey or RGB: unlike any of another seed, and alike after JPEG."""
    shape = (6, 6, 3) if colour else (6, 6)
    noise = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(noise).resize((side_px, side_px), Image.Resampling.BICUBIC)


def png(seed: int, **kwargs) -> bytes:
    """The bytes of ``picture`` as PNG."""
    buffer = io.BytesIO()
    picture(seed, **kwargs).save(buffer, "PNG")
    return buffer.getvalue()


def pixel_text(seed: int) -> str:
    """The pixels of ``picture`` as FER2013 writes them."""
    return " ".join(map(str, np.asarray(picture(seed)).ravel()))


def fer_csv(path: Path, rows: list[tuple[int, str, str]], header: str = "emotion,pixels,Usage") -> Path:
    """A CSV of (emotion, pixels, Usage) rows."""
    path.write_text("\n".join([header, *(f"{emotion},{pixels},{usage}" for emotion, pixels, usage in rows)]) + "\n")
    return path


def write_files(root: Path, files: dict[str, bytes]) -> Path:
    """A folder with these files."""
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def class_folders(root: Path, counts: dict[str, int], start_seed: int = 0) -> Path:
    """A folder of PNG pictures, each unlike the others: ``counts`` are pictures by folder."""
    seed = start_seed
    for folder, count in counts.items():
        for index in range(count):
            write_files(root, {f"{folder}/{index:03d}.png": png(seed)})
            seed += 1
    return root
