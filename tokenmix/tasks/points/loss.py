"""The loss of points: cross-entropy, and the Lovász extension of the mean intersection over union."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tokenmix.tasks.points.cloud import IGNORED


def lovasz_softmax(logits: Tensor, label: Tensor, ignored: int = IGNORED) -> Tensor:
    """(P, K) logits, (P,) classes -> a scalar from 0 to 1: the mean over the classes that are there.

    Source: arXiv:1705.08790 (Berman, Triki, Blaschko), eq. 9 and algorithm 1: for each class the errors of its
    probability, from the greatest on, each times what the Jaccard loss grows by when that point is wrong too.
    """
    valid = label != ignored
    probability, label = logits[valid].softmax(1), label[valid]
    if not len(label):
        return logits.sum() * 0
    present = torch.bincount(label, minlength=logits.shape[1]) > 0
    mine = F.one_hot(label, logits.shape[1]).to(probability.dtype)[:, present]  # (P, K')
    error, order = (mine - probability[:, present]).abs().sort(dim=0, descending=True)
    mine = mine.gather(0, order)
    total = mine.sum(0)
    jaccard = 1 - (total - mine.cumsum(0)) / (total + (1 - mine).cumsum(0))
    growth = torch.cat((jaccard[:1], jaccard[1:] - jaccard[:-1]))
    return (error * growth).sum(0).mean()


def points_loss(logits: Tensor, label: Tensor, lovasz_weight: float = 1.0) -> dict[str, Tensor]:
    """``loss`` and its detached parts: cross-entropy over the labelled points, plus the Lovász loss.

    Half-precision logits are taken to float32. A batch without a labelled point has the loss 0.
    """
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    labelled = int((label != IGNORED).sum())
    cross = F.cross_entropy(logits, label, ignore_index=IGNORED, reduction="sum") / max(labelled, 1)
    if not lovasz_weight:
        return {"loss": cross}
    lovasz = lovasz_softmax(logits, label)
    parts = {"cross_entropy": cross.detach(), "lovasz": lovasz.detach()}
    return {"loss": cross + lovasz_weight * lovasz, **parts}
