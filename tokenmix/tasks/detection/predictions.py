"""Detections as COCO's results file, which others read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from tokenmix.data.dataset import Samples
from tokenmix.files import write_json


def write_detections(
    path: str | os.PathLike[str], found: Mapping[int, Sequence[Mapping[str, Any]]], images: Samples
) -> None:
    """Write detections as COCO's results file (https://cocodataset.org/#format-results), whole or not at all.

    Pictures and classes have the ids of the set's annotation file; without one, the picture's place and 1 to K.

    Args:
        path: The JSON file.
        found: Of each image, by its place, COCO's entries, see `tokenmix.metrics.CocoAP.everything`.
        images: The set.
    """
    ids, class_ids = getattr(images, "ids", range(len(images))), getattr(images, "class_ids", ())
    rows = []
    for index, entries in found.items():
        for entry in entries:
            label = entry["category_id"]
            row = {"image_id": ids[index], "category_id": class_ids[label - 1] if class_ids else label}
            row |= {"bbox": entry["bbox"], "score": entry["score"]}
            if "segmentation" in entry:
                code = entry["segmentation"]
                row["segmentation"] = {"size": code["size"], "counts": code["counts"].decode("ascii")}
            rows.append(row)
    write_json(path, rows)
