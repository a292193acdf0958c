"""Calibration: whether a model is right as often as it says."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tokenmix.metrics.base import Metric
from tokenmix.metrics.classification import NOTHING, classes_of, counted

BINS = 15


class Calibration(Metric):
    """Logits (B, K), label (B,) or (B, K) -> ``ece`` in percent and ``brier``, 0 to 2.

    ``ece`` is the expected calibration error (arXiv:1706.04599, equation 3): the answers are sorted by their
    confidence, the largest softmax probability p, into 15 equally wide bins, the i-th holding (i - 1) / 15 < p <=
    i / 15, and the gap between mean confidence and accuracy is averaged over the bins, each weighing as much as it has
    answers. ``brier`` is the mean squared distance between the probabilities and the one-hot label, over all classes.
    A sample whose logits are not all finite counts as wrong with confidence 1.

    Examples:
        >>> calibration = Calibration()
        >>> calibration.update(torch.zeros(4, 2), {"label": torch.zeros(4, dtype=torch.int64)})  # half sure, all right
        >>> calibration.compute()
        {'ece': 50.0, 'brier': 0.5}
    """

    def __init__(self) -> None:
        super().__init__((3 * BINS + 1,))

    def update(self, prediction: Tensor, batch: dict[str, Any]) -> None:
        """Add a batch; see the class."""
        logits, valid, label = prediction.detach().double(), counted(prediction, batch), classes_of(batch["label"])
        finite = logits.isfinite().all(1)
        shares = logits.softmax(1)
        confidence, answer = shares.max(1)
        confidence = confidence.where(finite, torch.ones_like(confidence))
        right = (answer == label) & finite
        place = ((confidence * BINS).ceil().long() - 1).clamp(0, BINS - 1)
        columns = torch.stack((torch.ones_like(confidence), confidence, right.double()), dim=1) * valid[:, None]
        bins = columns.new_zeros(BINS, 3).index_add_(0, place, columns)
        truth = shares.gather(1, label[:, None])[:, 0]
        distance = (shares.square().sum(1) - 2 * truth + 1).where(finite, torch.full_like(truth, 2.0))
        self.add(torch.cat((bins.flatten(), distance.where(valid, torch.zeros_like(distance)).sum()[None])))

    def compute(self) -> dict[str, float]:
        """``{"ece": percent, "brier": mean squared distance}``."""
        total = self.total()
        count, confidence, right = total[:-1].view(BINS, 3).unbind(1)
        if not (seen := count.sum()):
            raise ValueError(NOTHING)
        return {"ece": float(100 * (confidence - right).abs().sum() / seen), "brier": float(total[-1] / seen)}
