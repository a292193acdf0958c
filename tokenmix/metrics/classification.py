"""Metrics of classification: top-1 and top-5 accuracy, loss, and scores over the classes."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tokenmix.metrics.base import Metric

NOTHING = "nothing was evaluated: the data set is empty, or every sample is masked"


def counted(logits: Tensor, batch: dict[str, Any]) -> Tensor:
    """(B,) bool: the samples that count."""
    mask = batch.get("mask")
    return mask if mask is not None else torch.ones(len(logits), dtype=torch.bool, device=logits.device)


def classes_of(label: Tensor) -> Tensor:
    """(B,) or (B, K) -> (B,) int64: the class, of soft labels the most probable one."""
    return label.argmax(1) if label.ndim == 2 else label


class TopK(Metric):
    """Logits (B, K), label (B,) or (B, K) -> ``top1`` and ``top5`` in percent and the mean cross-entropy ``loss``.

    With fewer than five classes ``top5`` is 100, since the right class is always among them. A sample whose logits are
    not all finite counts as wrong. The loss is that of the labels as they are, without smoothing.

    Examples:
        >>> accuracy = TopK()
        >>> accuracy.update(torch.eye(8), {"label": torch.tensor([0, 1, 2, 3, 4, 5, 5, 5])})
        >>> accuracy.compute()["top1"]
        75.0
    """

    def __init__(self) -> None:
        super().__init__((4,))

    def update(self, prediction: Tensor, batch: dict[str, Any]) -> None:
        """Add a batch; see the class."""
        logits = prediction.detach()
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        valid, label = counted(logits, batch), batch["label"]
        classes = classes_of(label)
        finite = logits.isfinite().all(1)
        ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices == classes[:, None]  # (B, <=5)
        loss = F.cross_entropy(logits, label if label.ndim == 1 else label.to(logits.dtype), reduction="none")
        columns = torch.stack((ranked[:, 0] & finite, ranked.any(1) & finite, torch.ones_like(finite)), dim=1)
        counts = (columns & valid[:, None]).sum(0, dtype=torch.float64)
        self.add(torch.cat((counts, loss.double().where(valid, loss.new_zeros((), dtype=torch.float64)).sum()[None])))

    def compute(self) -> dict[str, float]:
        """``{"top1": percent, "top5": percent, "loss": mean cross-entropy in nats}``."""
        top1, top5, count, loss = self.total().tolist()
        if not count:
            raise ValueError(NOTHING)
        return {"top1": 100 * top1 / count, "top5": 100 * top5 / count, "loss": loss / count}


class ClassScores(Metric):
    """As `TopK`, and over the classes: ``balanced_top1``, the mean of their recalls, and ``macro_f1``, in percent.

    A class without a sample counts for neither, unless it was predicted: then its F1 is 0.

    Args:
        num_classes: K.

    Examples:
        >>> scores = ClassScores(num_classes=2)
        >>> scores.update(torch.tensor([[1.0, 0.0]] * 4), {"label": torch.tensor([0, 0, 0, 1])})
        >>> scores.compute()["top1"], scores.compute()["balanced_top1"]
        (75.0, 50.0)
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__((3, num_classes))
        self.overall = TopK()

    def update(self, prediction: Tensor, batch: dict[str, Any]) -> None:
        """Add a batch; see the class."""
        self.overall.update(prediction, batch)
        logits, classes = prediction.detach(), classes_of(batch["label"])
        finite, valid, size = logits.isfinite().all(1), counted(logits, batch), self.sums.shape[1]
        told = logits.nan_to_num().argmax(1)

        def count(which: Tensor, of: Tensor) -> Tensor:
            return torch.bincount(which[of], minlength=size).double()

        hits = valid & finite & (told == classes)
        self.add(torch.stack((count(classes, hits), count(classes, valid), count(told, valid & finite))))

    def compute(self) -> dict[str, float]:
        """``{"top1", "top5", "balanced_top1", "macro_f1"}`` in percent, and ``loss``."""
        overall = self.overall.compute()
        hits, there, told = self.total()
        seen, named = there > 0, there + told > 0
        loss = overall.pop("loss")
        return {
            **overall,
            "balanced_top1": float(100 * (hits[seen] / there[seen]).mean()),
            "macro_f1": float(100 * (2 * hits[named] / (there + told)[named]).mean()),
            "loss": loss,
        }
