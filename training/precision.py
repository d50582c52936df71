"""Which number format and memory layout a run computes in, and what stays in fp32 beside bf16."""

import torch
from torch import Tensor, nn


class Float32DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution that computes in fp32 under any autocast: CPUs run the bf16 one several times slower."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(self.weight.dtype)).to(x.dtype)


def is_depthwise(module: nn.Module) -> bool:
    """Whether a module is a plain convolution with one filter a channel."""
    return type(module) is nn.Conv2d and module.groups > 1 and module.groups == module.in_channels


def keep_depthwise_fp32(model: nn.Module, device: torch.device) -> nn.Module:
    """The model itself; on a CPU its depthwise convolutions stay in fp32 when autocast runs the others in bf16.

    The class of the layers changes rather than an attribute, so that copies of the model, such as averages, follow.
    """
    if device.type == "cpu":
        for module in filter(is_depthwise, model.modules()):
            module.__class__ = Float32DepthwiseConv2d
    return model


def layout(model: nn.Module, device: torch.device) -> torch.memory_format:
    """The order of a network's weights in memory that is faster there; its activations follow.

    Channels last, but not for depthwise convolutions on a GPU: a step of EfficientNet-B0 on 256 pictures of 64 pixels
    took an H200 61 ms with it and 38 ms without.
    """
    depthwise = device.type == "cuda" and any(map(is_depthwise, model.modules()))
    return torch.contiguous_format if depthwise else torch.channels_last


def pick_precision(wanted: str, device: torch.device) -> str:
    """``bf16`` or ``no`` as accelerate names them; ``auto`` takes bf16 where the hardware makes it faster."""
    if wanted != "auto":
        return "bf16" if wanted == "bf16" else "no"
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "no"
    fast = device.type == "cpu" and torch.cpu.get_capabilities().get("avx512_bf16", False)
    return "bf16" if fast else "no"
