"""Where the cells of a feature map lie in the picture.

A 3×3 convolution with stride 2 and padding 1 centres its cell ``i`` on pixel ``2i``, not between the two pixels that
an enlargement by 2 would give it. After three of them a map that is simply stretched lies 3.5 pixels too far right and
too low. Arithmetic of receptive fields: Araujo et al., "Computing Receptive Fields of Convolutional Neural Networks",
Distill 2019.
"""

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


@torch.no_grad()
def cell_grids(model: nn.Module, pixel_values: Tensor) -> dict[int, CellGrid]:
    """The grid of every square map that convolutions and pooling make of square pictures, by cells a side.

    Follows kernel, stride and padding of each layer that makes maps smaller. Sizes that other means lead to, such as
    resizing in ``forward``, are missing: take ``stretched`` for them.
    """
    grids = {pixel_values.shape[-1]: CellGrid(0.0, 1.0)}

    def follow(layer: nn.Module, inputs: tuple, output: Tensor) -> None:
        before, after = inputs[0].shape[-1], output.shape[-1]
        if before in grids and after < before and after not in grids:
            kernel, stride, padding = (_one(getattr(layer, name)) for name in ("kernel_size", "stride", "padding"))
            kernel = (kernel - 1) * _one(getattr(layer, "dilation", 1)) + 1
            grid = grids[before]
            grids[after] = CellGrid(grid.first_px + ((kernel - 1) / 2 - padding) * grid.step_px, grid.step_px * stride)

    shrinking = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
    hooks = [layer.register_forward_hook(follow) for layer in model.modules() if isinstance(layer, shrinking)]
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
