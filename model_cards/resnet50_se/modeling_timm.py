"""Classifiers on timm backbones: attention on the features or inside residual blocks, average pooling, a dense head.

EfficientNet: Tan and Le, arXiv 1905.11946. MobileNetV2: Sandler et al., arXiv 1801.04381. ResNet: He et al., arXiv
1512.03385. The backbones are timm's own, with its parameter names and its initialisation, save that residual branches
start at zero. Only the blocks that ``attention`` and ``block_attention`` add hand out their maps, not the
squeeze-and-excitation inside EfficientNet.
"""

from typing import Self

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.activations import ACT2FN

from .configuration_timm import SEEfficientNetConfig, TimmConfig
from .layers_attention import attention_block
from .layers_timm import (
    backbone_features,
    begin_as_identity,
    cam_candidates,
    create_backbone,
    drop_unused,
    insert_gates,
    keep_resolution,
    probe,
    residual_blocks,
    restore_constants,
)
from .modeling_fer import FerPreTrainedModel

LEAST_CAM_CELLS = 6


class TimmForImageClassification(FerPreTrainedModel):
    """(B, num_channels, image_size, image_size) -> logits (B, K), for any backbone with (B, C, H, W) features."""

    config_class = TimmConfig

    def __init__(self, config: TimmConfig):
        super().__init__(config)
        self.backbone = create_backbone(config)
        if not next(self.backbone.parameters()).is_meta:
            begin_as_identity(self.backbone)
            for module in self.backbone.modules():
                module._is_hf_initialized = True  # by timm; transformers would overwrite it
        if config.stem_stride == 1:
            keep_resolution(self.backbone, config)
        gates = insert_gates(self.backbone, config) if config.block_attention != "none" else ()
        shapes = probe(self.backbone, config)
        drop_unused(self.backbone, shapes)
        width = shapes[""][1]
        self.attention = attention_block(config.attention, width, config.attention_reduction)
        self.attention_names = gates + tuple(f"features.{name}" for name in self.attention.map_names)
        self.attended = nn.Identity()
        self._cam_name = self._choose_cam_layer(shapes)
        head = []
        for size in config.classifier_hidden_sizes:
            norm = [nn.BatchNorm1d(size)] if config.classifier_norm == "batch" else []
            activation = ACT2FN[config.classifier_activation]
            head += [nn.Linear(width, size), *norm, activation, nn.Dropout(config.dropout)]
            width = size
        self.head = nn.Sequential(*(head or [nn.Dropout(config.dropout)]))
        self.classifier = nn.Linear(width, config.num_labels)
        self.post_init()

    @classmethod
    def from_backbone(cls, config: TimmConfig) -> Self:
        """A new model whose backbone has timm's ImageNet weights; see ``load_imagenet_weights``."""
        model = cls(config)
        model.load_imagenet_weights()
        return model

    def load_imagenet_weights(self) -> None:
        """Give the backbone timm's ImageNet weights, from the Hub or its cache; everything else stays as it is.

        For one channel, timm sums the first convolution's weights over RGB. Raises ValueError where the weights cannot
        be had, since random ones would pass for pretrained ones.
        """
        name = self.config.backbone
        try:
            weights = create_backbone(self.config, pretrained=True).state_dict()
        except Exception as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise ValueError(
                f"ImageNet weights of {name} cannot be had from the Hub ({reason}); connect to it, or set "
                "model.pretrained: false in the recipe to start from random weights"
            ) from error
        missing = self.backbone.load_state_dict(weights, strict=False).missing_keys
        gates = {f"{path}.se" for path in residual_blocks(self.backbone)}
        if foreign := [key for key in missing if not any(key.startswith(gate) for gate in gates)]:
            raise ValueError(f"timm's weights of {name} lack {foreign[0]}; they belong to another version of timm")

    def _choose_cam_layer(self, shapes: dict[str, tuple[int, ...]]) -> str:
        if min(shapes[""][2:]) >= LEAST_CAM_CELLS:
            return "attended"
        fine = [
            f"backbone.{name}"
            for name in cam_candidates(self.backbone)
            if len(shapes.get(name, ())) == 4 and min(shapes[name][2:]) >= LEAST_CAM_CELLS
        ]
        return fine[-1] if fine else "attended"

    @property
    def cam_layer(self) -> nn.Module:
        """The last stage whose map has at least 6×6 cells, or the attended features where none has."""
        return self.get_submodule(self._cam_name)

    def features(self, pixel_values: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        stages, gates = backbone_features(self.backbone, pixel_values, self.config, self.run)
        attended, maps = self.attention(stages[-1])
        return (*stages, self.attended(attended)), gates + maps

    def restore_constants(self) -> None:
        restore_constants(self.backbone, self.config)

    def _set_gradient_checkpointing(self, enable: bool = True, *args, **kwargs) -> None:
        super()._set_gradient_checkpointing(enable, *args, **kwargs)
        if self.config.block_attention == "none":
            self.backbone.set_grad_checkpointing(enable)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class SEEfficientNetForImageClassification(TimmForImageClassification):
    """EfficientNet-B0 with squeeze-and-excitation on its features: the class above under its published name."""

    config_class = SEEfficientNetConfig
