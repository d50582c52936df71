"""Configuration of CBAM-5CNN."""

from .configuration_fer import FerConfig

TOTAL_STRIDE = 16


class CBAM5CNNConfig(FerConfig):
    """Five convolutional blocks with CBAM, trained from scratch on small faces.

    Args:
        image_size: a multiple of 16, since four poolings halve it and the dense layer reads what is left.
        hidden_sizes: channels of the five blocks.
        attention_reduction: channels over squeezed channels in CBAM.
        dropout: at the end of the first block.
    """

    model_type = "fer_cbam_5cnn"

    hidden_sizes: list[int] | tuple[int, ...] = (64, 128, 256, 512, 512)
    attention_reduction: int = 16
    dropout: float = 0.25

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self.hidden_sizes = list(self.hidden_sizes)
        if len(self.hidden_sizes) != 5:
            raise ValueError(f"hidden_sizes must name the widths of five blocks; {self.hidden_sizes} was given")
        if self.image_size < TOTAL_STRIDE or self.image_size % TOTAL_STRIDE:
            nearest = max(round(self.image_size / TOTAL_STRIDE), 1) * TOTAL_STRIDE
            raise ValueError(
                f"image_size must be a multiple of {TOTAL_STRIDE}; {self.image_size} was given, try {nearest}"
            )
