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
    took an H200 61 ms with it and 38 ms without. Nor for what crashes in it on a CPU.
    """
    avoids_it = {"cuda": is_depthwise, "cpu": _reads_beyond_its_input}.get(device.type)
    contiguous = avoids_it and any(map(avoids_it, model.modules()))
    return torch.contiguous_format if contiguous else torch.channels_last


def _reads_beyond_its_input(module: nn.Module) -> bool:
    """Whether a convolution is strided and 1×1 over a number of channels that 16 does not divide.

    With channels last, oneDNN's backward pass of one ended the process on a CPU with AVX512 (torch 2.14.1, 8 and 12
    channels at 48×48, fp32).
    """
    if not isinstance(module, nn.Conv2d):
        return False
    return module.kernel_size == (1, 1) and module.stride != (1, 1) and module.in_channels % 16 != 0


def pick_precision(wanted: str, device: torch.device) -> str:
    """``bf16`` or ``no`` as accelerate names them; ``auto`` takes bf16 where the hardware makes it faster."""
    if wanted != "auto":
        return "bf16" if wanted == "bf16" else "no"
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "no"
    fast = device.type == "cpu" and torch.cpu.get_capabilities().get("avx512_bf16", False)
    return "bf16" if fast else "no"
