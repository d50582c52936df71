"""Configurations of the classifiers on timm backbones."""

from dataclasses import field

from transformers.activations import ACT2FN

from .configuration_fer import FerConfig
from .layers_attention import ATTENTION_KINDS


class TimmConfig(FerConfig):
    """A timm backbone, an optional attention block on its features, average pooling and a dense head.

    Args:
        backbone: any timm name whose ``forward_features`` is (B, C, H, W), such as efficientnet_b0, efficientnet_b3,
            mobilenetv2_100 or resnet50. Its weights are random until ``from_backbone`` or ``from_pretrained`` set them.
        stem_stride: 2 as timm has it; 1 lets the first convolution keep the resolution, so that small faces do not
            end at 2×2 (48 pixels at stride 32); the same parameters, about four times the work.
        drop_path: stochastic depth inside the backbone; 0 also fits backbones that have none.
        attention: what scales the backbone's features: none, se or cbam.
        block_attention: what scales each residual branch of a timm ResNet: none, se or cbam.
        attention_reduction: channels over squeezed channels in both.
        classifier_hidden_sizes: dense layers between pooling and classifier, each followed by ``classifier_norm``
            (none or batch), ``classifier_activation`` (a name of transformers' activations, such as relu) and dropout.
        dropout: after every dense layer; without any, before the classifier.
    """

    model_type = "fer_timm"

    image_size: int = 224
    num_channels: int = 3
    backbone: str = "efficientnet_b0"
    stem_stride: int = 2
    drop_path: float = 0.0
    attention: str = "none"
    block_attention: str = "none"
    attention_reduction: int = 16
    classifier_hidden_sizes: list[int] | tuple[int, ...] = field(default_factory=tuple)
    classifier_norm: str = "none"
    classifier_activation: str = "relu"
    dropout: float = 0.2

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self.classifier_hidden_sizes = list(self.classifier_hidden_sizes)
        choices = {
            "stem_stride": (1, 2),
            "attention": ATTENTION_KINDS,
            "block_attention": ATTENTION_KINDS,
            "classifier_norm": ("none", "batch"),
        }
        for name, allowed in choices.items():
            if (value := getattr(self, name)) not in allowed:
                raise ValueError(f"{name} is {value!r}; choose one of {', '.join(map(str, allowed))}")
        if self.classifier_activation not in ACT2FN:
            raise ValueError(f"classifier_activation is {self.classifier_activation!r}; relu, silu and gelu are known")


class SEEfficientNetConfig(TimmConfig):
    """EfficientNet-B0 with squeeze-and-excitation on its features: ``TimmConfig`` with that as its default."""

    model_type = "fer_se_efficientnet"

    attention: str = "se"
