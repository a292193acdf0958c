"""The moving average of the weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from tokenmix.tasks import Objective
from tokenmix.train.distributed import local


class Average:
    """A second copy of the objective whose state follows the trained one: ``average += (1 - decay) (state - average)``.

    The first steps use the smaller decay ``(1 + step) / (10 + step)``, so that a short run does not keep its
    initialisation. Norm statistics are averaged like weights; integers are copied.

    Args:
        objective: What is trained; the average starts at its state.
        decay: Per step, 0 to 1.
    """

    def __init__(self, objective: Objective, decay: float) -> None:
        self.objective = copy.deepcopy(objective).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, objective: Objective, step: int) -> None:
        """Follow the objective's state after optimiser step ``step``, counted from 0."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        pairs: list[tuple[Tensor, Tensor]] = [
            (_real(local(average)), _real(local(value)))
            for average, value in zip(
                self.objective.state_dict().values(), objective.state_dict().values(), strict=True
            )
        ]
        floating = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([pair[0] for pair in floating], [pair[1] for pair in floating], weight)
        for average, value in pairs:
            if not average.is_floating_point():
                average.copy_(value)


def _real(value: Tensor) -> Tensor:
    """A view of a complex value as real ones; any other as it is."""
    return torch.view_as_real(value) if value.is_complex() else value
