"""Test-time augmentation: several views of each crop, over whose probabilities the mean is taken.

A view is written as steps joined by ``+``, views are joined by ``,``: ``id,flip,scale=0.9,rotate=5+flip``. Steps are
``id``, ``flip`` (mirror), ``scale=s`` (s < 1 looks closer), ``rotate=degrees``, ``x=`` and ``y=`` (shifts, as shares
of the side). ``flip``, ``five`` and ``ten`` alone name the usual sets.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_CROP = 0.9  # side of a corner crop: 43 of 48 pixels

BATCH = 64  # CPUs fault the memory of larger activations in anew at every layer: 256 took 13 s of CPU, 64 took 8


@dataclass(frozen=True)
class View:
    """Where one view looks: zoom, shift of its centre and rotation about it, then a mirror."""

    scale: float = 1.0
    x: float = 0.0
    y: float = 0.0
    rotate: float = 0.0
    flip: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        """The view of pictures (B, C, H, W) float, same shape; what lies outside repeats the edge."""
        if replace(self, flip=False) != View():
            angle = math.radians(self.rotate)
            cos, sin = self.scale * math.cos(angle), self.scale * math.sin(angle)
            # affine_grid's coordinates run from -1 to 1, so a shift of one side is 2.
            affine = images.new_tensor([[cos, -sin, 2 * self.x], [sin, cos, 2 * self.y]])
            grid = F.affine_grid(affine.expand(len(images), 2, 3), list(images.shape), align_corners=False)
            images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
        return images.flip(-1) if self.flip else images


def _corners() -> tuple[View, ...]:
    reach = (1 - _CROP) / 2
    return tuple(View(scale=_CROP, x=x, y=y) for y in (-reach, reach) for x in (-reach, reach))


_FIVE = (View(scale=_CROP), *_corners())
NAMED = {
    "flip": (View(), View(flip=True)),
    "five": _FIVE,
    "ten": (*_FIVE, *(replace(view, flip=True) for view in _FIVE)),
}


def parse_views(text: str) -> tuple[View, ...]:
    """The views that a name or a list of steps means.

    >>> parse_views("id,rotate=5+flip")[1]
    View(scale=1.0, x=0.0, y=0.0, rotate=5.0, flip=True)

    Raises ValueError for steps that do not exist.
    """
    return NAMED[text] if text in NAMED else tuple(_parse_view(view) for view in text.split(","))


def _parse_view(text: str) -> View:
    view = View()
    for step in text.split("+"):
        name, _, number = step.strip().partition("=")
        if name in ("id", "flip") and not number:
            view = replace(view, flip=view.flip != (name == "flip"))
            continue
        try:
            if name not in ("scale", "rotate", "x", "y"):
                raise ValueError(name)
            view = replace(view, **{name: float(number)})
        except ValueError:
            raise ValueError(
                f"{step!r} is no view; give {', '.join(NAMED)}, or steps such as id,flip,scale=0.9,rotate=5+flip"
            ) from None
    return view


@torch.inference_mode()
def predict_views(
    model: nn.Module,
    images: Tensor,
    normalize: Callable[[Tensor], Tensor],
    views: tuple[View, ...],
    *,
    batch_size: int = BATCH,
    answer: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """What ``answer`` says, (N, V, ...) float32 on the CPU, of every view of uint8 pictures (N, C, H, W).

    ``answer`` takes pixel values (B, C, H, W) in the model's dtype; None gives the model's raw logits, (N, V, K).
    """
    answer = answer or (lambda pixel_values: model(pixel_values).raw_logits)
    model.eval()
    weight = next(model.parameters())
    parts = []
    for batch in images.split(batch_size):
        pixels = normalize(batch.to(weight.device))
        parts.append(torch.stack([answer(view(pixels).to(weight.dtype)).float().cpu() for view in views], dim=1))
    return torch.cat(parts)
