"""What a task makes of a model: its loss, its predictions and its metric, on batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from tokenmix.metrics import Metric

Batch = dict[str, Any]


class Objective(nn.Module, ABC):
    """A model with its loss, its predictions and its metric.

    ``model`` is the network that is saved and shipped.

    Examples:
        >>> from tokenmix.recipes import make_recipe
        >>> from tokenmix.tasks import find_task
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
        >>> objective = find_task("classification").objective(make_recipe("basic"), model, {"classes": ("cat", "dog")})
        >>> batch = {"image": torch.randn(4, 3, 8, 8), "label": torch.tensor([0, 1, 1, 0])}
        >>> objective(batch)["loss"].shape, objective.predict(batch).shape
        (torch.Size([]), torch.Size([4, 2]))
    """

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

    def parts(self, batch: Batch, count: int) -> list[tuple[Batch, int]]:
        """The batch in at most ``count`` parts, in order and of about the same size, each with its number of samples.

        Here every value of the batch has an entry for each sample; a task whose batches are made otherwise says how to
        cut them.
        """
        samples = len(batch["index"])
        size = -(-samples // count)
        parts = []
        for begin in range(0, samples, size):
            part = {key: value[begin : begin + size] for key, value in batch.items()}
            parts.append((part, len(part["index"])))
        return parts


def to_device(batch: Batch, device: torch.device | str, *, channels_last: bool = False) -> Batch:
    """A copy of the batch whose tensors, also those in lists and dicts, are on ``device``.

    Args:
        batch: Names to tensors, lists, dicts and other values; the last are taken as they are.
        device: Where to.
        channels_last: Whether to lay out (B, C, H, W) tensors as NHWC; their shape stays.

    Examples:
        >>> from tokenmix.tasks import to_device
        >>> image = to_device({"image": torch.ones(2, 3, 8, 8)}, "cpu", channels_last=True)["image"]
        >>> image.shape, image.is_contiguous(memory_format=torch.channels_last)
        (torch.Size([2, 3, 8, 8]), True)
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
