"""ResNet-Swish: residual blocks with Swish, spatial dropout, batch norm after every convolution and dense layer.

Residual learning: He et al., arXiv 1512.03385 (basic block). Swish: Ramachandran et al., arXiv 1710.05941. Differs from
torchvision's ResNet in a 3×3 stem without pooling (faces have 48 pixels), the activation, spatial dropout between the
two convolutions, an optional gate on each residual branch, and a dense head with batch norm.
"""

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .configuration_resnet_swish import ResNetSwishConfig
from .layers_attention import attention_block
from .modeling_fer import FerPreTrainedModel, StochasticDepth


def conv_norm(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
    )


class ResidualBlock(nn.Module):
    """(B, C_in, H, W) -> (B, C_out, H / stride, W / stride) and the maps of its attention."""

    def __init__(self, config: ResNetSwishConfig, in_channels: int, out_channels: int, stride: int, drop_path: float):
        super().__init__()
        self.conv1 = conv_norm(in_channels, out_channels, 3, stride)
        self.spatial_dropout = nn.Dropout2d(config.spatial_dropout)
        self.conv2 = conv_norm(out_channels, out_channels, 3)
        self.attention = attention_block(config.attention, out_channels, config.attention_reduction)
        self.drop_path = StochasticDepth(drop_path)
        same = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if same else conv_norm(in_channels, out_channels, 1, stride)
        self.activation = nn.SiLU()
        self.output = nn.SiLU()

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        branch = self.conv2(self.spatial_dropout(self.activation(self.conv1(x))))
        branch, maps = self.attention(branch)
        return self.output(self.shortcut(x) + self.drop_path(branch)), maps


class ResNetSwishForImageClassification(FerPreTrainedModel):
    """(B, num_channels, image_size, image_size) -> logits (B, K)."""

    config_class = ResNetSwishConfig
    _no_split_modules = ["ResidualBlock"]

    def __init__(self, config: ResNetSwishConfig):
        super().__init__(config)
        width = config.hidden_sizes[0]
        self.stem = nn.Sequential(conv_norm(config.num_channels, width, 3, config.stem_stride), nn.SiLU())
        drop_paths = iter(torch.linspace(0, config.drop_path, sum(config.depths), device="cpu").tolist())
        self.stages = nn.ModuleList()
        names = []
        for stage, (out_width, depth) in enumerate(zip(config.hidden_sizes, config.depths, strict=True)):
            blocks = nn.ModuleList()
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(ResidualBlock(config, width, out_width, stride, next(drop_paths)))
                width = out_width
                names += [f"stage{stage + 1}.block{block + 1}.{name}" for name in blocks[-1].attention.map_names]
            self.stages.append(blocks)
        self.attention_names = tuple(names)
        head = []
        for size in config.classifier_hidden_sizes:
            head += [nn.Dropout(config.dropout), nn.Linear(width, size), nn.BatchNorm1d(size), nn.SiLU()]
            width = size
        self.head = nn.Sequential(*head, nn.Dropout(config.dropout))
        self.classifier = nn.Linear(width, config.num_labels)
        self.post_init()

    @property
    def cam_layer(self) -> nn.Module:
        """The end of the last stage, or of the one before where the last has fewer than 6×6 cells."""
        last_side = self.config.image_size // (self.config.stem_stride * 2 ** (len(self.stages) - 1))
        return self.stages[-1 if last_side >= 6 or len(self.stages) == 1 else -2][-1].output

    def features(self, pixel_values: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        x, attentions, hidden_states = self.stem(pixel_values), (), ()
        for blocks in self.stages:
            for block in blocks:
                x, maps = self.run(block, x)
                attentions += maps
            hidden_states += (x,)
        return hidden_states, attentions

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, ResidualBlock):
            # Each block starts as the identity (Goyal et al., arXiv 1706.02677, 5.1).
            init.zeros_(module.conv2[1].weight)
