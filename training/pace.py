"""How far a run is in a phase: by its epochs, or by the clock where it must end in time and the clock is ahead."""

import time
from collections.abc import Callable

from accelerate.utils import broadcast_object_list


class Pace:
    """The share of a phase that is over, which sets the learning rate and says when the phase ends.

    With ``limit_s`` the seconds that are left are dealt out to the phases by their epochs. Where they do not suffice,
    epochs are left out and the schedule runs through to its end all the same; every phase gets one epoch at least.
    """

    def __init__(self, limit_s: float | None = None, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self.ends_at = None if limit_s is None else clock() + limit_s

    def enter(self, planned: int, done: int, later: int) -> None:
        """Begin a phase of ``planned`` epochs, or go on after ``done`` of them; ``later`` epochs follow in others."""
        self.planned, self.entered_with = planned, done
        if self.ends_at is not None:
            self.entered_at, left = self.clock(), max(planned - done, 0)
            self.window_s = max((self.ends_at - self.entered_at) * left / max(left + later, 1), 1e-9)

    def next_epoch(self, done: int) -> tuple[float, float]:
        """The share that is over after ``done`` epochs and the share that one more takes, equal on all processes."""
        over, step = done / self.planned, 1 / self.planned
        if self.ends_at is None:
            return over, step
        before = self.entered_with / self.planned
        passed = (1 - before) * (self.clock() - self.entered_at) / self.window_s
        over = max(over, before + passed)
        if done > self.entered_with:
            step = max(step, passed / (done - self.entered_with))
        return tuple(broadcast_object_list([over, step]))

    def is_over(self, done: int) -> bool:
        """Whether another epoch would overrun by more than half of it."""
        over, step = self.next_epoch(done)
        return done >= self.planned or (done > self.entered_with and over + step / 2 > 1)
