"""Classification: one class, or a distribution over classes, per image."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.metrics import ClassScores
from tokenmix.tasks.classification.options import DISTILLS
from tokenmix.tasks.objective import Batch, Objective
from tokenmix_runtime.names import unknown


class ClassificationObjective(Objective):
    """image (B, 3, H, W), label (B,) int64 or (B, K) float, mask (B,) bool -> cross-entropy.

    A model with several heads may return a tuple of (B, K) logits: the loss is the mean over the heads, the prediction
    the mean of their logits, which is timm's convention for two heads.

    A batch may hold a ``weight`` (B,) of each sample's loss.

    It may hold a teacher's logits, ``teacher`` (B, K) (arXiv:2012.12877): then the first head learns from the
    label and the last one, which may be the same, from the teacher, and the loss is the weighted mean of the two.
    ``hard``: cross-entropy with the teacher's class. ``soft``: the divergence of the probabilities at a temperature T,
    times T squared, per image (DeiT's code divides by the number of classes too).

    Args:
        model: (B, 3, H, W) -> (B, K) logits, or a tuple of such.
        num_classes: K.
        label_smoothing: Share of each label that is spread over all classes, 0 to 1; not applied to the metric, nor to
            the teacher's class.
        distill: ``"hard"`` or ``"soft"``.
        distill_weight: The teacher's share of the loss, 0 to 1.
        distill_temperature: T.
        mirror: Predict by the mean of the probabilities for the image and its mirror image.

    Raises:
        ValueError: An argument out of range; in use, if the model's logits do not have K columns.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        num_classes: int,
        label_smoothing: float = 0.0,
        distill: str = "hard",
        distill_weight: float = 0.5,
        distill_temperature: float = 1.0,
        mirror: bool = False,
    ) -> None:
        super().__init__()
        if distill not in DISTILLS:
            raise ValueError(unknown("kind of distillation", distill, DISTILLS))
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be at least 0 and below 1, got {label_smoothing}")
        self.model = model
        self.num_classes = num_classes
        self.label_smoothing, self.mirror = label_smoothing, mirror
        self.distill, self.distill_weight, self.distill_temperature = distill, distill_weight, distill_temperature

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
        """Mean cross-entropy over the heads and over the samples whose mask is True; see the class for a teacher."""
        label, mask = batch["label"], batch.get("mask")

        weight = batch.get("weight")

        def mean(losses: Tensor) -> Tensor:  # (B,) -> scalar
            if weight is not None:
                losses = losses * weight.to(losses.dtype)
            if mask is None:
                return losses.mean()
            return losses.where(mask, torch.zeros_like(losses)).sum() / mask.sum().clamp(min=1)

        def truth(logits: Tensor) -> Tensor:
            target = label if label.ndim == 1 else label.to(logits.dtype)
            return mean(F.cross_entropy(logits, target, reduction="none", label_smoothing=self.label_smoothing))

        heads = self._heads(batch)
        if "teacher" not in batch:
            return {"loss": torch.stack([truth(logits) for logits in heads]).mean()}
        first, second = truth(heads[0]), mean(self._imitation(heads[-1], batch["teacher"].to(heads[-1].dtype)))
        loss = (1 - self.distill_weight) * first + self.distill_weight * second
        return {"loss": loss, "label_loss": first.detach(), "teacher_loss": second.detach()}

    def _imitation(self, logits: Tensor, teacher: Tensor) -> Tensor:
        """Logits (B, K) of the model and of its teacher -> how far the model is off, (B,)"""
        if self.distill == "hard":
            return F.cross_entropy(logits, teacher.argmax(1), reduction="none")
        ours, theirs = (F.log_softmax(each / self.distill_temperature, dim=1) for each in (logits, teacher))
        return F.kl_div(ours, theirs, reduction="none", log_target=True).sum(1) * self.distill_temperature**2

    def predict(self, batch: Batch) -> Tensor:
        """Logits (B, K), the mean over the heads."""
        logits = self._logits(batch)
        if not self.mirror:
            return logits
        mirrored = self._logits({**batch, "image": batch["image"].flip(-1)})
        both = torch.stack((logits.log_softmax(1), mirrored.log_softmax(1)))
        return both.logsumexp(0) - math.log(2)

    def _logits(self, batch: Batch) -> Tensor:
        heads = self._heads(batch)
        return heads[0] if len(heads) == 1 else torch.stack(heads).mean(0)

    def metric(self) -> ClassScores:
        """Top-1, top-5 and balanced accuracy and macro F1 in percent, and the loss without smoothing."""
        return ClassScores(self.num_classes)
