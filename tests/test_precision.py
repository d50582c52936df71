"""What computes in bf16 on a CPU and what stays in fp32."""

import copy

import torch
from torch import nn

from training.precision import keep_depthwise_fp32, layout, pick_precision


class Recorder:
    """Remembers the type that each convolution answers with."""

    def __init__(self, model: nn.Module):
        self.types: list[torch.dtype] = []
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(lambda _, __, output: self.types.append(output.dtype))


def separable() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 2, 1))


def test_depthwise_convolutions_keep_fp32_exactness_inside_bf16():
    model, x = separable(), torch.randn(2, 4, 6, 6)
    kept = keep_depthwise_fp32(copy.deepcopy(model), torch.device("cpu"))
    recorder = Recorder(kept)
    with torch.autocast("cpu", torch.bfloat16):
        middle = kept[0](x)
        depthwise = kept[1](middle)
        kept[2](depthwise)
    assert recorder.types == [torch.bfloat16] * 3  # what follows still gets the small type
    exact = model[1](middle.float())
    assert torch.equal(depthwise, exact.to(torch.bfloat16))  # summed in fp32, rounded once


def test_copies_follow_and_nothing_changes_without_autocast():
    model, x = separable(), torch.randn(2, 4, 6, 6)
    kept = keep_depthwise_fp32(copy.deepcopy(model), torch.device("cpu"))
    again = copy.deepcopy(kept)
    assert type(again[1]) is type(kept[1]) is not nn.Conv2d
    assert type(kept[0]) is nn.Conv2d  # one filter for all channels
    assert torch.equal(again(x), model(x))
    assert kept.state_dict().keys() == model.state_dict().keys()


def test_other_devices_are_left_alone():
    assert type(keep_depthwise_fp32(separable(), torch.device("meta"))[1]) is nn.Conv2d


def test_precision_is_what_the_recipe_says_and_what_the_cpu_can(monkeypatch):
    cpu = torch.device("cpu")
    assert (pick_precision("bf16", cpu), pick_precision("fp32", cpu)) == ("bf16", "no")
    for able, expected in ((True, "bf16"), (False, "no")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: {"avx512_bf16": able})
        assert pick_precision("auto", cpu) == expected


def test_depthwise_networks_keep_plain_order_on_a_gpu_alone():
    plain, gpu, cpu = nn.Sequential(nn.Conv2d(4, 8, 3)), torch.device("cuda"), torch.device("cpu")
    assert layout(separable(), gpu) == torch.contiguous_format
    assert layout(separable(), cpu) == layout(plain, gpu) == layout(plain, cpu) == torch.channels_last


def test_what_crashes_in_channels_last_on_a_cpu_keeps_plain_order_there():
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    strided = {channels: nn.Sequential(nn.Conv2d(channels, 8, 1, stride=2)) for channels in (8, 12, 16)}
    assert [layout(strided[channels], cpu) for channels in (8, 12)] == [torch.contiguous_format] * 2
    assert layout(strided[16], cpu) == layout(strided[8], gpu) == torch.channels_last
    assert layout(nn.Sequential(nn.Conv2d(8, 8, 1)), cpu) == torch.channels_last
