"""The one way in for dense tasks: a folder whose layout is recognised."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tokenmix.data.dataset import printable
from tokenmix.data.memory import data_root
from tokenmix.data.random_numbers import permutation
from tokenmix.names import unknown
from tokenmix.tasks.dense.checks import usable
from tokenmix.tasks.dense.coco import find_coco, read_coco
from tokenmix.tasks.dense.labels import read_ade, read_cityscapes, read_plain
from tokenmix.tasks.dense.layout import MOST_CLASSES, SPLITS, Layout
from tokenmix.tasks.dense.problems import Problems
from tokenmix.tasks.dense.scenes import load_scenes
from tokenmix.tasks.dense.sets import DENSE_TASKS, DenseData, ObjectSet, coco_tools
from tokenmix.tasks.dense.voc import find_voc, read_voc_boxes, read_voc_instances, read_voc_masks
from tokenmix.tasks.dense.yolo import find_yolo, read_yolo
from tokenmix.terminal import say

VAL_SHARE = TEST_SHARE = 0.15
NAMED = ("ade20k", "cityscapes", "coco", "voc")  # what recipes train on; none of them may be downloaded for you
_OBJECTS = (
    "annotations/*.json or */_annotations.coco.json (COCO), Annotations/*.xml (VOC, for instances "
    "with SegmentationObject/*.png), "
    "data.yaml or images/ and labels/ (YOLO)"
)
_LABELS = (
    "images/training and annotations/training (ADE20K), leftImg8bit/train and gtFine/train (Cityscapes), "
    "SegmentationClass/ (VOC), images/ and masks/"
)


def load_dense(
    spec: str | os.PathLike[str],
    task: str,
    *,
    seed: int = 0,
    image_size: int | None = None,
    check: bool = True,
    log: Callable[[str], None] = say,
) -> DenseData:
    """Pictures with boxes, masks or a label for each pixel: the embedded ``scenes``, or a folder, whatever its layout.

    A name of `NAMED` is the folder of that name in `data_root`.

    Every picture and annotation is looked at now. What cannot be used is left out, what can be mended is clipped; both
    are counted and named in the log and in the result's ``problems``.

    A layout without test pictures (COCO's and others' labels for them are not public) is tested on the validation
    pictures, as published numbers are. Where there are none either, 15 % of the training pictures become each of
    them, chosen by ``seed``.

    Args:
        spec: ``"scenes"``, see `load_scenes`, a name of `NAMED`, or the folder.
        task: ``"detection"`` (boxes), ``"instances"`` (boxes and masks) or ``"segmentation"`` (a label for each pixel).
        seed: Decides which pictures are split off.
        image_size: The default image size, pixels; 512, of the scenes their own.
        check: Decode every picture and mask; False trusts all but their sizes.
        log: Receives one line at a time.

    Raises:
        ValueError: No such folder, task or layout; nothing usable in it; a file that is not what its layout says; or
            pycocotools is needed and missing.
    """
    if task not in DENSE_TASKS:
        raise ValueError(unknown("task", task, DENSE_TASKS))
    if os.fspath(spec) == "scenes":
        data = load_scenes(task)
        data.image_size = image_size or data.image_size
        log(data.summary())
        return data
    root = Path(os.fspath(spec)).expanduser()
    if os.fspath(spec) in NAMED:
        root = data_root() / os.fspath(spec)
        if not root.is_dir():
            raise ValueError(
                f"there is no {root}: give the folder of {spec} with --data (data=), in the layout in which it is "
                f"published, or set TOKENMIX_DATA to the folder that holds it as {os.fspath(spec)!r}"
            )
    if root.is_file():
        raise ValueError(f"{spec} is a file; give the folder of the data set")
    if not root.is_dir():
        raise ValueError(f"{spec}: there is no such folder; without one there is the embedded set 'scenes'")
    if task == "instances":
        coco_tools()
    layout = _read(root, task)
    if len(layout.classes) > MOST_CLASSES:
        raise ValueError(f"{root}: {len(layout.classes):,} classes; at most {MOST_CLASSES:,} can be told apart")
    if task == "segmentation" and len(layout.classes) > 255:
        raise ValueError(f"{root}: {len(layout.classes)} classes; at most 255 can be told apart from ignored pixels")
    problems = Problems()
    for kind, name in layout.strays:
        problems.add(kind, name)
    sets: dict[str, Any] = {}
    skipped = []
    for split in SPLITS:
        sets[split], left_out = usable(root, layout, layout.splits[split], task, check, problems, log)
        skipped += left_out
    problems.tell(log)
    if not len(sets["train"]):
        raise ValueError(
            f"{root}: none of its {len(layout.splits['train']):,} training pictures can be used ({layout.kind})"
        )
    if isinstance(sets["train"], ObjectSet) and not any(len(one.labels) for one in sets["train"].objects):
        first = next((f"; first of all: {name}: {kind}" for kind, (name, *_) in problems.found.items()), "")
        raise ValueError(
            f"{root}: no usable object in its {len(sets['train']):,} training pictures ({layout.kind}): nothing could "
            f"be learnt{first}"
        )
    _complete(sets, root, seed, log)
    data = DenseData(
        root.resolve().name,
        sets["train"],
        sets["val"],
        sets["test"],
        image_size or 512,
        [printable(name) for name in layout.classes],
        skipped=skipped,
        task=task,
        problems=problems,
    )
    log(data.summary())
    return data


def _read(root: Path, task: str) -> Layout:
    """The layout that is there."""
    if task == "segmentation":
        if (root / "images" / "training").is_dir() and (root / "annotations" / "training").is_dir():
            return read_ade(root)
        if (root / "leftImg8bit").is_dir() and (root / "gtFine").is_dir():
            return read_cityscapes(root)
        if find_voc(root, "SegmentationClass"):
            return read_voc_masks(root)
        if (root / "masks").is_dir() or any(root.glob("*/masks")):
            return read_plain(root)
        raise ValueError(f"{root}: no layout for segmentation found; looked for {_LABELS}")
    if find_coco(root):
        return read_coco(root)
    if task == "detection" and find_voc(root, "Annotations"):
        return read_voc_boxes(root)
    if task == "instances" and find_voc(root, "SegmentationObject"):
        return read_voc_instances(root)
    if find_yolo(root):
        return read_yolo(root)
    raise ValueError(f"{root}: no layout for {task} found; looked for {_OBJECTS}")


def _complete(sets: dict[str, Any], root: Path, seed: int, log: Callable[[str], None]) -> None:
    """Fill an empty validation or test set, see `load_dense`."""
    if len(sets["val"]):
        if not len(sets["test"]):
            log(f"{root}: no labelled test images; the validation images are tested on")
            sets["test"] = sets["val"]
        return
    shares = {"val": VAL_SHARE} | ({} if len(sets["test"]) else {"test": TEST_SHARE})
    train, count = sets["train"], len(sets["train"])
    if count <= len(shares):
        raise ValueError(f"{root}: {count} usable training images are too few to split off {' and '.join(shares)}")
    order, begin = permutation(count, seed), 0
    for split, share in shares.items():
        end = begin + max(1, round(share * count))
        sets[split] = train.subset(np.sort(order[begin:end]).tolist())
        begin = end
    sets["train"] = train.subset(np.sort(order[begin:]).tolist())
    taken = " and ".join(f"{len(sets[split]):,} as {split}" for split in shares)
    log(f"{root}: split off from the training images by seed {seed}: {taken}")
