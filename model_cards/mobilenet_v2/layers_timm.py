"""Backbones from timm: built, probed for what they give, and run with gates inside their residual blocks."""

import difflib
from collections.abc import Callable
from copy import deepcopy
from functools import partial

import torch
from torch import Tensor, nn

from .configuration_timm import TimmConfig
from .layers_attention import attention_block

EXAMPLES = "efficientnet_b0, mobilenetv2_100 or resnet50"


def create_backbone(config: TimmConfig, pretrained: bool = False) -> nn.Module:
    """The timm model that ``config`` names, without its classifier, as timm initialises it.

    Raises ValueError for names that timm does not have, and what timm raises where weights cannot be had.
    """
    import timm  # half a second, so only where a backbone is built

    if not timm.is_model(config.backbone):
        near = difflib.get_close_matches(config.backbone, timm.list_models(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one such as {EXAMPLES}"
        raise ValueError(f"timm {timm.__version__} has no backbone {config.backbone!r}; {hint}")
    drop_path = {"drop_path_rate": config.drop_path} if config.drop_path else {}
    return timm.create_model(
        config.backbone, pretrained=pretrained, num_classes=0, in_chans=config.num_channels, **drop_path
    )


@torch.no_grad()
def restore_constants(backbone: nn.Module, config: TimmConfig) -> None:
    """Give buffers that no weights file holds, such as position tables, the values that timm computes for them."""
    stored = backbone.state_dict().keys()
    constants = {name: buffer for name, buffer in backbone.named_buffers() if name not in stored}
    if constants:
        computed = dict(create_backbone(config).named_buffers())
        for name, buffer in constants.items():
            buffer.copy_(computed[name])


def begin_as_identity(backbone: nn.Module) -> None:
    """Zero the last batch norm of every residual branch, so that the blocks start as identities.

    timm does so for its ResNets, not for the inverted residuals of EfficientNet and MobileNet, which without it leave
    chance level many epochs later (Goyal et al., arXiv 1706.02677, section 5.1).
    """
    for block in backbone.modules():
        if getattr(block, "has_skip", False):
            norms = [child for child in block.children() if isinstance(child, nn.modules.batchnorm._BatchNorm)]
            if norms:
                nn.init.zeros_(norms[-1].weight)


def keep_resolution(backbone: nn.Module, config: TimmConfig) -> None:
    """Set the stride of the backbone's first convolution from 2 to 1."""
    first = next(module for module in backbone.modules() if isinstance(module, nn.Conv2d))
    if first.stride != (2, 2):
        raise ValueError(
            f"stem_stride 1 needs a first convolution of stride 2; that of {config.backbone} has {first.stride[0]}. "
            f"Choose stem_stride 2, or a backbone such as {EXAMPLES}"
        )
    first.stride = (1, 1)


def residual_blocks(backbone: nn.Module) -> dict[str, nn.Module]:
    """The residual blocks of a timm ResNet by name, in network order; empty for any other backbone."""
    from timm.models.resnet import BasicBlock, Bottleneck, ResNet

    if not isinstance(backbone, ResNet):
        return {}
    stages = (f"layer{stage}" for stage in range(1, 5))
    blocks = {f"{s}.{name}": block for s in stages for name, block in backbone.get_submodule(s).named_children()}
    return blocks if all(type(block) in (BasicBlock, Bottleneck) for block in blocks.values()) else {}


def insert_gates(backbone: nn.Module, config: TimmConfig) -> tuple[str, ...]:
    """Names of the maps of the attention blocks that now scale every residual branch, where timm has its own ``se``."""
    blocks = residual_blocks(backbone)
    if not blocks:
        raise ValueError(
            f"block_attention needs a timm ResNet such as resnet50; {config.backbone} is none. Use attention, which "
            "places one block on the features of any backbone"
        )
    if any(block.se is not None for block in blocks.values()):
        raise ValueError(f"{config.backbone} has attention in its blocks already; set block_attention to none")
    names = []
    for name, block in blocks.items():
        width = (block.bn3 if hasattr(block, "bn3") else block.bn2).num_features
        block.se = attention_block(config.block_attention, width, config.attention_reduction)
        names += [f"{name}.{map_name}" for map_name in block.se.map_names]
    return tuple(names)


def gated_residual(block: nn.Module, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Output and maps of a timm BasicBlock or Bottleneck whose ``se`` hands out maps.

    The same steps as the block's own ``forward``, which cannot pass the maps on.
    """
    last = "act3" if hasattr(block, "act3") else "act2"
    branch = x
    for name, layer in block.named_children():
        if name == last:
            break
        branch = layer(branch)
    branch, maps = block.se(branch)
    if block.drop_path is not None:
        branch = block.drop_path(branch)
    shortcut = x if block.downsample is None else block.downsample(x)
    return block.get_submodule(last)(branch + shortcut), maps


def backbone_features(
    backbone: nn.Module, pixel_values: Tensor, config: TimmConfig, run: Callable
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The backbone's stages, last of them its features (B, C, h, w), and the maps of the gates of ``insert_gates``.

    A backbone of timm that does not hand out its stages gives its features alone. ``run(layer, x)`` calls each gated
    block, so that gradient checkpointing can recompute it.
    """
    if config.block_attention == "none":
        if not hasattr(backbone, "forward_intermediates"):
            return (backbone.forward_features(pixel_values),), ()
        features, stages = backbone.forward_intermediates(pixel_values)
        return (*stages, features), ()
    x = backbone.maxpool(backbone.act1(backbone.bn1(backbone.conv1(pixel_values))))
    stages, attentions = {}, ()
    for name, block in residual_blocks(backbone).items():
        x, maps = run(partial(gated_residual, block), x)
        stages[name.partition(".")[0]] = x
        attentions += maps
    return tuple(stages.values()), attentions


def probe(backbone: nn.Module, config: TimmConfig) -> dict[str, tuple[int, ...]]:
    """Output shape, for a batch of one, of every module that the features pass through, by name; "" is their own.

    Runs on a copy without storage, so it costs little. Raises ValueError where the features are not (B, C, H, W), or
    the backbone cannot run at this image size.
    """
    native = backbone.pretrained_cfg["input_size"][-1]
    try:
        shapes = _shapes(backbone, config, config.image_size)
    except (RuntimeError, AssertionError) as error:
        _check_layout(backbone, config, _shapes(backbone, config, native)[""])
        raise ValueError(
            f"{config.backbone} cannot run at image_size {config.image_size} ({error}); its own size, {native}, fits"
        ) from error
    _check_layout(backbone, config, shapes[""])
    if 0 in shapes[""]:
        raise ValueError(
            f"{config.backbone} leaves nothing of image_size {config.image_size}; its own size, {native}, fits"
        )
    return shapes


def _check_layout(backbone: nn.Module, config: TimmConfig, shape: tuple[int, ...]) -> None:
    if len(shape) != 4 or shape[1] != backbone.num_features:
        raise ValueError(
            f"forward_features of {config.backbone} gives {shape}, which is not (B, C, H, W); choose a convolutional "
            f"backbone such as {EXAMPLES}"
        )


def _shapes(backbone: nn.Module, config: TimmConfig, size: int) -> dict[str, tuple[int, ...]]:
    # deepcopy takes what its memo already has for an object: every tensor is replaced by one without storage.
    tensors = [*backbone.parameters(), *backbone.buffers()]
    copy = deepcopy(backbone, {id(tensor): _without_storage(tensor) for tensor in tensors}).eval()
    shapes = {}
    for name, module in copy.named_modules():
        module.register_forward_hook(lambda _, __, output, name=name: shapes.__setitem__(name, _shape(output)))
    pixels = torch.empty(1, config.num_channels, size, size, device="meta", dtype=tensors[0].dtype)
    with torch.no_grad():
        shapes[""] = _shape(backbone_features(copy, pixels, config, lambda layer, x: layer(x))[0][-1])
    return shapes


def _without_storage(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty


def _shape(output: Tensor | tuple) -> tuple[int, ...]:
    return tuple((output if isinstance(output, Tensor) else output[0]).shape)


def drop_unused(backbone: nn.Module, shapes: dict[str, tuple[int, ...]]) -> None:
    """Replace the parts with weights that the features never pass (heads before timm's classifier) by identities.

    Weights without gradients would stop distributed training and be counted for nothing.
    """
    used = {name.partition(".")[0] for name in shapes if name and has_weights(backbone.get_submodule(name))}
    for name, part in backbone.named_children():
        if name not in used and has_weights(part):
            setattr(backbone, name, nn.Identity())


def has_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def cam_candidates(backbone: nn.Module) -> tuple[str, ...]:
    """Names of the modules that end the backbone's stages and put out (B, C, h, w), in network order."""
    if blocks := residual_blocks(backbone):
        ends = {name.partition(".")[0]: name for name in blocks}
        return tuple(f"{name}.{'act3' if hasattr(blocks[name], 'act3') else 'act2'}" for name in ends.values())
    return tuple(stage["module"] for stage in getattr(backbone, "feature_info", ()))
