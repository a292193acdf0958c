"""One step of training, to be timed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tokenmix.tasks import Task


def training_step(task: Task, model: nn.Module, inputs: Tensor) -> Callable[[], None]:
    """A call that does one step: forward, the task's loss of a made-up truth, backward, AdamW.

    Args:
        task: The model's, which must have such a loss, see `tokenmix.tasks.base.Task.training_loss`.
        model: It is trained, and on the inputs' device.
        inputs: (B, ...).
    """
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        task.training_loss(model, inputs).backward()
        optimizer.step()

    return step
