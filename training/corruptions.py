"""What photographs do to faces, in known strengths: each corruption maps a uint8 batch to another.

Lengths are in pixels of a 48-pixel crop and grow with larger inputs, so that strengths mean the same for every model.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from fer_hf.data.transforms import gaussian_blur, jpeg, low_resolution
from training.views import View

REFERENCE_SIDE_PX = 48
ROWS_AT_ONCE = 1024  # what is corrupted as float32 at a time: a whole split may not fit in memory


@dataclass(frozen=True)
class Corruption:
    """One thing done to pictures (B, C, H, W) float in [0, 255], at several strengths, mildest first.

    ``apply(images, strength, template)`` may use the face template, (5, 2) normalised to the crop.
    """

    name: str
    unit: str
    strengths: tuple[float, ...]
    apply: Callable[[Tensor, float, Sequence[Sequence[float]]], Tensor]
    needs_template: bool = False

    def __call__(self, images: Tensor, strength: float, template: Sequence[Sequence[float]] | None) -> Tensor:
        """The corrupted pictures, uint8 like the given ones."""
        parts = [self.apply(batch.float(), strength, template) for batch in images.split(ROWS_AT_ONCE)]
        return torch.cat([part.round().clamp(0, 255).to(torch.uint8) for part in parts])


def _pixels(images: Tensor) -> float:
    return images.shape[-1] / REFERENCE_SIDE_PX


def _filled(images: Tensor, value: float) -> Tensor:
    return torch.full((len(images),), value)


def blur(images: Tensor, sigma: float, _template) -> Tensor:
    """Gaussian blur with ``sigma`` pixels."""
    return gaussian_blur(images, _filled(images, sigma * _pixels(images)))


def noise(images: Tensor, sigma: float, _template) -> Tensor:
    """Grey noise with a standard deviation of ``sigma`` of 255, the same for batches of equal shape."""
    generator = Generator().manual_seed(0)
    return images + sigma * torch.empty(len(images), 1, *images.shape[2:]).normal_(generator=generator)


def darken(images: Tensor, factor: float, _template) -> Tensor:
    """Every pixel times ``factor``."""
    return images * factor


def flatten_contrast(images: Tensor, factor: float, _template) -> Tensor:
    """Distance from the picture's mean times ``factor``."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + factor * (images - mean)


def rotate(images: Tensor, degrees: float, _template) -> Tensor:
    """Turned about the centre, edges repeated."""
    return View(rotate=degrees)(images)


def compress(images: Tensor, quality: float, _template) -> Tensor:
    """As JPEG at a quality from 1 to 100 leaves it."""
    return jpeg(images, _filled(images, quality))


def shrink(images: Tensor, side: float, _template) -> Tensor:
    """As if the face had been ``side`` pixels wide in the photo."""
    return low_resolution(images, side / REFERENCE_SIDE_PX)


def cover_eyes(images: Tensor, height: float, template: Sequence[Sequence[float]]) -> Tensor:
    """A grey bar over both eyes, ``height`` of the side high and wide enough for both."""
    (x0, y0), (x1, y1) = template[0], template[1]
    return _bar(images, min(x0, x1) - 0.16, max(x0, x1) + 0.16, (y0 + y1) / 2, height)


def cover_mouth(images: Tensor, height: float, template: Sequence[Sequence[float]]) -> Tensor:
    """A grey bar over the mouth, ``height`` of the side high, a little wider than the mouth."""
    (x0, y0), (x1, y1) = template[3], template[4]
    return _bar(images, min(x0, x1) - 0.1, max(x0, x1) + 0.1, (y0 + y1) / 2, height)


def _bar(images: Tensor, left: float, right: float, middle: float, height: float) -> Tensor:
    side = images.shape[-1]
    columns = slice(max(math.floor(left * side), 0), min(math.ceil(right * side), side))
    rows = slice(max(round((middle - height / 2) * side), 0), min(round((middle + height / 2) * side), side))
    covered = images.clone()
    covered[:, :, rows, columns] = images.mean((2, 3), keepdim=True)
    return covered


CORRUPTIONS = (
    Corruption("blur", "σ, px of 48", (0.5, 1.0, 1.5, 2.0), blur),
    Corruption("noise", "σ of 255", (5, 10, 20, 40), noise),
    Corruption("dark", "light left", (0.75, 0.5, 0.25, 0.1), darken),
    Corruption("contrast", "contrast left", (0.75, 0.5, 0.25, 0.1), flatten_contrast),
    Corruption("rotation", "degrees", (10, 20, 30, 45), rotate),
    Corruption("JPEG", "quality", (50, 30, 15, 5), compress),
    Corruption("face size", "px", (32, 24, 16, 12), shrink),
    Corruption("eyes covered", "height of the bar", (0.1, 0.2, 0.3), cover_eyes, needs_template=True),
    Corruption("mouth covered", "height of the bar", (0.1, 0.2, 0.3), cover_mouth, needs_template=True),
)
