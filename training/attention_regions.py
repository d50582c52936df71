"""Where a map looks and whether the answer depends on it: regions of the face, deletion and insertion.

Deletion and insertion: Petsiuk et al., "RISE", arXiv 1806.07421; a deleted pixel becomes that of the blurred picture.
"""

import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fer_hf.attention import attention_maps, grad_cam
from fer_hf.data.transforms import gaussian_blur
from fer_hf.models.layers_attention import SqueezeExcite
from fer_hf.models.modeling_fer import FerPreTrainedModel

STEPS = 16
_LEAST_CELLS = 3  # maps with fewer cells a side say nothing about parts of a face
_BLUR_SHARE = 0.1  # standard deviation of the blur, of the side: no feature of a face is left


def region_masks(template: Sequence[Sequence[float]], size_px: int) -> dict[str, np.ndarray]:
    """Boxes (size_px, size_px) bool over ``brows``, ``eyes`` and ``mouth``, from the five points of a face template.

    Sizes are shares of the distance between the eyes; the boxes do not overlap.
    """
    left, right, _, mouth_left, mouth_right = np.asarray(template, dtype=np.float64)
    distance = float(np.hypot(*(right - left)))
    eye_line, mouth_line = (left[1] + right[1]) / 2, (mouth_left[1] + mouth_right[1]) / 2
    eyes_x = (min(left[0], right[0]) - 0.35 * distance, max(left[0], right[0]) + 0.35 * distance)
    mouth_x = (min(mouth_left[0], mouth_right[0]) - 0.2 * distance, max(mouth_left[0], mouth_right[0]) + 0.2 * distance)
    boxes = {
        "brows": (*eyes_x, eye_line - 0.6 * distance, eye_line - 0.22 * distance),
        "eyes": (*eyes_x, eye_line - 0.22 * distance, eye_line + 0.25 * distance),
        "mouth": (*mouth_x, mouth_line - 0.3 * distance, mouth_line + 0.35 * distance),
    }
    centres = (np.arange(size_px) + 0.5) / size_px
    x, y = centres[None, :], centres[:, None]
    return {name: (x0 <= x) & (x < x1) & (y0 <= y) & (y < y1) for name, (x0, x1, y0, y1) in boxes.items()}


def saliency_maps(model: FerPreTrainedModel, pixel_values: Tensor) -> dict[str, tuple[Tensor, str]]:
    """Every map of a batch by name, each (B, h, w) at its own resolution, with its place in the model.

    ``Grad-CAM`` for the most probable class; ``CBAM``, the last spatial map that has a few cells; ``SE``, the mean size
    of the features that the last squeeze-and-excitation gates let through, as its gates themselves have no place. The
    place is what ``map_grids`` reads the member of an ensemble from.
    """
    pixel_values = pixel_values.to(model.dtype)
    maps = {"Grad-CAM": (grad_cam(model, pixel_values), "")}
    spatial = [(found, name) for name, found in attention_maps(model, pixel_values).items() if found.ndim == 3]
    for kind, found in (("CBAM", spatial), ("SE", _gated_features(model, pixel_values))):
        fine = [(values, place) for values, place in found if values.shape[-1] >= _LEAST_CELLS]
        if fine:
            maps[kind] = fine[-1]
    return maps


@torch.no_grad()
def _gated_features(model: nn.Module, pixel_values: Tensor) -> list[tuple[Tensor, str]]:
    """Mean size of what each squeeze-and-excitation gate lets through, in network order, with the gate's name."""
    kept: list[tuple[Tensor, str]] = []
    hooks = []
    for path, module in model.named_modules():
        if isinstance(module, SqueezeExcite):
            name = re.sub(r"^members\.(\d+)", lambda found: f"member{int(found[1]) + 1}", path)
            hooks.append(
                module.register_forward_hook(lambda _, __, out, name=name: kept.append((out[0].abs().mean(1), name)))
            )
    try:
        model(pixel_values)
    finally:
        for hook in hooks:
            hook.remove()
    return kept


def random_maps(count: int, cells: int, seed: int) -> Tensor:
    """(count, cells, cells) of noise, as coarse as the maps it is compared with."""
    return torch.rand(count, cells, cells, generator=torch.Generator().manual_seed(seed))


def region_shares(maps: Tensor, masks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Share of each map (B, H, W) of non-negative values on each region, (B,); NaN where a map is all 0."""
    total = maps.sum((1, 2))
    shares = {
        name: (maps * torch.from_numpy(mask).to(maps)).sum((1, 2)) / total.where(total > 0, torch.nan)
        for name, mask in masks.items()
    }
    return {name: share.cpu().numpy().astype(np.float64) for name, share in shares.items()}


@torch.inference_mode()
def deletion_insertion(
    model: FerPreTrainedModel, pixel_values: Tensor, maps: Tensor, steps: int = STEPS
) -> tuple[np.ndarray, np.ndarray]:
    """Areas (B,), (B,) under the probability of the model's own answer, over the share of pixels changed, in [0, 1].

    Deletion blurs the pixels with the highest values of ``maps`` (B, H, W) first: low where the map finds what the
    answer rests on. Insertion starts from the blurred picture and restores them first: high there.
    """
    batch, side = len(pixel_values), pixel_values.shape[-1]
    blurred = gaussian_blur(pixel_values, torch.full((batch,), _BLUR_SHARE * side, device=pixel_values.device))
    rank = torch.empty_like(maps.flatten(1), dtype=torch.long)
    order = maps.flatten(1).argsort(dim=1, descending=True, stable=True)
    rank.scatter_(1, order, torch.arange(side * side, device=maps.device).expand(batch, -1))
    rank = rank.view(batch, 1, side, side)
    dtype = next(model.parameters(), pixel_values).dtype

    def probabilities(pixels: Tensor) -> Tensor:
        return model(pixels.to(dtype)).logits.float().softmax(1)

    answer = probabilities(pixel_values).argmax(1, keepdim=True)
    curves: tuple[list[Tensor], list[Tensor]] = ([], [])
    for step in range(steps + 1):
        changed = rank < round(step / steps * side * side)
        for curve, (inside, outside) in zip(curves, ((blurred, pixel_values), (pixel_values, blurred)), strict=True):
            curve.append(probabilities(torch.where(changed, inside, outside)).gather(1, answer)[:, 0])
    areas = [torch.trapezoid(torch.stack(curve), dx=1 / steps, dim=0).cpu().double().numpy() for curve in curves]
    return areas[0], areas[1]
