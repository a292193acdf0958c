"""What a page shows of a detector: AP and precision against recall of each class, and the worst images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tokenmix.metrics import CocoAP, Metric
from tokenmix.pictures.drawing import draw_objects
from tokenmix.pictures.files import picture_file
from tokenmix.tasks.dense.evidence import DRAWN_PX, IMAGES, rounded
from tokenmix.tasks.dense.sets import DenseData

DRAWN = 30  # objects on a picture, at most


class ObjectEvidence:
    """AP and precision against recall of each class, and the images with the lowest F1."""

    witnesses = ()

    def __init__(self, data: DenseData) -> None:
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
        classes = [rounded({"class": name, **row}) for name, row in zip(self.classes, metric.by_class(), strict=True)]
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
        return picture_file(there, "JPEG"), picture_file(told, "JPEG")


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
