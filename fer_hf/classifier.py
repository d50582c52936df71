"""From face crops to probabilities: the seam between recognition and what runs the network."""

import copy
from collections.abc import Sequence
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.image_processing_utils import BaseImageProcessor


class Classifier(Protocol):
    """What recognition needs of a network, whatever runs it.

    ``labels`` are the class names in order. ``size_px``, ``face_template`` and ``face_margin`` say how a face is to be
    cropped, as in ``faces.align_face``.
    """

    labels: tuple[str, ...]
    size_px: int
    face_template: Sequence[Sequence[float]] | None
    face_margin: float

    def probabilities(self, crops: Sequence[Image.Image]) -> np.ndarray:
        """(N, K) float32 whose rows sum to 1, for N ≥ 1 RGB crops."""
        ...


class TorchClassifier:
    """A transformers image classification model with its image processor, as a ``Classifier``.

    The network runs on a copy with batch norms folded into the layers before them, on the device and in the dtype that
    the model has now.
    """

    def __init__(self, model: "PreTrainedModel", processor: "BaseImageProcessor"):
        self.model, self.processor = model, processor
        self.labels = tuple(model.config.id2label[index] for index in sorted(model.config.id2label))
        self.size_px = crop_size_px(processor)
        self.face_template = getattr(processor, "face_template", None)
        self.face_margin = getattr(processor, "face_margin", 0.2)
        self.answer_threshold = getattr(model.config, "conformal_threshold", None)
        self.answer_coverage = getattr(model.config, "conformal_coverage", None)
        self.network = fold_norms(shared_copy(model))

    def pixel_values(self, crops: Sequence[Image.Image]) -> torch.Tensor:
        """The crops as the model takes them, (N, C, H, W)."""
        pixels = self.processor(images=list(crops), return_tensors="pt")["pixel_values"]
        return pixels.to(device=self.model.device, dtype=self.model.dtype)

    @torch.inference_mode()
    def probabilities(self, crops: Sequence[Image.Image]) -> np.ndarray:
        return self.network(self.pixel_values(crops)).logits.float().softmax(dim=1).cpu().numpy()


def crop_size_px(processor: "BaseImageProcessor") -> int:
    """Side of the square pictures that an image processor makes, in pixels; 224 where it does not say."""
    stated = getattr(processor, "crop_size", None) if getattr(processor, "do_center_crop", False) else None
    stated = getattr(processor, "size", None) if stated is None else stated
    if isinstance(stated, int):
        return stated
    for key in ("height", "shortest_edge"):
        value = stated.get(key) if hasattr(stated, "get") else getattr(stated, key, None)
        if value is not None:
            return int(value)
    return 224


def shared_copy(model: "PreTrainedModel") -> "PreTrainedModel":
    """Private modules in evaluation mode over the model's own weights: hooks, modes and layers can change unseen."""
    kept = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    return copy.deepcopy(model, {**kept, id(model.config): model.config}).eval()


def fold_norms(model: nn.Module) -> nn.Module:
    """The same model with each batch norm that follows a layer in an ``nn.Sequential`` folded into that layer.

    Changes the model's modules, not their weights: the folded layers are new, channels last, and compute the same to
    rounding. Source: Jacob et al., arXiv 1712.05877, 3.2.
    """
    fusions = {nn.Conv2d: (nn.BatchNorm2d, fuse_conv_bn_eval), nn.Linear: (nn.BatchNorm1d, fuse_linear_bn_eval)}
    for sequence in [module for module in model.modules() if type(module) is nn.Sequential]:
        for index, (layer, norm) in enumerate(pairwise(list(sequence))):
            norm_class, fuse = fusions.get(type(layer), (None, None))
            if norm_class is None or type(norm) is not norm_class:
                continue
            folded = fuse(layer, norm).requires_grad_(False)
            if folded.weight.ndim == 4:
                folded.weight.data = folded.weight.data.contiguous(memory_format=torch.channels_last)
            sequence[index], sequence[index + 1] = folded, nn.Identity()
    return model
