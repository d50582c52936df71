"""Losses on raw logits (B, K) against distributions (B, K); class indices are one-hot rows of the same thing."""

from dataclasses import dataclass

import torch
from torch import Tensor

CLASS_WEIGHTS = ("none", "inverse", "effective")


@dataclass
class LossRecipe:
    """Cross-entropy, or focal where ``focal_gamma`` > 0 (Lin et al., arXiv 1708.02002)."""

    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    class_weights: str = "none"  # none, inverse (frequency), effective (number of samples, arXiv 1901.05555)
    effective_beta: float = 0.999
    logit_temperature: float = 1.0  # divides the logits in training, as a published system may ask

    def __post_init__(self):
        if self.class_weights not in CLASS_WEIGHTS:
            raise ValueError(f"loss.class_weights is {self.class_weights!r}; choose one of {', '.join(CLASS_WEIGHTS)}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"loss.label_smoothing must be in [0, 1); {self.label_smoothing} was given")
        if self.focal_gamma < 0 or self.logit_temperature <= 0:
            raise ValueError("loss.focal_gamma must be at least 0 and loss.logit_temperature above 0")


def class_weights(targets: Tensor, recipe: LossRecipe) -> Tensor:
    """(K,) weights with mean 1 over the training set (N, K).

    Raises ValueError where a class has no samples, since its weight would be infinite.
    """
    counts = targets.sum(0)
    if recipe.class_weights == "none":
        return torch.ones_like(counts)
    if (counts <= 0).any():
        raise ValueError(
            f"class weights need samples of every class; classes {torch.where(counts <= 0)[0].tolist()} have none"
        )
    if recipe.class_weights == "inverse":
        weights = 1 / counts
    else:
        weights = (1 - recipe.effective_beta) / (1 - recipe.effective_beta**counts)
    return weights * counts.sum() / (weights * counts).sum()


class ExpressionLoss:
    """Mean loss of a batch; ``weights`` (K,) scale each class's share."""

    def __init__(self, recipe: LossRecipe, weights: Tensor):
        self.recipe, self.weights = recipe, weights

    def __call__(self, raw_logits: Tensor, targets: Tensor) -> Tensor:
        recipe = self.recipe
        log_p = (raw_logits.float() / recipe.logit_temperature).log_softmax(1)
        targets = targets * (1 - recipe.label_smoothing) + recipe.label_smoothing / targets.shape[1]
        loss = -targets * log_p * self.weights
        if recipe.focal_gamma:
            loss = loss * (1 - log_p.exp()) ** recipe.focal_gamma
        return loss.sum(1).mean()
