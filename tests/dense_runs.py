"""Folders that look like finished dense runs, without the training: a small model with weights that matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.dense_toys import write_coco, write_plain
from tests.scramble import scramble
from tokenmix.heads import make_dense
from tokenmix.weight_files import WEIGHTS, weights_bytes

SMALL: dict[str, Any] = {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16], "mixers": "pool"}
HEADS = {"detection": "ssdlite", "instances": "mask_rcnn", "segmentation": "semantic_fpn"}
CLASSES = {"detection": ["red", "green"], "instances": ["red", "green"], "segmentation": ["nothing", "red", "green"]}


def write_run(folder: Path, task: str, **info: Any) -> Path:
    """The folder of a run on the toys' data."""
    head, names = HEADS[task], info.get("classes") or CLASSES[task]
    small = SMALL | ({"channels": 16} if task == "segmentation" else {})
    model = scramble(make_dense(head, "mixernet_pico", len(names), **small))
    told = {
        "model": "mixernet_pico",
        "model_args": small | {"num_classes": len(names)},
        "head": head,
        "task": task,
        "classes": names,
    }
    told |= {"image_size": [32, 48], "mean": [0.5] * 3, "std": [0.25] * 3, "crop_mode": "squash"} | info
    folder.mkdir(parents=True)
    told = {name: value for name, value in told.items() if value is not None}
    (folder / WEIGHTS).write_bytes(weights_bytes(model.state_dict(), told))
    return folder


def write_toys(folder: Path, task: str, count: int = 5) -> Path:
    """The toys' data for a task."""
    return write_plain(folder, count) if task == "segmentation" else write_coco(folder, count)
