"""What a page shows of a network on points: IoU of each class, which are confused, and the worst clouds."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from tokenmix.metrics import Metric, SegmentationOverlap
from tokenmix.tasks.points.cloud import IGNORED
from tokenmix.tasks.points.sets import PointData
from tokenmix.tasks.points.viewer import cloud_view, shown_rows

CLOUDS = 4  # that are kept, the worst


class CloudEvidence:
    """IoU of each class, which are confused, and the clouds with the lowest mean IoU."""

    def __init__(self, data: PointData) -> None:
        self.clouds, self.classes = data.val, data.classes
        self.worst = WorstClouds(len(data.classes))
        self.witnesses = (self.worst,)

    def gather(self, metric: Metric) -> dict[str, Any]:
        assert isinstance(metric, SegmentationOverlap)
        mistakes = [{**row, "name": self.clouds.names[row["index"]]} for row in self.worst.gather()]
        rows = zip(self.classes, metric.by_class(), strict=True)
        classes = [{"class": name, **{key: _known(value) for key, value in row.items()}} for name, row in rows]
        cells = [list(cell) for cell in metric.cells()]
        return {"clouds": len(self.clouds), "cells": cells, "classes": classes, "mistakes": mistakes}

    def picture(self, entry: Mapping[str, Any]) -> str:
        """The cloud as HTML that can be turned, its truth beside its prediction."""
        cloud = self.clouds.load(entry["index"])
        rows = shown_rows(len(cloud))
        shown = cloud.take(rows)
        truth = np.full(len(rows), IGNORED) if shown.segment is None else shown.segment
        layers = {"prediction": unpacked(entry["found"]), "truth": truth}
        return cloud_view(shown, self.classes, layers, label=f"The cloud {entry['name']}")


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


class WorstClouds:
    """Keeps the predictions of the clouds with the lowest mean IoU over the classes that are there or were seen there.

    Args:
        num_classes: K.
        count: How many.
    """

    def __init__(self, num_classes: int, count: int = CLOUDS) -> None:
        self.num_classes, self.count = num_classes, count
        self.rows: list[dict[str, Any]] = []

    def update(self, prediction: Sequence[Tensor], batch: dict[str, Any]) -> None:
        """See a batch of classes (P,) and its ``label``, ``index`` and ``mask``."""
        size = self.num_classes
        rows = zip(prediction, batch["label"], batch["index"].tolist(), batch["mask"].tolist(), strict=True)
        for found, label, index, counts in rows:
            valid = (label >= 0) & (label < size)
            if not counts or not valid.any():
                continue
            table = torch.bincount(label[valid] * size + found[valid], minlength=size * size).view(size, size).double()
            hits, seen = table.diagonal(), table.sum(0) + table.sum(1) - table.diagonal()
            row = {"index": index, "mIoU": 100 * float((hits / seen)[seen > 0].mean())}
            row |= {"aAcc": 100 * float(hits.sum() / table.sum())}
            if row["mIoU"] < 100 and (len(self.rows) < self.count or _order(row) < _order(self.rows[-1])):
                self.rows.append(row | {"found": packed(found)})
                self.rows = sorted(self.rows, key=_order)[: self.count]

    def gather(self) -> list[dict[str, Any]]:
        """Those of all processes, the worst first; every process must call this, and the list is emptied."""
        rows, self.rows = self.rows, []
        if dist.is_available() and dist.is_initialized():
            parts: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(parts, rows)
            rows = [row for part in parts for row in part]
        return sorted(rows, key=_order)[: self.count]


def _order(row: Mapping[str, Any]) -> tuple[float, int]:
    return row["mIoU"], row["index"]


def packed(found: Tensor) -> str:
    """The classes of the points that a page shows of a cloud, as text."""
    values = found.cpu().numpy()[shown_rows(len(found))].astype("<u2")
    return base64.b64encode(zlib.compress(values.tobytes(), 9)).decode("ascii")


def unpacked(text: str) -> NDArray[np.int64]:
    """What `packed` made."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<u2").astype(np.int64)
