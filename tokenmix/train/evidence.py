"""What a report shows of the weights that are kept: gathered while they are validated, small enough for a checkpoint.

Each kind of task has its class. ``witnesses`` see the validation; ``gather``, called by every process after each one,
gives plain values; ``picture`` makes of an entry of their ``mistakes`` what the page shows.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor

from tokenmix.data import DataSet
from tokenmix.data.dense import DenseSet
from tokenmix.metrics import Answers, CocoAP, Metric, SegmentationOverlap
from tokenmix.report.dense_results import label_picture
from tokenmix.report.drawing import draw_labels, draw_objects
from tokenmix.runtime.images import open_known
from tokenmix.tasks import Classification, Detection, Segmentation, Task

MISTAKES = 16  # that are kept, the worst
IMAGES = 12  # of dense tasks
PICTURE_PX = 128
DRAWN_PX = 400  # the long side of a picture with objects or labels
DRAWN = 30  # objects on a picture, at most


class Evidence(Protocol):
    """See the module."""

    @property
    def witnesses(self) -> Sequence[Any]:
        """They see the validation."""

    def gather(self, metric: Metric) -> dict[str, Any]:
        """The evidence of all processes, from what the witnesses saw, which they forget, and the task's own metric."""

    def picture(self, entry: Mapping[str, Any]) -> Any:
        """The bytes of the picture of an entry; of dense tasks a pair: with the truth, with the prediction.

        Raises:
            NotImplementedError: The pictures only stream.
            OSError: The file is gone.
            ValueError: It is broken.
        """


def make_evidence(task: Task, data: DataSet) -> Evidence | None:
    """That of the task, or None for a task of which nothing is known."""
    if isinstance(task, Detection):
        return ObjectEvidence(data)
    if isinstance(task, Segmentation):
        return LabelEvidence(data)
    return ClassEvidence(data) if isinstance(task, Classification) else None


class ClassEvidence:
    """Which classes are confused, and the wrong answers that the model was surest of."""

    def __init__(self, data: DataSet) -> None:
        self.images, self.answers = data.val, Answers()
        self.witnesses = (self.answers,)

    def gather(self, metric: Metric) -> dict[str, Any]:
        found = self.answers.gather()
        mistakes = [
            {
                "index": int(found.index[row]),
                "name": self.images.names[int(found.index[row])],
                "truth": int(found.label[row]),
                "prediction": int(found.prediction[row]),
                "confidence": float(found.confidence[row]),
                "truth_confidence": float(found.truth[row]),
            }
            for row in found.worst(MISTAKES)
        ]
        return {"images": len(found.index), "cells": [list(cell) for cell in found.confusion()], "mistakes": mistakes}

    def picture(self, entry: Mapping[str, Any]) -> bytes:
        picture = self.images.load_reduced(entry["index"], PICTURE_PX)
        picture.thumbnail((PICTURE_PX, PICTURE_PX))
        return _file(picture, "PNG")


class ObjectEvidence:
    """AP and precision against recall of each class, and the images with the lowest F1."""

    witnesses = ()

    def __init__(self, data: DataSet) -> None:
        assert isinstance(data.val, DenseSet)
        self.images, self.classes = data.val, data.classes

    def gather(self, metric: Metric) -> dict[str, Any]:
        assert isinstance(metric, CocoAP)
        threshold, rows = metric.by_image()
        everything = metric.everything()
        wrong = [row for row in rows if row["missed"] + row["false"]]
        wrong.sort(key=lambda row: (row["F1"], -row["missed"] - row["false"]))
        mistakes = []
        for row in wrong[:IMAGES]:
            found = [entry for entry in everything[row["index"]][0] if entry["score"] >= threshold]
            found.sort(key=lambda entry: -entry["score"])
            mistakes.append(
                {**row, "name": self.images.names[row["index"]], "found": [_small(e) for e in found[:DRAWN]]}
            )
        classes = [_rounded({"class": name, **row}) for name, row in zip(self.classes, metric.by_class(), strict=True)]
        told = {
            "kind": "objects",
            "images": len(rows),
            "threshold": threshold,
            "classes": classes,
            "mistakes": mistakes,
        }
        return told | {name: sum(row[name] for row in rows) for name in ("hits", "missed", "false")}

    def picture(self, entry: Mapping[str, Any]) -> tuple[bytes, bytes]:
        picture, truth = self.images.load(entry["index"]), self.images.target(entry["index"])
        found = entry["found"]
        boxes = np.array([one["bbox"] for one in found]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        seen: dict[str, Any] = {"scores": [one["score"] for one in found]}
        if "masks" in truth:
            seen["masks"] = _decoded([one["segmentation"] for one in found])
        options: dict[str, Any] = {"classes": self.classes, "long_side": DRAWN_PX}
        there = draw_objects(picture, truth["boxes"], truth["labels"], masks=truth.get("masks"), **options)
        told = draw_objects(picture, boxes, [one["category_id"] for one in found], **seen, **options)
        return _file(there, "JPEG"), _file(told, "JPEG")


class LabelEvidence:
    """IoU of each class, which are confused, and the images with the lowest mean IoU."""

    def __init__(self, data: DataSet) -> None:
        assert isinstance(data.val, DenseSet)
        self.images, self.classes = data.val, data.classes
        self.maps = WorstMaps(len(data.classes))
        self.witnesses = (self.maps,)

    def gather(self, metric: Metric) -> dict[str, Any]:
        assert isinstance(metric, SegmentationOverlap)
        mistakes = [{**row, "name": self.images.names[row["index"]]} for row in self.maps.gather()]
        classes = [_rounded({"class": name, **row}) for name, row in zip(self.classes, metric.by_class(), strict=True)]
        cells = [list(cell) for cell in metric.cells()]
        return {"kind": "labels", "images": len(self.images), "cells": cells, "classes": classes, "mistakes": mistakes}

    def picture(self, entry: Mapping[str, Any]) -> tuple[bytes, bytes]:
        picture, truth = self.images.load(entry["index"]), self.images.target(entry["index"])["label"]
        with open_known(io.BytesIO(base64.b64decode(entry["found"]))) as stored:
            found = np.asarray(stored)
        options: dict[str, Any] = {"classes": self.classes, "long_side": DRAWN_PX, "legend": False}
        there, told = (draw_labels(picture, label, **options) for label in (truth, found))
        return _file(there, "JPEG"), _file(told, "JPEG")


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
                self.rows.append(row | {"found": _stored(found)})
                self.rows = sorted(self.rows, key=_order)[: self.count]

    def gather(self) -> list[dict[str, Any]]:
        """Those of all processes, the worst first, with the map as a small PNG file in ``found``, base64.

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


def _stored(label: Tensor) -> str:
    """A map of classes, made as small as it is shown."""
    picture = label_picture(label.cpu().numpy())
    factor = min(1.0, DRAWN_PX / max(picture.size))
    sides = [max(1, round(side * factor)) for side in picture.size]
    return base64.b64encode(_file(picture.resize((sides[0], sides[1]), Image.Resampling.NEAREST), "PNG")).decode(
        "ascii"
    )


def _small(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A detection with what is drawn of it."""
    kept: dict[str, Any] = {name: entry[name] for name in ("bbox", "category_id", "score")}
    if "segmentation" in entry:
        code = entry["segmentation"]
        kept["segmentation"] = {"size": list(code["size"]), "counts": code["counts"].decode("ascii")}
    return kept


def _decoded(codes: Sequence[Mapping[str, Any]]) -> Any:
    """COCO's run-length codes -> (N, H, W), or None where there are none."""
    import pycocotools.mask

    return pycocotools.mask.decode(list(codes)).transpose(2, 0, 1) if codes else None


def _rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    """None for what does not exist, and one digit where there are a hundred numbers: the points of curves."""

    def kept(value: Any) -> Any:
        if isinstance(value, list):
            return [round(point, 1) for point in value]
        return None if isinstance(value, float) and math.isnan(value) else value

    return {name: kept(value) for name, value in row.items()}


def _file(picture: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **({"quality": 85} if kind == "JPEG" else {}))
    return file.getvalue()
