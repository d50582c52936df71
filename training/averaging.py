"""Averages of the weights over a run: exponential (EMA) or of the last epochs (SWA)."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


@dataclass
class AverageRecipe:
    """Averages that are evaluated and saved in place of the raw weights."""

    ema_decay: float = 0.0  # 0 is off; warmed up, so that early epochs are not held back
    swa_last: int = 0  # average the weights of this many last epochs (Izmailov et al., arXiv 1803.05407)

    def __post_init__(self):
        if self.ema_decay and self.swa_last:
            raise ValueError("average.ema_decay and average.swa_last exclude each other: choose one average")


class WeightAverages:
    """The averages a recipe keeps; without one, every method leaves things as they are."""

    def __init__(self, recipe: AverageRecipe, model: nn.Module, epochs: int):
        self.first_swa_epoch = epochs - recipe.swa_last
        self.ema = ModelEmaV3(model, decay=recipe.ema_decay, use_warmup=True) if recipe.ema_decay else None
        self.swa = AveragedModel(model) if recipe.swa_last else None

    def after_step(self, model: nn.Module, step: int) -> None:
        if self.ema is not None:
            self.ema.update(model, step=step)

    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        """Take in the weights after finished epoch number ``epoch``, counted from 1."""
        if self.swa is not None and epoch > self.first_swa_epoch:
            self.swa.update_parameters(model)

    def evaluated(self, model: nn.Module) -> nn.Module:
        """The model whose validation counts while the run goes on."""
        return model if self.ema is None else self.ema.module

    def state_dict(self) -> dict:
        return {
            "ema": None if self.ema is None else self.ema.module.state_dict(),
            "swa": None if self.swa is None else self.swa.state_dict(),
            "first_swa_epoch": self.first_swa_epoch,
        }

    def load_state_dict(self, state: dict) -> None:
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        # A recipe that was made longer since has other last epochs: what was averaged is not theirs.
        if self.swa is not None and state.get("first_swa_epoch", self.first_swa_epoch) == self.first_swa_epoch:
            self.swa.load_state_dict(state["swa"])


@torch.no_grad()
def share_statistics(accelerator: Accelerator, model: nn.Module) -> None:
    """Give every process the mean of what all hold as running statistics: each has seen its own part of the batches."""
    if accelerator.num_processes > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.copy_(accelerator.reduce(buffer, "mean"))


@torch.no_grad()
def recompute_batch_norms(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace running statistics by the mean over ``batches`` of pixel values, since averaged weights have none."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
    model.train()
    for pixel_values in batches:
        model(pixel_values)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()
