"""CBAM-5CNN: five convolutional blocks, each followed by CBAM, and one dense layer on the flattened map.

CBAM: Woo et al., arXiv 1807.06521. The published description names batch norm and ReLU for the three-convolution blocks
and batch norm alone for the first two; that is kept: their non-linearity is CBAM's gates and the pooling. Four of the
five blocks pool, which leaves 3×3 at 48 pixels; the last one does not.
"""

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .configuration_cbam_5cnn import TOTAL_STRIDE, CBAM5CNNConfig
from .layers_attention import CBAM
from .modeling_fer import FerPreTrainedModel


class CBAMBlock(nn.Module):
    """(B, C_in, H, W) -> (B, C_out, H / 2, W / 2), or unpooled, and the two maps of its CBAM."""

    def __init__(
        self, in_channels: int, out_channels: int, depth: int, relu: bool, pool: bool, dropout: float, reduction: int
    ):
        super().__init__()
        layers = []
        for _ in range(depth):
            layers += [nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels)]
            layers += [nn.ReLU()] if relu else []
            in_channels = out_channels
        self.layers = nn.Sequential(*layers)
        self.attention = CBAM(out_channels, reduction)
        self.attended = nn.Identity()
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        x, maps = self.attention(self.layers(x))
        return self.dropout(self.pool(self.attended(x))), maps


class CBAM5CNNForImageClassification(FerPreTrainedModel):
    """(B, num_channels, image_size, image_size) -> logits (B, K)."""

    config_class = CBAM5CNNConfig
    _no_split_modules = ["CBAMBlock"]

    def __init__(self, config: CBAM5CNNConfig):
        super().__init__(config)
        widths = [config.num_channels, *config.hidden_sizes]
        self.blocks = nn.ModuleList(
            CBAMBlock(
                widths[index],
                widths[index + 1],
                depth=3 if index >= 2 else 1,
                relu=index >= 2,
                pool=index < 4,
                dropout=config.dropout if index == 0 else 0.0,
                reduction=config.attention_reduction,
            )
            for index in range(5)
        )
        self.attention_names = tuple(f"block{index}.{name}" for index in range(1, 6) for name in CBAM.map_names)
        self.head = nn.Sequential()
        self.classifier = nn.Linear(widths[-1] * (config.image_size // TOTAL_STRIDE) ** 2, config.num_labels)
        self.post_init()

    @property
    def cam_layer(self) -> nn.Module:
        """The attended map of the fourth block before its pooling: 6×6 at 48 pixels."""
        return self.blocks[3].attended

    def features(self, pixel_values: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        x, attentions, hidden_states = pixel_values, (), ()
        for block in self.blocks:
            x, maps = self.run(block, x)
            attentions += maps
            hidden_states += (x,)
        return hidden_states, attentions

    def pool(self, features: Tensor) -> Tensor:
        return features.flatten(1)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
