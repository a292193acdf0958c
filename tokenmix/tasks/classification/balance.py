"""Classes out of balance: rare ones count for more in the loss, or are seen as often as the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokenmix.data.random_numbers import permutation
from tokenmix.tasks import Batch

POWER = 0.5  # of the counts: 1 would let a class of three pictures decide as much as one of three thousand


class Weighting:
    """Gives each sample of a batch the weight of its class, of a mixed one those of its classes by their shares.

    A class weighs as much as the root of how rare it is; the mean over the samples of the set is 1.

    Args:
        labels: The class of each sample of the set.
        num_classes: K.
    """

    def __init__(self, labels: Sequence[int], num_classes: int) -> None:
        counts = torch.bincount(torch.tensor(labels), minlength=num_classes).double()
        weights = counts.clamp(min=1) ** -POWER
        self.weights = (weights * counts.sum() / (weights * counts).sum()).float()  # (K,)

    def __call__(self, batch: Batch) -> Batch:
        label: Tensor = batch["label"]
        weights = self.weights.to(label.device)
        return {**batch, "weight": weights[label] if label.ndim == 1 else label.to(weights.dtype) @ weights}


def balanced_order(labels: Sequence[int], seed: int, epoch: int) -> NDArray[np.int64]:
    """An epoch's order (N,) in which all classes come equally often, as nearly as N allows.

    Of a frequent class other samples come in each epoch; those of a rare one come several times.
    """
    rows: dict[int, list[int]] = {label: [] for label in sorted(Counter(labels))}
    for index, label in enumerate(labels):
        rows[label].append(index)
    count, classes = len(labels), len(rows)
    chosen: list[int] = []
    for place, (label, own) in enumerate(rows.items()):
        wanted = (place + 1) * count // classes - place * count // classes
        taken = 0
        while taken < wanted:
            order = permutation(len(own), seed, epoch, label, taken)[: wanted - taken]
            chosen += [own[row] for row in order.tolist()]
            taken += len(order)
    return np.array(chosen)[permutation(count, seed, epoch)]
