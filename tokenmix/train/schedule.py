"""Learning rates: functions of the step alone, so that a resumed run needs no state."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tokenmix.recipes.parts import SCHEDULES
from tokenmix.recipes.recipe import Recipe
from tokenmix_runtime.names import unknown


def learning_rate(
    step: int,
    *,
    total: int,
    warmup: int,
    lr: float,
    min_lr: float = 0.0,
    warmup_lr: float = 0.0,
    schedule: str,
    power: float = 1.0,
    milestones: Sequence[int] = (),
    factor: float = 0.1,
) -> float:
    """The learning rate of one step.

    It rises linearly over the first ``warmup`` steps, of which the last is the schedule's own. ``cosine`` and
    ``linear`` begin after the rise, reach ``min_lr`` at the step ``total`` and stay there. ``poly`` does so from the
    first step on, as mmsegmentation has it: ``(1 - step / total) ** power`` of the way is left. ``step`` multiplies by
    ``factor`` at each milestone. ``onecycle`` rises and falls along half a cosine each, as torch's `OneCycleLR` does:
    from ``warmup_lr`` at the first step to ``min_lr`` at the last.

    Args:
        step: From 0.
        total: Steps of the schedule, the rise included.
        warmup: Steps of the rise.
        lr: The peak.
        min_lr: The end of cosine, linear and poly.
        warmup_lr: Where the rise would begin, one step before the first.
        schedule: ``cosine``, ``onecycle``, ``linear``, ``poly``, ``step`` or ``constant``.
        power: Of poly.
        milestones: Of step: steps from 0, the first ones with the smaller rate.
        factor: Of step.

    Raises:
        ValueError: An unknown schedule.
    """
    if schedule == "onecycle":
        return _one_cycle(step, max(warmup - 1, 0), total - 1, warmup_lr, lr, min_lr)
    share = min(1.0, max(0, step - warmup) / max(1, total - warmup))
    if schedule == "cosine":
        rate = min_lr + (lr - min_lr) * (1 + math.cos(math.pi * share)) / 2
    elif schedule == "linear":
        rate = lr + (min_lr - lr) * share
    elif schedule == "poly":
        rate = min_lr + (lr - min_lr) * (1 - min(1.0, step / max(1, total))) ** power
    elif schedule == "step":
        rate = lr * factor ** sum(step >= milestone for milestone in milestones)
    elif schedule == "constant":
        rate = lr
    else:
        raise ValueError(unknown("schedule", schedule, SCHEDULES))
    return warmup_lr + (rate - warmup_lr) * (step + 1) / warmup if step < warmup else rate


def _one_cycle(step: int, top: float, end: float, first: float, peak: float, last: float) -> float:
    """From ``first`` at the step 0 to ``peak`` at the step ``top``, and to ``last`` at ``end``, along half cosines."""
    if step < top:
        return peak + (first - peak) * (1 + math.cos(math.pi * step / top)) / 2
    share = min(1.0, (step - top) / max(1, end - top))
    return last + (peak - last) * (1 + math.cos(math.pi * share)) / 2


class Calendar:
    """How many steps a run has, epoch by epoch, and the learning rate of each.

    Args:
        recipe: Epochs or steps, warm-up, cool-down and schedule.
        steps: How many steps a whole epoch has, which may differ from epoch to epoch.
    """

    def __init__(self, recipe: Recipe, steps: Callable[[int], int]) -> None:
        schedule = self.schedule = recipe.schedule
        self.peak = recipe.optimizer.lr
        self.whole: list[int] = []
        if schedule.steps is None:
            self.whole = [steps(epoch) for epoch in range(math.ceil(schedule.epochs))]
            self.total = max(1, self._steps(schedule.epochs))
            self.falling = self._steps(schedule.epochs - schedule.cooldown_epochs)
        else:
            left = self.total = self.falling = schedule.steps
            while left > 0:
                self.whole.append(steps(len(self.whole)))
                left -= self.whole[-1]
        last = self.total - sum(self.whole[:-1])
        self.lengths = self.whole[:-1] + ([last] if last else [])  # steps of the run's epochs
        self.epochs = schedule.epochs if schedule.steps is None else len(self.whole) - 1 + last / self.whole[-1]
        self.warmup = schedule.warmup_steps or self._steps(schedule.warmup_epochs)
        self.milestones = [self._steps(milestone) for milestone in schedule.milestones]

    def long_rise(self) -> str:
        """In words, that most of the run is warm-up, and the remedy; empty where it is not."""
        if 2 * self.warmup <= self.total:
            return ""
        highest = max(map(self.lr, range(self.total)))
        rare = self.schedule.warmup_steps > 0
        remedy = f"warmup_steps={self.total // 10}" if rare else f"warmup_epochs={self.epochs / 10:.2g}"
        return (
            f"the learning rate rises for {self.warmup:,} steps, and the run has {self.total:,}: it reaches "
            f"{highest:.2g} of lr={self.peak:g}; {remedy} would leave time to learn at it"
        )

    def _steps(self, epochs: float) -> int:
        """The steps of the first epochs, at most all."""
        epochs = min(epochs, len(self.whole))
        whole = int(epochs)
        rest = epochs - whole
        return sum(self.whole[:whole]) + (round(rest * self.whole[whole]) if rest else 0)

    def lr(self, step: int) -> float:
        """The learning rate of a step of the run."""
        schedule = self.schedule
        return learning_rate(
            step,
            total=self.falling,
            warmup=self.warmup,
            lr=self.peak,
            min_lr=schedule.min_lr,
            warmup_lr=schedule.warmup_lr,
            schedule=schedule.name,
            power=schedule.power,
            milestones=self.milestones,
            factor=schedule.milestone_factor,
        )
