"""Where the cells of a feature map lie in the picture.

A 3×3 convolution with stride 2 and padding 1 centres its cell ``i`` on pixel ``2i``, not between the two pixels that
an enlargement by 2 would give it. After three of them a map that is simply stretched lies 3.5 pixels too far right and
too low. Arithmetic of receptive fields: Araujo et al., "Computing Receptive Fields of Convolutional Neural Networks",
Distill 2019.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class CellGrid:
    """Pixel index of the centre of a map's first cell, along either axis, and pixels from one cell to the next."""

    first_px: float
    step_px: float


def stretched(cells: int, size_px: int) -> CellGrid:
    """The grid of a map that fills the picture evenly, as pooling in 2×2 blocks makes it."""
    step_px = size_px / cells
    return CellGrid((step_px - 1) / 2, step_px)


def map_grids(model: nn.Module, pixel_values: Tensor) -> Callable[[str, int], CellGrid]:
    """What gives the grid of a model's map from its name and its cells a side, over square pictures.

    Each member of an ensemble has grids of its own: ``member2.spatial`` is the second's, and a map without a member in
    its name is read from the model's ``cam_layer``, as Grad-CAM is.
    """
    size_px, members = pixel_values.shape[-1], getattr(model, "members", None)
    if members is None:
        grids, of_cam = [cell_grids(model, pixel_values)], 0
    else:
        grids = [cell_grids(model, pixel_values, member, member.config.image_size) for member in members]
        layer = model.cam_layer
        of_cam = next(n for n, member in enumerate(members) if any(layer is module for module in member.modules()))

    def grid_of(name: str, cells: int) -> CellGrid:
        member = re.match(r"member(\d+)\.", name)
        return grids[int(member[1]) - 1 if member else of_cam].get(cells) or stretched(cells, size_px)

    return grid_of


@torch.no_grad()
def cell_grids(
    model: nn.Module, pixel_values: Tensor, part: nn.Module | None = None, part_px: int | None = None
) -> dict[int, CellGrid]:
    """The grid of every square map that convolutions and pooling make of square pictures, by cells a side.

    Follows kernel, stride and padding of each layer that makes maps smaller. Sizes that other means lead to, such as
    resizing in ``forward``, are missing: take ``stretched`` for them. With ``part`` only maps made in that part of the
    model count, which gets the pictures at ``part_px`` pixels a side.
    """
    size_px, part = pixel_values.shape[-1], model if part is None else part
    grids = {part_px or size_px: stretched(part_px or size_px, size_px)}

    def follow(layer: nn.Module, inputs: tuple, output: Tensor) -> None:
        before, after = inputs[0].shape[-1], output.shape[-1]
        if before in grids and after < before and after not in grids:
            kernel, stride, padding = (_one(getattr(layer, name)) for name in ("kernel_size", "stride", "padding"))
            kernel = (kernel - 1) * _one(getattr(layer, "dilation", 1)) + 1
            grid = grids[before]
            grids[after] = CellGrid(grid.first_px + ((kernel - 1) / 2 - padding) * grid.step_px, grid.step_px * stride)

    shrinking = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
    hooks = [layer.register_forward_hook(follow) for layer in part.modules() if isinstance(layer, shrinking)]
    try:
        model(pixel_values)
    finally:
        for hook in hooks:
            hook.remove()
    return grids


def _one(value: int | tuple[int, ...]) -> int:
    return value if isinstance(value, int) else value[0]


def place(maps: Tensor, grid: CellGrid, size_px: int) -> Tensor:
    """Maps (B, h, w) over the picture, (B, size_px, size_px): bilinear between the centres of cells, edges repeated."""
    height, width = maps.shape[1:]
    pixels = torch.arange(size_px, device=maps.device, dtype=torch.float32)
    cells = (pixels - grid.first_px) / grid.step_px
    x, y = ((2 * cells + 1) / count - 1 for count in (width, height))  # as grid_sample counts: -1 to 1 over all cells
    points = torch.stack([x[None, :].expand(size_px, -1), y[:, None].expand(-1, size_px)], dim=-1)
    points = points.expand(len(maps), -1, -1, -1)
    return F.grid_sample(maps[:, None].float(), points, padding_mode="border", align_corners=False)[:, 0]
