"""What every model class of this project shares: output record, loss, input check, temperature."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel
from transformers.utils import ModelOutput, logging

from .configuration_fer import FerConfig
from .layers_memory import NeighbourMemory

logger = logging.get_logger(__name__)


@dataclass
class FerOutput(ModelOutput):
    """Output of every classifier here.

    Shapes:
        loss: scalar, on the raw logits, when ``labels`` were given.
        logits: (B, K), divided by ``config.temperature``: their softmax is calibrated.
        raw_logits: (B, K), undivided; for losses and distillation.
        hidden_states: one (B, C, h, w) a stage.
        attentions: 4-D tensors in network order, named by ``model.attention_names``: channel gates (B, C, 1, 1),
            spatial maps (B, 1, H, W), all in [0, 1].
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    raw_logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


def expression_loss(raw_logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of (B, K) logits against class indices (B,) or distributions (B, K)."""
    if labels.is_floating_point():
        labels = labels.to(raw_logits.dtype)
    return F.cross_entropy(raw_logits, labels)


def _hold_statistics(norm: nn.Module, inputs: tuple) -> None:
    # What runs during a backward pass was run before, whoever recomputes it: this module's ``run`` or timm. It must
    # save the same tensors again, so the statistics are passed as ever and moved by nothing.
    if torch._C._current_graph_task_id() != -1 and "held_momentum" not in vars(norm):
        norm.held_momentum, norm.momentum = (norm.momentum,), 0.0


def _release_statistics(norm: nn.Module, inputs: tuple, output: Tensor | None) -> None:
    if "held_momentum" in vars(norm):
        (norm.momentum,) = vars(norm).pop("held_momentum")
        if norm.training:
            norm.num_batches_tracked.sub_(1)


class FerPreTrainedModel(PreTrainedModel):
    """Base of the model classes: subclasses implement ``features`` and have a ``head`` and a linear ``classifier``.

    Or they implement ``infer`` in their place. A model whose config has ``memory_rows`` answers from its classifier and
    its ``memory``; while it trains, from its classifier alone.
    """

    config_class = FerConfig
    base_model_prefix = ""
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    gradient_checkpointing = False
    accepts_loss_kwargs = False  # the loss is the batch's mean: transformers' Trainer divides it where it accumulates

    def __init__(self, config: FerConfig):
        super().__init__(config)
        # from_pretrained(..., id2label=new) sets one of the two maps on a finished config: the inverse follows it.
        config.label2id = {name: index for index, name in config.id2label.items()}
        self.attention_names: tuple[str, ...] = ()
        self._statistics_hooks: list[RemovableHandle] = []
        self.memory: NeighbourMemory | None = None

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Self | tuple[Self, dict]:
        """As transformers has it; where the classifier or the memory is not the file's, ``unfit`` follows."""
        model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        for module in model.modules():
            if isinstance(module, FerPreTrainedModel):
                module.restore_constants()
        new = [*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])]
        if any(name.startswith(("classifier.", "memory.")) for name in new):
            model.unfit()
        return (model, info) if output_loading_info else model

    def post_init(self) -> None:
        """What a subclass calls once its modules are made."""
        config = self.config
        if config.memory_rows:
            self.memory = NeighbourMemory(
                config.memory_width,
                config.memory_rows,
                config.memory_size,
                config.num_labels,
                config.memory_weight,
                config.memory_temperature,
            )
        super().post_init()

    def remember(self, memory: NeighbourMemory) -> None:
        """Answer from this memory too, in place of one that there was."""
        self.memory, config = memory, self.config
        config.memory_rows, config.memory_size = memory.keys.shape
        config.memory_width = len(memory.mean)
        config.memory_weight, config.memory_temperature = memory.weight, memory.temperature

    def forget(self) -> None:
        """Drop the memory, which fits the weights it was made for: before they learn on, or to see what it adds."""
        self.memory, self.config.memory_rows = None, 0

    def restore_constants(self) -> None:
        """Compute what no weights file holds; called on a model and its members once the file's weights are there."""

    def unfit(self) -> None:
        """Drop what was fitted to these weights, before they are others: memory, temperature, sets of answers."""
        self.forget()
        self.config.temperature = 1.0
        self.config.conformal_threshold = self.config.conformal_coverage = None

    @property
    def cam_layer(self) -> nn.Module:
        """The module whose output (B, C, h, w) Grad-CAM reads."""
        raise NotImplementedError(f"{type(self).__name__} names no layer for Grad-CAM")

    def features(self, pixel_values: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Hidden states (the last is what ``pool`` reads) and attentions, in network order."""
        raise NotImplementedError

    def pool(self, features: Tensor) -> Tensor:
        """What the head reads, (B, P), of the last hidden state (B, C, h, w)."""
        return features.mean((2, 3))

    def look(self, hidden_states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What the memory compares: what the head reads, and the last finer hidden state in quarters (B, 4 C).

        What a face expresses is in the former, which photograph it is rather in the latter, and a memory wants both.
        The quarters overlap by a row or column where the side is odd. Without a finer state there is only the former.
        """
        last = hidden_states[-1]
        finer = [state for state in hidden_states if state.shape[-1] > last.shape[-1]]
        pooled = self.pool(last)
        if not finer:
            return (pooled,)
        side = finer[-1].shape[-1]
        quarters = F.avg_pool2d(finer[-1], side - side // 2, stride=side // 2)
        return pooled, quarters.flatten(1)

    def embed(self, features: Tensor) -> Tensor:
        """What the classifier reads, (B, D), of the last hidden state (B, C, h, w)."""
        return self.head(self.pool(features))

    def infer(self, pixel_values: Tensor) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Raw logits (B, K), hidden states and attentions, in network order."""
        hidden_states, attentions = self.features(pixel_values)
        remembers = self.memory is not None and not self.training
        parts = self.look(hidden_states) if remembers else (self.pool(hidden_states[-1]),)
        raw_logits = self.classifier(self.head(parts[0]))
        if remembers:
            raw_logits = self.memory(torch.cat(parts, dim=1), raw_logits)
        elif self.memory is not None:
            logger.warning_once(
                "this model's memory fits the weights it was made for: call unfit() before they learn on"
            )
        return raw_logits, hidden_states, attentions

    def run(self, layer: Callable, *inputs: Tensor):
        """The layer's output, recomputed in the backward pass when gradient checkpointing is on.

        Batch norms leave their running statistics alone then, as they have counted the batch already.
        """
        if self.training and self.gradient_checkpointing:
            return self._gradient_checkpointing_func(layer.__call__, *inputs)
        return layer(*inputs)

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> FerOutput | tuple:
        """Classify normalised crops.

        Args:
            pixel_values: (B, num_channels, image_size, image_size), as the image processor makes them.
            labels: class indices (B,) or distributions (B, K).

        Raises ValueError where ``pixel_values`` has another shape.
        """
        self.check_input(pixel_values)
        raw_logits, hidden_states, attentions = self.infer(pixel_values)
        output = FerOutput(
            loss=None if labels is None else expression_loss(raw_logits, labels),
            logits=raw_logits / self.config.temperature,
            raw_logits=raw_logits,
            hidden_states=hidden_states if self._wanted(output_hidden_states, "output_hidden_states") else None,
            attentions=attentions if self._wanted(output_attentions, "output_attentions") else None,
        )
        return output if self._wanted(return_dict, "return_dict") else output.to_tuple()

    def _set_gradient_checkpointing(self, enable: bool = True, *args, **kwargs) -> None:
        super()._set_gradient_checkpointing(enable, *args, **kwargs)
        for handle in self._statistics_hooks:
            handle.remove()
        norms = [module for module in self.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
        self._statistics_hooks = [
            handle
            for norm in (norms if enable else ())
            for handle in (
                norm.register_forward_pre_hook(_hold_statistics),
                # Recomputation stops by an exception as soon as it has what it needs.
                norm.register_forward_hook(_release_statistics, always_call=True),
            )
        ]

    def _wanted(self, argument: bool | None, name: str) -> bool:
        return bool(getattr(self.config, name) if argument is None else argument)

    def check_input(self, pixel_values: Tensor) -> None:
        """Raise ValueError unless the input is (B, num_channels, image_size, image_size)."""
        wanted = (self.config.num_channels, self.config.image_size, self.config.image_size)
        if pixel_values.ndim != 4 or tuple(pixel_values.shape[1:]) != wanted:
            raise ValueError(
                f"pixel_values has shape {tuple(pixel_values.shape)}; this model takes (B, {wanted[0]}, {wanted[1]}, "
                f"{wanted[2]}): prepare pictures with its image processor"
            )


class StochasticDepth(nn.Module):
    """Drops the whole residual branch of random samples and scales the rest (Huang et al., arXiv 1603.09382)."""

    def __init__(self, probability: float):
        super().__init__()
        self.probability = probability

    def forward(self, branch: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return branch
        keep = 1 - self.probability
        mask = torch.empty(branch.shape[0], 1, 1, 1, device=branch.device, dtype=branch.dtype).bernoulli_(keep)
        return branch * mask / keep
