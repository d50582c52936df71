"""Cells of feature maps lie where the layers put them."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fer_hf.map_geometry import CellGrid, cell_grids, map_grids, place, stretched


class SideBySide(nn.Module):
    """A residual stage: two paths that make the same smaller map."""

    def __init__(self):
        super().__init__()
        self.main, self.shortcut = nn.Conv2d(1, 1, 3, 2, 1), nn.Conv2d(1, 1, 1, 2)

    def forward(self, x):
        return self.main(x) + self.shortcut(x)


@pytest.mark.parametrize(
    ("layers", "cells", "grid"),
    [
        ((nn.MaxPool2d(2), nn.AvgPool2d(2)), 12, stretched(12, 48)),
        ((nn.Conv2d(1, 1, 3, 2, 1), nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 5, 2, 2)), 12, CellGrid(0, 4)),
        ((nn.Conv2d(1, 1, 7, 2, 3), nn.MaxPool2d(3, 2, 1)), 12, CellGrid(0, 4)),
        ((SideBySide(), nn.MaxPool2d(2)), 12, CellGrid(1, 4)),
        ((nn.Conv2d(1, 1, 4, 4),), 12, stretched(12, 48)),
        ((nn.Conv2d(1, 1, 3, dilation=2),), 44, CellGrid(2, 1)),
    ],
)
def test_grids_follow_kernel_stride_and_padding(layers, cells, grid):
    network = nn.Sequential(*layers)
    assert cell_grids(network, torch.zeros(1, 1, 48, 48))[cells] == grid
    assert not any(module._forward_hooks for module in network.modules())


class Pair(nn.Module):
    """Two members of unlike geometry, the second smaller than the whole, with the map of Grad-CAM in the second."""

    def __init__(self):
        super().__init__()
        self.members = nn.ModuleList([nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1)), nn.Sequential(nn.MaxPool2d(2))])
        for member, size in zip(self.members, (48, 24), strict=True):
            member.config = SimpleNamespace(image_size=size)
        self.cam_layer = self.members[1][0]

    def forward(self, x):
        return self.members[0](x), self.members[1](nn.functional.avg_pool2d(x, 2))


def test_maps_of_an_ensemble_lie_where_their_own_member_put_them():
    grid_of = map_grids(Pair(), torch.zeros(1, 1, 48, 48))
    assert grid_of("member1.spatial", 24) == CellGrid(0, 2)
    assert grid_of("member2.spatial", 12) == stretched(12, 48)
    assert grid_of("grad_cam", 12) == stretched(12, 48)
    assert grid_of("grad_cam", 24) == stretched(24, 48)  # the second member's own pixels


def test_a_stretched_map_is_the_usual_bilinear_enlargement():
    maps = torch.rand(2, 6, 6, generator=torch.Generator().manual_seed(0))
    usual = nn.functional.interpolate(maps[:, None], (48, 48), mode="bilinear", align_corners=False)[:, 0]
    assert torch.allclose(place(maps, stretched(6, 48), 48), usual, atol=1e-6)


def test_the_place_found_is_where_the_network_looks():
    """Three 3×3 convolutions of stride 2: the map of one bright pixel peaks on that pixel, not beside it."""
    network = nn.Sequential(*(nn.Conv2d(1, 1, 3, 2, 1, bias=False) for _ in range(3)))
    for layer in network:
        nn.init.constant_(layer.weight, 1 / 9)
    picture = torch.zeros(1, 1, 48, 48)
    picture[..., 16, 32] = 1
    with torch.no_grad():
        coarse = network(picture)[:, 0]
    for grid, expected in ((cell_grids(network, picture)[6], (16, 32)), (stretched(6, 48), (19, 35))):
        peak = place(coarse, grid, 48)[0]
        where = (peak == peak.max()).nonzero().float().mean(0)
        assert where.tolist() == pytest.approx(expected, abs=0.5)
