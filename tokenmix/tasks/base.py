"""What the training and evaluation loops know about a job, and nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from tokenmix.metrics import Metric

Batch = dict[str, Any]


class Task(nn.Module, ABC):
    """A model with its loss, its predictions and its metric.

    ``headline`` names the number of the metric that decides which weights are best; with a leading ``-`` the smaller
    one is better. ``model`` is the network that is saved and shipped. The constructor takes ``model``, ``num_classes``
    and the keys of a recipe that ``recipe_keys`` names.
    """

    headline: str
    recipe_keys: tuple[str, ...] = ()
    model: nn.Module

    @abstractmethod
    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """A batch -> ``{"loss": scalar with gradient, <part of it>: detached scalar, ...}``."""

    @abstractmethod
    def predict(self, batch: Batch) -> Any:
        """A batch -> what the metric and the user read."""

    @abstractmethod
    def metric(self) -> Metric:
        """A fresh metric for what ``predict`` returns."""


def to_device(batch: Batch, device: torch.device | str, *, channels_last: bool = False) -> Batch:
    """A copy of the batch whose tensors, also those in lists and dicts, are on ``device``.

    ``channels_last`` lays out (B, C, H, W) tensors as NHWC.
    """

    def move(value: Any) -> Any:
        if isinstance(value, list):
            return [move(part) for part in value]
        if isinstance(value, dict):
            return {key: move(part) for key, part in value.items()}
        if not isinstance(value, Tensor):
            return value
        if channels_last and value.ndim == 4:
            return value.to(device, non_blocking=True, memory_format=torch.channels_last)
        return value.to(device, non_blocking=True)

    return {key: move(value) for key, value in batch.items()}
