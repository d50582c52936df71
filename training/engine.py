"""One training step, one epoch, one evaluation pass: no files, no arguments."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler

from fer_hf.data.loaders import ArraySplit, LazySplit
from fer_hf.data.transforms import AugmentOptions, augment, mix
from training.distillation import DistillRecipe, Teacher, distillation_loss
from training.losses import ExpressionLoss
from training.recording import Recorded

Normalize = Callable[[Tensor], Tensor]


class EpochSampler(Sampler[int]):
    """Row numbers of an epoch as a function of seed and epoch alone, the same on every process.

    With ``weights`` (N,) rows are drawn with replacement in proportion to them; accelerate then deals the batches out,
    so weighting stays right however many processes there are.
    """

    def __init__(self, count: int, seed: int, weights: Tensor | None = None):
        self.count, self.seed, self.weights, self.epoch = count, seed, weights, 0

    def __len__(self) -> int:
        return self.count

    def begin_epoch(self, epoch: int) -> None:
        """Choose the epoch. Not named ``set_epoch``: accelerate calls that with its own count, 0 after a resume."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(mix_seed(self.seed, self.epoch))
        if self.weights is None:
            order = torch.randperm(self.count, generator=generator)
        else:
            order = torch.multinomial(self.weights, self.count, replacement=True, generator=generator)
        return iter(order.tolist())


def mix_seed(*parts: int) -> int:
    """One seed from several small numbers; a different one for every combination in practice."""
    seed = 0
    for part in parts:
        seed = (seed * 1_000_003 + part + 1) % 2**63
    return seed


def split_loader(split: ArraySplit | LazySplit, batch_size: int, sampler: Sampler[int] | None = None) -> DataLoader:
    """Batches for ``split.fetch``; training (with a sampler) drops a short last batch."""
    workers = (os.cpu_count() or 1) if isinstance(split, LazySplit) else 0
    return DataLoader(
        split.batched, batch_size=batch_size, sampler=sampler, drop_last=sampler is not None, num_workers=workers
    )


@dataclass
class Step:
    """Everything one optimizer step needs, assembled once."""

    accelerator: Accelerator
    model: nn.Module
    loss: ExpressionLoss
    optimizer: torch.optim.Optimizer
    normalize: Normalize
    augment: AugmentOptions
    clip_norm: float | None
    teacher: Teacher | None
    distill: DistillRecipe
    recorded: bool = False  # replay a CUDA graph of what follows augmentation and teacher, see Recorded

    def __post_init__(self):
        self._learn = Recorded(self.learn) if self.recorded else self.learn

    def __call__(self, images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Learn from (B, C, H, W) uint8 and distributions (B, K).

        Returns detached loss (scalar), raw logits (B, K) and what they should have been (B, K), mixed as pictures were.

        Dropout and augmentation are functions of ``seed``, so a resumed run draws what the first would have drawn.
        """
        torch.manual_seed(seed)
        generator = torch.Generator(images.device).manual_seed(seed)
        images, targets = mix(augment(images, self.augment, generator), labels, self.augment, generator)
        inputs = [self.normalize(images), targets]
        if self.teacher is not None:
            with self.accelerator.autocast():
                inputs.append(self.teacher(images))
        loss, raw_logits = self._learn(*inputs)
        return loss, raw_logits, targets

    def learn(self, pixels: Tensor, targets: Tensor, taught: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Move the weights by one batch of ``pixel_values``; ``taught`` (B, K) is what the teacher answers."""
        with self.accelerator.accumulate(self.model):
            with self.accelerator.autocast():
                raw_logits = self.model(pixels).raw_logits
                loss = self.loss(raw_logits, targets)
                if taught is not None:
                    loss = torch.lerp(
                        loss, distillation_loss(raw_logits, taught, self.distill.temperature), self.distill.weight
                    )
            self.accelerator.backward(loss)
            if self.clip_norm and self.accelerator.sync_gradients:
                self.accelerator.clip_grad_norm_(self.model.parameters(), self.clip_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return loss.detach(), raw_logits.detach().float()


@torch.inference_mode()
def predict_logits(
    accelerator: Accelerator, model: nn.Module, data: ArraySplit | LazySplit, normalize: Normalize, batch_size: int
) -> Tensor:
    """Raw logits (N, K) float32 of every row in order, on the CPU of every process; each row counted once."""
    was_training = model.training
    model.eval()
    loader = accelerator.prepare_data_loader(split_loader(data, batch_size))
    parts = []
    for batch in loader:
        images, _ = data.fetch(batch)
        pixels = normalize(images)
        with accelerator.autocast():
            raw_logits = model(pixels).raw_logits
        parts.append(accelerator.gather_for_metrics(raw_logits.float()).cpu())
    model.train(was_training)
    return torch.cat(parts)
