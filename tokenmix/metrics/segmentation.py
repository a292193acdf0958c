"""Metrics of semantic segmentation: how well the areas of the classes overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tokenmix.metrics.base import Metric
from tokenmix.metrics.classification import NOTHING
from tokenmix.metrics.items import ItemScores, jackknife

_BLOCK = 2**21  # pixels that are counted at a time: of twelve megapixels the numbers would take half a gigabyte


class SegmentationOverlap(Metric):
    """Maps of classes and labels, (H, W) each -> ``mIoU``, ``mAcc`` and ``aAcc`` in percent.

    All three come from one table of counted pixels over all images. IoU: pixels of a class found, over those that are
    of the class or were taken for it; ``mIoU`` is the mean over the classes that are there or were seen. ``mAcc``: the
    mean share of a class's pixels that were found, over the classes that are there; ``aAcc``: that of all pixels.
    Pixels whose label is not 0 .. K-1, such as 255, count for nothing.

    Args:
        num_classes: K.

    Examples:
        >>> overlap = SegmentationOverlap(num_classes=2)
        >>> found, label = torch.tensor([[0, 0], [0, 1]]), torch.tensor([[0, 0], [1, 1]])
        >>> overlap.update([found], {"label": [label], "mask": torch.tensor([True])})
        >>> overlap.compute()["aAcc"], overlap.by_class()[1]
        (75.0, {'IoU': 50.0, 'Acc': 50.0})
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__((num_classes * num_classes + 1,), torch.int64)  # the last one counts images
        self.num_classes = num_classes

    def update(self, prediction: Sequence[Tensor], batch: dict[str, Any]) -> None:
        """Add a batch of maps, each of the size of its label; those whose ``mask`` is False are left out."""
        size = self.num_classes
        for found, label, counts in zip(prediction, batch["label"], batch["mask"].tolist(), strict=True):
            if not counts:
                continue
            cells = _counted(found, label, size)
            self.add(torch.cat((cells, cells.new_ones(1))))

    def compute(self) -> dict[str, float]:
        """``{"mIoU", "mAcc", "aAcc"}`` in percent; NaN where no labelled pixel was seen."""
        table = self._table()
        iou, recall = self._shares(table)
        return {
            "mIoU": 100 * float(iou[~iou.isnan()].mean()),
            "mAcc": 100 * float(recall[~recall.isnan()].mean()),
            "aAcc": 100 * float(table.diagonal().sum() / table.sum()),
        }

    def by_class(self) -> list[dict[str, float]]:
        """Each class's ``IoU`` and ``Acc`` in percent, NaN for one that is not there."""
        pairs = zip(*(share.tolist() for share in self._shares(self._table())), strict=True)
        return [{"IoU": 100 * iou, "Acc": 100 * recall} for iou, recall in pairs]

    def cells(self) -> list[tuple[int, int, int]]:
        """(label, prediction, pixels) of the pairs that occur: the table without its zeros."""
        table = self._table()
        return [(row, column, int(table[row, column])) for row, column in table.nonzero().tolist()]

    def _table(self) -> Tensor:
        """(K, K) float64 counts; rows are the true classes."""
        *cells, images = self.total().tolist()
        if not images:
            raise ValueError(NOTHING)
        return torch.tensor(cells, dtype=torch.float64).view(self.num_classes, self.num_classes)

    @staticmethod
    def _shares(table: Tensor) -> tuple[Tensor, Tensor]:
        """IoU and recall of each class, (K,) each, NaN where 0 / 0."""
        hits, there, seen = table.diagonal(), table.sum(1), table.sum(0)
        return hits / (there + seen - hits), hits / there


class ImageOverlaps:
    """Keeps of each image what it adds to the classes' IoU: the items behind ``mIoU``, in this process.

    Args:
        num_classes: K.
        noun: What the images are called, in the plural.

    Examples:
        >>> overlaps, label = ImageOverlaps(num_classes=2), torch.tensor([[0, 0], [1, 1]])
        >>> batch = {"label": [label, label], "index": torch.tensor([0, 1]), "mask": torch.tensor([True, True])}
        >>> overlaps.update([label, 1 - label], batch)  # all right, all wrong
        >>> round(float(overlaps.scores().values.mean()), 2)  # mIoU: 4 of 12 pixels
        33.33
    """

    def __init__(self, num_classes: int, noun: str = "images") -> None:
        self.num_classes, self.noun = num_classes, noun
        self.parts: dict[int, Tensor] = {}

    def update(self, prediction: Sequence[Tensor], batch: dict[str, Any]) -> None:
        """See a batch, as `SegmentationOverlap`, with its ``index`` (B,)."""
        size = self.num_classes
        rows = zip(prediction, batch["label"], batch["index"].tolist(), batch["mask"].tolist(), strict=True)
        for found, label, index, counts in rows:
            if counts:
                table = _counted(found, label, size).view(size, size)
                self.parts[index] = torch.stack((table.diagonal(), table.sum(1), table.sum(0))).cpu()

    def scores(self) -> ItemScores | None:
        """The mIoU in percent by image, see `tokenmix.metrics.items.jackknife`.

        None of fewer than two images, or where no pixel is labelled. Without the one image that holds all labelled
        pixels it is taken to be 0.
        """
        if len(self.parts) < 2:
            return None
        parts = torch.stack([self.parts[index] for index in sorted(self.parts)]).double()  # (N, 3, K)
        sums = parts.sum(0)
        whole, without = float(_mean_iou(sums)), _mean_iou(sums - parts).nan_to_num(0.0)
        return None if math.isnan(whole) else ItemScores(jackknife(whole, without.numpy()), self.noun)


def _counted(found: Tensor, label: Tensor, size: int) -> Tensor:
    """Two maps of classes -> (K * K,) pixels of each pair of a true and a predicted class."""
    cells = label.new_zeros(size * size)
    for labels, founds in zip(label.reshape(-1).split(_BLOCK), found.reshape(-1).split(_BLOCK), strict=True):
        valid = (labels >= 0) & (labels < size)
        cells += torch.bincount(labels[valid] * size + founds[valid], minlength=size * size)
    return cells


def _mean_iou(parts: Tensor) -> Tensor:
    """(..., 3, K) hits, pixels of a class, and taken for it -> (...) in percent, over the classes that occur."""
    hits, there, seen = parts.unbind(-2)
    return 100 * (hits / (there + seen - hits)).nanmean(-1)
