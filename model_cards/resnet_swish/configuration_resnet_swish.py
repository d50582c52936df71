"""Configuration of ResNet-Swish."""

from dataclasses import field

from .configuration_fer import FerConfig


class ResNetSwishConfig(FerConfig):
    """A residual network with Swish for small grey faces.

    Args:
        hidden_sizes: channels of each stage; every stage but the first halves the resolution.
        depths: residual blocks in each stage.
        stem_stride: stride of the first convolution; 2 works at half resolution throughout, at a quarter of the cost.
        attention: what scales each residual branch: none, se or cbam.
        attention_reduction: channels over squeezed channels in it.
        classifier_hidden_sizes: dense layers (batch norm, Swish, dropout) between pooling and classifier.
        dropout: before every dense layer.
        spatial_dropout: of whole channels, inside each residual branch (Tompson et al., arXiv 1411.4280).
        drop_path: stochastic depth at the last block, growing linearly from 0 at the first.
    """

    model_type = "fer_resnet_swish"

    hidden_sizes: list[int] | tuple[int, ...] = (64, 128, 256, 512)
    depths: list[int] | tuple[int, ...] = (2, 2, 2, 2)
    stem_stride: int = 1
    attention: str = "none"
    attention_reduction: int = 16
    classifier_hidden_sizes: list[int] | tuple[int, ...] = field(default_factory=tuple)
    dropout: float = 0.3
    spatial_dropout: float = 0.1
    drop_path: float = 0.0

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self.hidden_sizes, self.depths = list(self.hidden_sizes), list(self.depths)
        self.classifier_hidden_sizes = list(self.classifier_hidden_sizes)
        if len(self.hidden_sizes) != len(self.depths) or not self.depths:
            raise ValueError(f"hidden_sizes {self.hidden_sizes} and depths {self.depths} must name the same stages")
        if self.stem_stride not in (1, 2):
            raise ValueError(f"stem_stride must be 1 or 2; {self.stem_stride} was given")
        smallest = self.stem_stride * 2 ** (len(self.depths) - 1)
        if self.image_size < smallest:
            raise ValueError(f"image_size {self.image_size} is too small for these stages; the least is {smallest}")
