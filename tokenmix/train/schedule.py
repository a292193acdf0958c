"""Learning rates: functions of the step alone, so that a resumed run needs no state."""

from __future__ import annotations

import math

from tokenmix.names import unknown
from tokenmix.recipes.recipe import SCHEDULES


def learning_rate(step: int, *, total: int, warmup: int, lr: float, min_lr: float = 0.0, schedule: str) -> float:
    """The learning rate of one step.

    It rises linearly over the first ``warmup`` steps, of which the last has ``lr``, and then follows the schedule;
    cosine and linear would reach ``min_lr`` at the step after the last.

    Args:
        step: 0 to total - 1.
        total: Steps in the whole run.
        warmup: Steps of the rise.
        lr: The peak.
        min_lr: The end of cosine and linear.
        schedule: ``cosine``, ``linear`` or ``constant``.

    Raises:
        ValueError: An unknown schedule.
    """
    if step < warmup:
        return lr * (step + 1) / warmup
    share = min(1.0, (step - warmup) / max(1, total - warmup))
    if schedule == "cosine":
        return min_lr + (lr - min_lr) * (1 + math.cos(math.pi * share)) / 2
    if schedule == "linear":
        return lr + (min_lr - lr) * share
    if schedule == "constant":
        return lr
    raise ValueError(unknown("schedule", schedule, SCHEDULES))
