"""What a model looked at: Grad-CAM and the model's own gates, as maps in crop space or in the photo's geometry."""

import threading
import weakref
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from .classifier import shared_copy

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def cam_layer(model: "PreTrainedModel") -> nn.Module | None:
    """The layer that Grad-CAM reads, as the model names it, or None where it names none."""
    try:
        return getattr(model, "cam_layer", None)
    except NotImplementedError:
        return None


def grad_cam(
    model: "PreTrainedModel",
    pixel_values: Tensor,
    target: int | Sequence[int] | None = None,
    layer: nn.Module | None = None,
) -> Tensor:
    """Where the evidence for a class lies: (B, h, w) from 0 to 1 at the resolution of ``layer``, on the model's device.

    A map is all 0 where nothing speaks for the class.

    ``target`` is a class for all pictures or one for each; None takes the most probable. ``layer`` is a module of the
    model whose output is (B, C, h, w); None takes ``model.cam_layer``. Gradients are those of the raw logits, or of the
    log-odds where those are log-probabilities, in evaluation mode. The model is left as it was: hooks and modes are set
    on a private copy of its modules that shares its weights and is kept for the next call, so many threads may ask at
    once. Raises ValueError where there is no such layer.

    Source: Selvaraju et al., arXiv 1610.02391.
    """
    layer = cam_layer(model) if layer is None else layer
    name = next((name for name, module in model.named_modules() if module is layer), None)
    if name is None:
        raise ValueError(
            f"{type(model).__name__} names no cam_layer; give Grad-CAM one of the model's modules as layer"
        )
    with torch.inference_mode(False), torch.no_grad():
        output, activations = _hooked_copy(model, name)(pixel_values.clone())
        logits = output.raw_logits if "raw_logits" in output else output.logits
        wanted = logits.argmax(1) if target is None else torch.as_tensor(target, device=logits.device)
        score = _evidence(logits, wanted.expand(len(logits))[:, None], _gives_log_probabilities(model))
        (gradients,) = torch.autograd.grad(score.sum(), activations)
        weights = gradients.float().mean((2, 3), keepdim=True)
        cam = (weights * activations.float()).sum(1).relu().detach()
        cam = cam - cam.amin((1, 2), keepdim=True)
        return cam / cam.amax((1, 2), keepdim=True).clamp_min(torch.finfo(cam.dtype).tiny)


def _gives_log_probabilities(model: "PreTrainedModel") -> bool:
    """Whether the raw logits are normalised: what a memory was mixed into, and means of members."""
    return getattr(model, "memory", None) is not None or hasattr(model, "members")


def _evidence(logits: Tensor, wanted: Tensor, are_log_probabilities: bool) -> Tensor:
    """What speaks for the classes ``wanted`` (B, 1), float32 (B,).

    The gradient of log p vanishes with 1 - p, in half precision to nothing; that of log(p / (1 - p)), which is the same
    divided by 1 - p and makes the same map, does not.
    """
    chosen = logits.float().gather(1, wanted)[:, 0]
    if not are_log_probabilities:
        return chosen
    return chosen - logits.float().scatter(1, wanted, float("-inf")).logsumexp(1)


class _HookedCopy:
    """A private copy of a model that starts a graph after one layer, for any number of threads at once."""

    def __init__(self, model: "PreTrainedModel", name: str):
        self.parts, self.name = _parts(model), name
        self.model = shared_copy(model)
        self._of_thread = threading.local()
        self.model.get_submodule(name).register_forward_hook(self._start_graph_here)

    def is_of(self, model: "PreTrainedModel") -> bool:
        """Whether the model still consists of the modules and tensors that were copied."""
        now = _parts(model)
        return len(now) == len(self.parts) and all(a is b for a, b in zip(now, self.parts, strict=True))

    def __call__(self, pixel_values: Tensor) -> tuple[Any, Tensor]:
        """The model's output, and the layer's, which the output's graph starts from."""
        output = self.model(pixel_values)
        return output, self._of_thread.__dict__.pop("captured")

    def _start_graph_here(self, module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4:
            raise ValueError(f"Grad-CAM needs a layer whose output is (B, C, h, w); {self.name} gives another")
        torch.set_grad_enabled(True)  # until the enclosing no_grad ends: only what follows this layer is recorded
        self._of_thread.captured = output.detach().requires_grad_()
        return self._of_thread.captured.clone()  # a later layer may work in place


def _parts(model: nn.Module) -> list[object]:
    """The modules in a model, without itself, and its tensors, which the copy shares: their values may change."""
    modules = list(model.modules())[1:]
    return [*modules, *chain.from_iterable((*m._parameters.values(), *m._buffers.values()) for m in (model, *modules))]


_COPIES: weakref.WeakKeyDictionary[nn.Module, _HookedCopy] = weakref.WeakKeyDictionary()
"""The last hooked copy of each model that still lives."""
_COPYING = threading.Lock()


def _hooked_copy(model: "PreTrainedModel", name: str) -> _HookedCopy:
    with _COPYING:
        kept = _COPIES.get(model)
        if kept is None or kept.name != name or not kept.is_of(model):
            kept = _COPIES[model] = _HookedCopy(model, name)
        return kept


@torch.no_grad()
def attention_maps(model: "PreTrainedModel", pixel_values: Tensor) -> dict[str, Tensor]:
    """The model's own attention, in [0, 1], by name in network order: spatial maps (B, h, w), channel gates (B, C)."""
    names = tuple(getattr(model, "attention_names", ()))
    if not names:
        return {}
    maps = model(pixel_values, output_attentions=True).attentions
    return {
        name: found[:, 0] if name.endswith("spatial") else found.flatten(1)  # also where features are 1×1
        for name, found in zip(names, maps, strict=True)
    }


def warp_to_photo(crop_map: np.ndarray, photo_to_crop: np.ndarray, photo_wh: tuple[int, int]) -> np.ndarray:
    """A map of the crop laid over the photo: (H, W) float32, 0 outside the crop.

    ``crop_map`` is (size_px, size_px), at the resolution of the crop that ``photo_to_crop`` (2, 3) leads to (see
    ``AlignedFace``); ``photo_wh`` is the photo's width and height in pixels.
    """
    image = Image.fromarray(np.asarray(crop_map, dtype=np.float32))
    warped = image.transform(
        photo_wh, Image.Transform.AFFINE, tuple(np.asarray(photo_to_crop).ravel()), resample=Image.Resampling.BILINEAR
    )
    return np.asarray(warped)
