"""A network on points with its loss, its predictions and its metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from tokenmix.metrics import SegmentationOverlap
from tokenmix.tasks.objective import Batch, Objective
from tokenmix.tasks.points.cloud import Cloud
from tokenmix.tasks.points.loss import points_loss
from tokenmix.tasks.points.model import PointUNet
from tokenmix.tasks.points.votes import look


class PointsObjective(Objective):
    """A batch of `tokenmix.tasks.points.batches.collate` -> cross-entropy and Lovász loss; classes of all points.

    Args:
        model: (feat, grid_coord, offset) -> logits (V, K).
        num_classes: K.
        features: What the model reads of a point.
        voxel: Side of a voxel in metres.
        lovasz_weight: Of the Lovász loss.
        views: How clouds are looked at where a batch has them whole, see `tokenmix.tasks.points.votes.look`.

    Raises:
        ValueError: In use, if the model's logits do not have K columns.
    """

    model: PointUNet

    def __init__(
        self,
        model: PointUNet,
        *,
        num_classes: int,
        features: Sequence[str],
        voxel: float,
        lovasz_weight: float = 1.0,
        views: str = "quick",
    ) -> None:
        super().__init__()
        self.model = model
        self.num_classes, self.features, self.voxel = num_classes, tuple(features), voxel
        self.lovasz_weight, self.views = lovasz_weight, views

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """``loss``, and its parts."""
        return points_loss(self._logits(batch), batch["segment"], self.lovasz_weight)

    def _logits(self, batch: Batch) -> Tensor:
        logits = self.model(batch["feat"], batch["grid_coord"], batch["offset"])
        if logits.ndim != 2 or logits.shape[1] != self.num_classes:
            raise ValueError(
                f"the model returns {tuple(logits.shape)}, but the data has {self.num_classes} classes: "
                f"build it with num_classes={self.num_classes}"
            )
        return logits

    def predict(self, batch: Batch) -> list[Tensor]:
        """Of each cloud the classes of all its points, (P,) int64."""
        if self.views == "quick" or "cloud" not in batch:
            ends = [0, *batch["offset"].tolist()]
            best = self._logits(batch).argmax(1)
            return [best[ends[i] : ends[i + 1]][rows] for i, rows in enumerate(batch["rows"])]
        answers = []
        for parts in batch["cloud"]:
            arrays: dict[str, Any] = {name: np.asarray(tensor.cpu()) for name, tensor in parts.items()}
            probability = look(self.model, Cloud(**arrays), self.features, self.voxel, self.views)
            answers.append(probability.argmax(1).to(batch["feat"].device))
        return answers

    def metric(self) -> SegmentationOverlap:
        """mIoU, mAcc and aAcc in percent, over all points."""
        return SegmentationOverlap(self.num_classes)

    def parts(self, batch: Batch, count: int) -> list[tuple[Batch, int]]:
        """The batch in parts of whole clouds; clouds that are mixed stay together."""
        ends = [0, *batch["offset"].tolist()]
        clouds = len(ends) - 1
        size = -(-clouds // count)
        samples = len(batch["index"])
        each = -(-samples // max(clouds, 1))  # mixed ones are two by two, and an odd last one is alone
        parts = []
        for begin in range(0, clouds, size):
            end = min(begin + size, clouds)
            points = slice(ends[begin], ends[end])
            part: dict[str, Any] = {key: batch[key][points] for key in ("feat", "grid_coord", "segment")}
            part["offset"] = batch["offset"][begin:end] - ends[begin]
            parts.append((part, min(end * each, samples) - min(begin * each, samples)))
        return parts
