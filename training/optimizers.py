"""What learns in a phase, and the optimizer that moves it."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class OptimizerRecipe:
    """One step of the optimizer. Norms and biases are never decayed."""

    name: str = "sgd"  # sgd (Nesterov), adam, adamw
    lr: float = 0.1
    momentum: float = 0.9  # sgd
    weight_decay: float = 0.0
    clip_norm: float | None = None
    accumulate: int = 1  # batches to a step

    def __post_init__(self):
        if self.name not in ("sgd", "adam", "adamw"):
            raise ValueError(f"optimizer.name is {self.name!r}; choose sgd, adam or adamw")
        if self.lr <= 0 or self.accumulate < 1:
            raise ValueError("optimizer.lr must be above 0 and optimizer.accumulate at least 1")


def trainable_parameters(model: nn.Module, train_last: int | None) -> list[nn.Parameter]:
    """Freeze all but the last ``train_last`` leaf modules with parameters (None: freeze nothing); returns what learns.

    A leaf module owns parameters and has no children; 0 leaves one, the classifier. A parameter that belongs to a
    module with children is frozen with the rest.
    """
    leaves = [m for m in model.modules() if not list(m.children()) and list(m.parameters(recurse=False))]
    learning = leaves if train_last is None else leaves[-max(train_last, 1) :]
    chosen = {id(p) for module in learning for p in module.parameters(recurse=False)}
    for parameter in model.parameters():
        parameter.requires_grad_(train_last is None or id(parameter) in chosen)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def set_training_mode(model: nn.Module) -> None:
    """Training mode, but for batch norms that are frozen: those keep the statistics they came with."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine and not module.weight.requires_grad:
            module.eval()


def build_optimizer(parameters: list[nn.Parameter], recipe: OptimizerRecipe, lr: float) -> torch.optim.Optimizer:
    """The optimizer of a phase over its parameters."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if recipe.name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=True)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.name](groups, lr=lr, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate, in place where a CUDA graph reads it."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def place_rate(optimizer: torch.optim.Optimizer, device: torch.device | None) -> None:
    """Hold the learning rate in a tensor on ``device``, where a CUDA graph can read it; as a number without one.

    The state of a run that was recorded, or was not, may have been loaded before.
    """
    for group in optimizer.param_groups:
        rate = float(group["lr"])
        group["lr"] = rate if device is None else torch.tensor(rate, device=device)
        if "capturable" in group:
            group["capturable"] = device is not None
