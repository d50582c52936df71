"""Published architectures as data: a network's stages, parameters and FLOPs, read from the modules themselves."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fer_hf.labels import id2label
from fer_hf.models.image_processing_fer import FerImageProcessor
from fer_hf.models.layers_attention import CBAM, SqueezeExcite
from fer_hf.models.modeling_ensemble import FerEnsembleForImageClassification
from fer_hf.registry import config_class, model_class
from training.config import Recipe, load_recipe

PUBLISHED = Path(__file__).parent / "recipes" / "published"
MEMBERS_OF_THREE = ("mobilenet_v2", "se_mobilenet_v2", "efficientnet_b0_plain")
ATTENTION_NAMES = {SqueezeExcite: "SE", CBAM: "CBAM"}
CONTAINERS = (nn.ModuleList, nn.Sequential)


@dataclass(frozen=True)
class Stage:
    """One row of a diagram.

    Shapes:
        shape: the output without its batch axis, (C, h, w) or (K,).
    """

    name: str
    what: str
    shape: tuple[int, ...]
    parameters: int
    kind: str  # input, convolution, attention, pooling, dense, member
    gated: bool = False  # holds attention blocks whose maps are handed out


def build_on_meta(recipe: Recipe) -> nn.Module:
    """The recipe's network in evaluation mode, without storage."""
    config = config_class(recipe.model.type)(id2label=id2label(recipe.data.names), **recipe.model.config)
    with torch.device("meta"):
        return model_class(recipe.model.type)(config).eval()


def ensemble_of_three(systems: dict[str, nn.Module]) -> nn.Module:
    """The published ensemble of three of these networks, without storage."""
    processor = FerImageProcessor(48, 3, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.device("meta"):
        members = [(systems[name], processor) for name in MEMBERS_OF_THREE]
        return FerEnsembleForImageClassification.from_members(members).eval()


def published_systems() -> dict[str, nn.Module]:
    """Every published architecture by name, without storage; recipes that differ in training alone share one."""
    recipes = {path.stem: load_recipe(path) for path in sorted(PUBLISHED.glob("*.yaml"))}
    systems = {name: build_on_meta(recipe) for name, recipe in recipes.items() if not name.endswith("_scratch")}
    return systems | {"ensemble_of_three": ensemble_of_three(systems)}


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def input_shape(model: nn.Module) -> tuple[int, int, int]:
    return (model.config.num_channels, model.config.image_size, model.config.image_size)


def count_flops(model: nn.Module) -> int:
    """FLOPs of one picture's forward pass in convolutions and matrix products; a multiply-add counts as two."""
    device = next(model.parameters()).device
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, *input_shape(model), device=device))
    return counter.get_total_flops()


def trace(model: nn.Module) -> list[Stage]:
    """The stages of a network in order, from one forward pass."""
    stages = [Stage("input", "grey" if model.config.num_channels == 1 else "RGB", input_shape(model), 0, "input")]
    if isinstance(model, FerEnsembleForImageClassification):
        return stages + _trace_members(model)
    shapes = _output_shapes(model)
    for name, module in _rows(model):
        shape, parameters = _shape_of(name, shapes), count_parameters(module)
        if shape is None:
            continue
        if len(stages[-1].shape) == 3 and len(shape) == 1:
            stages.append(_pooling(stages[-1].shape, module))
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            stages[-1] = replace(stages[-1], parameters=stages[-1].parameters + parameters)
        elif parameters or shape != stages[-1].shape:
            stages.append(Stage(name, _describe(module), shape, parameters, _kind(module), _gated(module)))
    return stages


def _trace_members(model: FerEnsembleForImageClassification) -> list[Stage]:
    classes = (len(model.config.id2label),)
    members = [
        Stage(f"member {index}", _member_name(member), classes, count_parameters(member), "member", _gated(member))
        for index, member in enumerate(model.members, start=1)
    ]
    return [*members, Stage("mean", "weighted mean of the probabilities", classes, 0, "pooling")]


def _pooling(before: tuple[int, ...], module: nn.Module) -> Stage:
    """What lies between a map (C, h, w) and the first dense layer; it is no module."""
    channels, height, width = before
    if isinstance(module, nn.Linear) and module.in_features == channels * height * width > channels:
        return Stage("flatten", "every cell of every channel", (module.in_features,), 0, "pooling")
    return Stage("pooling", "global average", (channels,), 0, "pooling")


def _gates(module: nn.Module) -> list[str]:
    return sorted({ATTENTION_NAMES[type(part)] for part in module.modules() if type(part) in ATTENTION_NAMES})


def _gated(module: nn.Module) -> bool:
    return bool(_gates(module))


def _member_name(member: nn.Module) -> str:
    backbone = getattr(member.config, "backbone", member.config.model_type)
    return " with ".join([backbone, *_gates(member)])


def _output_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    shapes, handles = {}, []

    def record(name: str):
        def hook(module, inputs, output) -> None:
            output = output if isinstance(output, Tensor) else output[0]
            shapes.pop(name, None)  # the order is that of the last call
            shapes[name] = tuple(output.shape[1:])

        return hook

    for name, module in model.named_modules():
        if name:
            handles.append(module.register_forward_hook(record(name)))
    try:
        with torch.no_grad():
            model(torch.zeros(1, *input_shape(model), device=next(model.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def _shape_of(name: str, shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...] | None:
    """Of a module that was called, or of the last part of it that was."""
    inside = [shape for key, shape in shapes.items() if key.startswith(f"{name}.")]
    return shapes.get(name) or (inside[-1] if inside else None)


def _rows(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules that get a row each: stages and layers, not the containers around them."""
    for name, child in model.named_children():
        if name == "backbone" or isinstance(child, CONTAINERS):
            for inner, part in child.named_children():
                yield from _opened(f"{name}.{inner}", part)
        else:
            yield name, child


def _opened(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    parts = list(module.named_children())
    if isinstance(module, CONTAINERS) and parts and all(isinstance(part, CONTAINERS) for _, part in parts):
        for inner, part in parts:
            yield from _opened(f"{name}.{inner}", part)
    else:
        yield name, module


def _kind(module: nn.Module) -> str:
    if type(module) in ATTENTION_NAMES:
        return "attention"
    if isinstance(module, nn.Linear):
        return "dense"
    return "convolution" if any(isinstance(part, nn.Conv2d) for part in module.modules()) else "pooling"


def _describe(module: nn.Module) -> str:
    if type(module) in ATTENTION_NAMES:
        return "squeeze-and-excitation" if isinstance(module, SqueezeExcite) else "CBAM"
    if isinstance(module, nn.Linear):
        return f"dense {module.in_features} → {module.out_features}"
    if isinstance(module, nn.MaxPool2d):
        return f"{module.kernel_size}×{module.kernel_size} max pooling"
    blocks = Counter(type(part) for part in module.children()) if isinstance(module, CONTAINERS) else Counter()
    if len(blocks) == 1 and (block := next(iter(blocks))) not in CONTAINERS:
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", block.__name__).lower()
        return " with ".join([f"{blocks[block]} × {words}", *_gates(module)])
    convolutions = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
    if not _gates(module) and convolutions:
        kernel, stride = convolutions[0].kernel_size[0], convolutions[0].stride[0]
        return f"{kernel}×{kernel} convolution" + (f", stride {stride}" if stride > 1 else "")
    return _describe_parts(module)


def _describe_parts(module: nn.Module) -> str:
    """A block of our own by what it holds, such as "3 convolutions, CBAM, max pooling"."""
    gated = {id(inner) for part in module.modules() if type(part) in ATTENTION_NAMES for inner in part.modules()}
    plain = [part for part in module.modules() if isinstance(part, nn.Conv2d) and id(part) not in gated]
    parts = [f"{len(plain)} convolution{'s' * (len(plain) > 1)}"] if plain else []
    pools = ["max pooling"] if any(isinstance(part, nn.MaxPool2d) for part in module.modules()) else []
    return ", ".join([*parts, *_gates(module), *pools])
