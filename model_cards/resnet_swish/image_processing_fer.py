"""The image processor: the one place that turns a face crop into ``pixel_values``."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor


class FerImageProcessor(BaseImageProcessor):
    """Face crops to ``pixel_values`` (B, num_channels, size, size), on Pillow and torch alone.

    Args:
        size: side of the square output in pixels, or transformers' ``{"height": h, "width": h}``.
        num_channels: 1 (grey by ITU-R 601 luma) or 3 (RGB).
        image_mean, image_std: one value a channel, for pixels rescaled to [0, 1].
        face_template: five (x, y) normalised to the crop: where the eye on the picture's left, the eye on its right,
            the nose tip and the mouth corners lay in the crops the model was trained on. None: a square box is used.
        face_margin: without a template, how much longer than the face box's longer side the crop is.
    """

    model_input_names = ["pixel_values"]

    def __init__(
        self,
        size: int | dict[str, int] = 48,
        num_channels: int = 1,
        image_mean: Sequence[float] = (0.5,),
        image_std: Sequence[float] = (0.25,),
        face_template: Sequence[Sequence[float]] | None = None,
        face_margin: float = 0.2,
        **kwargs,
    ):
        unknown = sorted(key for key in kwargs if not key.startswith("_") and key not in _FOREIGN_KEYS)
        if unknown:
            raise ValueError(f"unknown image processor key {unknown[0]!r}; known are {', '.join(_OWN_KEYS)}")
        super().__init__(**kwargs)
        side = size if isinstance(size, int) else size["height"]
        if not isinstance(size, int) and size["width"] != side:
            raise ValueError(f"size must be square; {size} was given")
        self.size = {"height": side, "width": side}
        self.num_channels = num_channels
        self.image_mean, self.image_std = list(image_mean), list(image_std)
        self.face_template = None if face_template is None else [[float(v) for v in point] for point in face_template]
        self.face_margin = face_margin
        if num_channels not in (1, 3):
            raise ValueError(f"num_channels must be 1 (grey) or 3 (RGB); {num_channels} was given")
        if not len(self.image_mean) == len(self.image_std) == num_channels:
            raise ValueError(
                f"image_mean {image_mean} and image_std {image_std} must have {num_channels} value(s) each"
            )
        if face_template is not None and np.shape(self.face_template) != (5, 2):
            raise ValueError(f"face_template must be five (x, y); its shape is {np.shape(self.face_template)}")

    @property
    def size_px(self) -> int:
        """Side of the output in pixels."""
        return self.size["height"]

    def to_uint8(self, image: Image.Image | np.ndarray) -> torch.Tensor:
        """One picture as (num_channels, size, size) uint8: channels set first, then resized (bilinear, antialiased).

        Raises ValueError for what is neither a PIL picture of 8 bits a channel nor a uint8 array (H, W[, 3 or 4]).
        """
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim < 2 or image.shape[2:] not in ((), (3,), (4,)):
                raise ValueError(
                    f"an array of {image.dtype} with shape {image.shape} was given; pictures as arrays are uint8 of "
                    "shape (H, W), (H, W, 3) or (H, W, 4), from 0 to 255"
                )
            image = Image.fromarray(image)
        elif not isinstance(image, Image.Image):
            raise ValueError(f"{type(image).__name__} was given; a picture is a PIL image or a uint8 array")
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            raise ValueError(
                f"a picture of mode {image.mode} was given, which has more than 8 bits a pixel; scale it to 0 to 255 "
                "and give it as L or RGB"
            )
        mode = "L" if self.num_channels == 1 else "RGB"
        image = image if image.mode == mode else image.convert("RGB").convert(mode)
        if image.size != (self.size_px, self.size_px):
            image = image.resize((self.size_px, self.size_px), Image.Resampling.BILINEAR)
        array = np.array(image, dtype=np.uint8)
        return torch.from_numpy(array[None] if self.num_channels == 1 else array.transpose(2, 0, 1).copy())

    def normalize_uint8(self, images: torch.Tensor) -> torch.Tensor:
        """(..., num_channels, H, W) in [0, 255], any dtype, to normalised float32 on the same device."""
        # Non-blocking: otherwise every batch would wait here for all that its device still has to do.
        mean, std = (
            torch.tensor(values).view(-1, 1, 1).to(images.device, non_blocking=True)
            for values in (self.image_mean, self.image_std)
        )
        return (images.float() / 255 - mean) / std

    def preprocess(
        self,
        images: Image.Image | np.ndarray | Sequence[Image.Image | np.ndarray],
        return_tensors: str = "pt",
        **kwargs,
    ) -> BatchFeature:
        """One picture or several, each as ``to_uint8`` takes them, as a batch with ``pixel_values``.

        Raises ValueError for no picture at all, and for settings, which belong to the processor.
        """
        if given := sorted(key for key, value in kwargs.items() if value is not None):
            raise ValueError(f"{given[0]} is no choice of a single call; make a FerImageProcessor with other settings")
        if isinstance(images, Image.Image | np.ndarray):
            images = [images]
        if len(images) == 0:
            raise ValueError("no picture was given; give one at least")
        pixels = self.normalize_uint8(torch.stack([self.to_uint8(image) for image in images]))
        return BatchFeature({"pixel_values": pixels}, tensor_type=return_tensors)

    def to_dict(self) -> dict:
        return {key: value for key, value in super().to_dict().items() if key in _OWN_KEYS or key in _WRITTEN_KEYS}


_OWN_KEYS = ("size", "num_channels", "image_mean", "image_std", "face_template", "face_margin")
_WRITTEN_KEYS = ("image_processor_type", "auto_map")
# Keys that transformers writes into preprocessor_config.json or passes on beside these.
_FOREIGN_KEYS = frozenset((*_WRITTEN_KEYS, "processor_class", "feature_extractor_type", "use_fast", "backend"))
