"""What a page shows of a segmenter: IoU of each class, which are confused, and the worst images."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tokenmix.metrics import Metric, SegmentationOverlap
from tokenmix.pictures.drawing import draw_labels
from tokenmix.pictures.files import picture_file
from tokenmix.tasks.dense.evidence import DRAWN_PX, IMAGES, rounded
from tokenmix.tasks.dense.sets import DenseData
from tokenmix_runtime.images import open_known


class LabelEvidence:
    """IoU of each class, which are confused, and the images with the lowest mean IoU."""

    def __init__(self, data: DenseData) -> None:
        self.images, self.classes = data.val, data.classes
        self.maps = WorstMaps(len(data.classes))
        self.witnesses = (self.maps,)

    def gather(self, metric: Metric) -> dict[str, Any]:
        assert isinstance(metric, SegmentationOverlap)
        mistakes = [{**row, "name": self.images.names[row["index"]]} for row in self.maps.gather()]
        classes = [rounded({"class": name, **row}) for name, row in zip(self.classes, metric.by_class(), strict=True)]
        cells = [list(cell) for cell in metric.cells()]
        return {"kind": "labels", "images": len(self.images), "cells": cells, "classes": classes, "mistakes": mistakes}

    def picture(self, entry: Mapping[str, Any]) -> tuple[bytes, bytes]:
        picture, truth = self.images.load(entry["index"]), self.images.target(entry["index"])["label"]
        found = unpacked(entry["found"])
        options: dict[str, Any] = {"classes": self.classes, "long_side": DRAWN_PX, "legend": False}
        there, told = (draw_labels(picture, label, **options) for label in (truth, found))
        return picture_file(there, "JPEG"), picture_file(told, "JPEG")


class WorstMaps:
    """Keeps the predicted maps with the lowest mean IoU over the classes that are in the image or were seen there.

    Args:
        num_classes: K.
        count: How many.
    """

    def __init__(self, num_classes: int, count: int = IMAGES) -> None:
        self.num_classes, self.count = num_classes, count
        self.rows: list[dict[str, Any]] = []

    def update(self, prediction: Sequence[Tensor], batch: dict[str, Any]) -> None:
        """See a batch of maps (H, W) and its ``label``, ``index`` and ``mask``."""
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
        """Those of all processes, the worst first, with the map in ``found`` as `packed` has it.

        Every process must call this, and the list is emptied.
        """
        rows, self.rows = self.rows, []
        if dist.is_available() and dist.is_initialized():
            parts: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(parts, rows)
            rows = [row for part in parts for row in part]
        return sorted(rows, key=_order)[: self.count]


def _order(row: Mapping[str, Any]) -> tuple[float, int]:
    return row["mIoU"], row["index"]


def packed(label: Tensor) -> dict[str, Any]:
    """A map of classes (H, W), made as small as it is shown: ``size``, and in turn each ``value`` and its ``length``,
    row by row.
    """
    picture = Image.fromarray(label.cpu().numpy().astype(np.uint8))
    factor = min(1.0, DRAWN_PX / max(picture.size))
    sides = [max(1, round(side * factor)) for side in picture.size]
    small = np.asarray(picture.resize((sides[0], sides[1]), Image.Resampling.NEAREST))
    flat = small.reshape(-1)
    begins = np.flatnonzero(np.concatenate(([True], flat[1:] != flat[:-1])))
    lengths = np.diff([*begins, flat.size])
    return {"size": list(small.shape), "values": flat[begins].tolist(), "lengths": lengths.tolist()}


def unpacked(stored: Mapping[str, Any] | str) -> NDArray[np.uint8]:
    """What `packed` made -> (H, W); of a run of version 0.1 a PNG file in base64."""
    if isinstance(stored, str):
        with open_known(io.BytesIO(base64.b64decode(stored))) as picture:
            return np.asarray(picture)
    height, width = stored["size"]
    return np.repeat(np.array(stored["values"], np.uint8), stored["lengths"]).reshape(height, width)
