"""Learning rates: functions of the step alone, so that a resumed run needs no state."""

from __future__ import annotations

import math
from collections.abc import Callable

from tokenmix.names import unknown
from tokenmix.recipes.recipe import SCHEDULES, Recipe


def learning_rate(
    step: int, *, total: int, warmup: int, lr: float, min_lr: float = 0.0, warmup_lr: float = 0.0, schedule: str
) -> float:
    """The learning rate of one step.

    It rises linearly over the first ``warmup`` steps, of which the last has ``lr``, and then follows the schedule;
    cosine and linear reach ``min_lr`` at the step ``total`` and stay there.

    Args:
        step: From 0.
        total: Steps of the schedule, the rise included.
        warmup: Steps of the rise.
        lr: The peak.
        min_lr: The end of cosine and linear.
        warmup_lr: Where the rise would begin, one step before the first.
        schedule: ``cosine``, ``linear`` or ``constant``.

    Raises:
        ValueError: An unknown schedule.
    """
    if step < warmup:
        return warmup_lr + (lr - warmup_lr) * (step + 1) / warmup
    share = min(1.0, (step - warmup) / max(1, total - warmup))
    if schedule == "cosine":
        return min_lr + (lr - min_lr) * (1 + math.cos(math.pi * share)) / 2
    if schedule == "linear":
        return lr + (min_lr - lr) * share
    if schedule == "constant":
        return lr
    raise ValueError(unknown("schedule", schedule, SCHEDULES))


class Calendar:
    """How many steps a run has, epoch by epoch, and the learning rate of each.

    Args:
        recipe: Epochs, warm-up, cool-down and schedule.
        steps: How many steps a whole epoch has, which may differ from epoch to epoch.
    """

    def __init__(self, recipe: Recipe, steps: Callable[[int], int]) -> None:
        self.recipe = recipe
        self.whole = [steps(epoch) for epoch in range(math.ceil(recipe.epochs))]
        self.total = max(1, self._steps(recipe.epochs))
        last = self.total - sum(self.whole[:-1])
        self.lengths = self.whole[:-1] + ([last] if last else [])  # steps of the run's epochs
        self.warmup = recipe.warmup_steps or self._steps(recipe.warmup_epochs)
        self.falling = self._steps(recipe.epochs - recipe.cooldown_epochs)

    def _steps(self, epochs: float) -> int:
        """The steps of the first epochs."""
        whole = int(epochs)
        rest = epochs - whole
        return sum(self.whole[:whole]) + (round(rest * self.whole[whole]) if rest else 0)

    def lr(self, step: int) -> float:
        """The learning rate of a step of the run."""
        recipe = self.recipe
        return learning_rate(
            step,
            total=self.falling,
            warmup=self.warmup,
            lr=recipe.lr,
            min_lr=recipe.min_lr,
            warmup_lr=recipe.warmup_lr,
            schedule=recipe.schedule,
        )
