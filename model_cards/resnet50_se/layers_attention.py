"""Attention blocks that hand out their maps beside their output.

Squeeze-and-excitation: Hu et al., arXiv 1709.01507. CBAM: Woo et al., arXiv 1807.06521, with sigmoid gates, channel
attention before spatial attention, and no batch norm in the spatial branch.
"""

import torch
from torch import Tensor, nn

ATTENTION_KINDS = ("none", "se", "cbam")


class SqueezeExcite(nn.Module):
    """Scales channels by a gate computed from their global averages: (B, C, H, W) -> same, (gate (B, C, 1, 1),)."""

    map_names = ("se",)

    def __init__(self, channels: int, reduction: int = 16, activation: type[nn.Module] = nn.ReLU):
        super().__init__()
        squeezed = max(channels // reduction, 4)
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.activation = activation()
        self.expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        gate = self.expand(self.activation(self.reduce(x.mean((2, 3), keepdim=True)))).sigmoid()
        return x * gate, (gate,)


class CBAM(nn.Module):
    """Channel gate, then spatial map: (B, C, H, W) -> same, (gate (B, C, 1, 1), map (B, 1, H, W))."""

    map_names = ("cbam.channel", "cbam.spatial")

    def __init__(self, channels: int, reduction: int = 16, kernel_size: int = 7):
        super().__init__()
        squeezed = max(channels // reduction, 4)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, squeezed, 1, bias=False), nn.ReLU(), nn.Conv2d(squeezed, channels, 1, bias=False)
        )
        self.spatial = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        gate = (self.mlp(x.mean((2, 3), keepdim=True)) + self.mlp(x.amax((2, 3), keepdim=True))).sigmoid()
        x = x * gate
        summary = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        spatial = self.spatial(summary).sigmoid()
        return x * spatial, (gate, spatial)


class NoAttention(nn.Module):
    """Passes its input through and has no maps."""

    map_names = ()

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return x, ()


def attention_block(kind: str, channels: int, reduction: int) -> nn.Module:
    """The block that a config's ``attention`` field names: none, se or cbam."""
    if kind == "none":
        return NoAttention()
    if kind == "se":
        return SqueezeExcite(channels, reduction)
    if kind == "cbam":
        return CBAM(channels, reduction)
    raise ValueError(f"unknown attention {kind!r}; choose one of {', '.join(ATTENTION_KINDS)}")
