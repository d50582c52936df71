"""Learning-rate factors. All but ``plateau`` are functions of progress alone, so a resumed run needs no state."""

import math
from dataclasses import dataclass, field

SCHEDULES = ("constant", "cosine", "step", "plateau")


@dataclass
class ScheduleRecipe:
    """How the learning rate moves within a phase."""

    name: str = "cosine"
    warmup_epochs: float = 0.0  # linear from 0, before any schedule
    floor: float = 0.0  # the least factor of cosine and plateau
    step_epochs: tuple[float, ...] = ()  # step: multiply by `factor` after each of these
    factor: float = 0.1  # step, plateau
    patience: int = 3  # plateau: epochs without a better validation score before the rate falls

    def __post_init__(self):
        self.step_epochs = tuple(self.step_epochs)
        if self.name not in SCHEDULES:
            raise ValueError(f"schedule.name is {self.name!r}; choose one of {', '.join(SCHEDULES)}")
        if not 0 < self.factor < 1:
            raise ValueError(f"schedule.factor must be in (0, 1); {self.factor} was given")


@dataclass
class Schedule:
    """The factor at any moment of a phase of ``epochs`` epochs; ``state`` is what plateau remembers."""

    recipe: ScheduleRecipe
    epochs: float
    state: dict = field(default_factory=lambda: {"factor": 1.0, "best": -math.inf, "waited": 0})

    def factor_at(self, epoch: float) -> float:
        """Factor of the base rate at a fractional epoch in [0, epochs]."""
        recipe = self.recipe
        if epoch < recipe.warmup_epochs:
            return epoch / recipe.warmup_epochs
        if recipe.name == "cosine":
            span = max(self.epochs - recipe.warmup_epochs, 1e-9)
            cosine = 0.5 * (1 + math.cos(math.pi * min((epoch - recipe.warmup_epochs) / span, 1.0)))
            return recipe.floor + (1 - recipe.floor) * cosine
        if recipe.name == "step":
            return recipe.factor ** sum(epoch >= step for step in recipe.step_epochs)
        if recipe.name == "plateau":
            return self.state["factor"]
        return 1.0

    def after_epoch(self, score: float) -> None:
        """Take note of a validation score (higher is better)."""
        state = self.state
        if score > state["best"]:
            state["best"], state["waited"] = score, 0
            return
        state["waited"] += 1
        if state["waited"] > self.recipe.patience:
            state["factor"], state["waited"] = max(state["factor"] * self.recipe.factor, self.recipe.floor), 0
