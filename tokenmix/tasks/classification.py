"""Classification: one class, or a distribution over classes, per image."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.metrics import TopK
from tokenmix.tasks.base import Batch, Task


class Classification(Task):
    """image (B, 3, H, W), label (B,) int64 or (B, K) float, mask (B,) bool -> cross-entropy.

    A model with several heads may return a tuple of (B, K) logits: the loss is the mean over the heads, the prediction
    the mean of their logits, which is timm's convention for two heads.

    Args:
        model: (B, 3, H, W) -> (B, K) logits, or a tuple of such.
        num_classes: K.
        label_smoothing: Share of each label that is spread over all classes, 0 to 1; not applied to the metric.

    Raises:
        ValueError: In use, if the model's logits do not have K columns.
    """

    headline = "top1"

    def __init__(self, model: nn.Module, *, num_classes: int, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be at least 0 and below 1, got {label_smoothing}")
        self.model = model
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing

    def _heads(self, batch: Batch) -> list[Tensor]:
        """The logits (B, K) of each head, in float32 at least: a half-precision log-softmax loses digits."""
        output: Any = self.model(batch["image"])
        heads = list(output) if isinstance(output, tuple | list) else [output]
        for logits in heads:
            if logits.ndim != 2 or logits.shape[1] != self.num_classes:
                raise ValueError(
                    f"the model returns {tuple(logits.shape)}, but the data has {self.num_classes} classes: "
                    f"build it with num_classes={self.num_classes}"
                )
        return [head.float() if head.dtype in (torch.float16, torch.bfloat16) else head for head in heads]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Mean cross-entropy over the heads and over the samples whose mask is True."""
        label, mask = batch["label"], batch.get("mask")
        losses = []
        for logits in self._heads(batch):
            target = label if label.ndim == 1 else label.to(logits.dtype)
            loss = F.cross_entropy(logits, target, reduction="none", label_smoothing=self.label_smoothing)  # (B,)
            if mask is None:
                losses.append(loss.mean())
            else:
                losses.append(loss.where(mask, torch.zeros_like(loss)).sum() / mask.sum().clamp(min=1))
        return {"loss": torch.stack(losses).mean()}

    def predict(self, batch: Batch) -> Tensor:
        """Logits (B, K), the mean over the heads."""
        heads = self._heads(batch)
        return heads[0] if len(heads) == 1 else torch.stack(heads).mean(0)

    def metric(self) -> TopK:
        """Top-1 and top-5 accuracy in percent, and the loss without smoothing."""
        return TopK()
