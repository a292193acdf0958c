"""The one way in for dense tasks: a folder whose layout is recognised by what is in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tokenmix.data.dataset import printable
from tokenmix.data.depth import told_depths
from tokenmix.data.inventory import Inventory, summary, take_inventory
from tokenmix.data.likeness import told_alike
from tokenmix.data.memory import data_root
from tokenmix.data.random_numbers import hashes, name_keys
from tokenmix.data.split_words import split_of
from tokenmix.tasks.dense.box_tables import KIND as TABLE
from tokenmix.tasks.dense.box_tables import find_box_table, read_box_tables
from tokenmix.tasks.dense.checks import Impressions, usable
from tokenmix.tasks.dense.coco import find_coco, read_coco
from tokenmix.tasks.dense.labels import (
    find_ade,
    find_cityscapes,
    find_masks,
    read_ade,
    read_cityscapes,
    read_masks,
)
from tokenmix.tasks.dense.layout import MOST_CLASSES, SPLITS, Layout
from tokenmix.tasks.dense.pairing import LABEL_WORDS, PICTURE_WORDS
from tokenmix.tasks.dense.problems import Problems
from tokenmix.tasks.dense.scenes import load_scenes
from tokenmix.tasks.dense.sets import DENSE_TASKS, DenseData, ObjectSet, coco_tools
from tokenmix.tasks.dense.tool_files import find_tool, read_tool, why_unreadable
from tokenmix.tasks.dense.voc import (
    find_voc_boxes,
    find_voc_masks,
    read_voc_boxes,
    read_voc_instances,
    read_voc_masks,
)
from tokenmix.tasks.dense.yolo import find_yolo, read_yolo
from tokenmix_runtime.names import unknown
from tokenmix_runtime.terminal import say

Log = Callable[[str], None]
VAL_SHARE = TEST_SHARE = 0.15
NAMED = ("ade20k", "cityscapes", "coco", "voc")  # what recipes train on; none of them may be downloaded for you
MOST_DROPPED = 0.5  # the share of left-out objects from which on it is said once more


def _coco_files(inventory: Inventory) -> str:
    return ", ".join(path.name for path in find_coco(inventory).values())


Find = Callable[[Inventory], str]
Read = Callable[[Inventory], Layout]
# Of each task the layouts that are read: name, what speaks for it, and its reader.
LAYOUTS: dict[str, tuple[tuple[str, Find, Read], ...]] = {
    "detection": (
        ("COCO's JSON", _coco_files, read_coco),
        ("VOC's XML", find_voc_boxes, read_voc_boxes),
        ("YOLO's text files", find_yolo, read_yolo),
        ("a tool's own files", find_tool, read_tool),
        (TABLE, find_box_table, read_box_tables),
    ),
    "instances": (
        ("COCO's JSON", _coco_files, read_coco),
        ("VOC's masks", lambda inventory: find_voc_masks(inventory, "SegmentationObject"), read_voc_instances),
        ("YOLO's text files", find_yolo, read_yolo),
        ("a tool's own files", find_tool, read_tool),
    ),
    "segmentation": (
        ("ADE20K's folders", find_ade, read_ade),
        ("Cityscapes' folders", find_cityscapes, read_cityscapes),
        ("VOC's masks", lambda inventory: find_voc_masks(inventory, "SegmentationClass"), read_voc_masks),
        ("pictures and masks", find_masks, read_masks),
    ),
}
EXPECTED = {
    "detection": "annotations/*.json (COCO), *.xml (VOC) or *.txt (YOLO) with the names of the pictures, or a table "
    "of boxes (*.csv)",
    "instances": "annotations/*.json (COCO), SegmentationObject/*.png (VOC) or *.txt with polygons (YOLO)",
    "segmentation": "images/ and masks/ with equal names, SegmentationClass/ (VOC), images/training and "
    "annotations/training (ADE20K), leftImg8bit/ and gtFine/ (Cityscapes)",
}


def load_dense(
    spec: str | os.PathLike[str],
    task: str,
    *,
    seed: int = 0,
    image_size: int | None = None,
    check: bool = True,
    log: Log = say,
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
    inventory = inside(take_inventory(root))
    root, name = inventory.root, root.resolve().name
    layout = read_layout(inventory, task)
    if not layout.splits.get("train"):
        others = " and ".join(f"{len(items):,} {split} pictures" for split, items in layout.splits.items() if items)
        raise ValueError(f"{root}: no training pictures; as {layout.kind} it has {others or 'no pictures'}")
    if len(layout.classes) > MOST_CLASSES:
        raise ValueError(f"{root}: {len(layout.classes):,} classes; at most {MOST_CLASSES:,} can be told apart")
    if task == "segmentation" and len(layout.classes) > 255:
        raise ValueError(f"{root}: {len(layout.classes)} classes; at most 255 can be told apart from ignored pixels")
    problems = Problems()
    for kind, stray in layout.strays:
        problems.add(kind, stray)
    sets: dict[str, Any] = {}
    seen = {split: Impressions() for split in SPLITS}
    skipped = []
    for split in SPLITS:
        items = layout.splits.get(split, [])
        inventory.use(item.file for item in items)
        sets[split], left_out = usable(root, layout, items, task, check, problems, log, seen[split])
        skipped += left_out
    problems.tell(log)
    warnings, copies = _check_whole(root, layout, sets, problems)
    if seen["train"].classes:
        warnings += _absent(layout, seen["train"].classes)
    ours = _complete(sets, root, seed, log)
    different = {split: one for split, one in sets.items() if split != "test" or one is not sets["val"]}
    looks = {name: look for impressions in seen.values() for name, look in impressions.looks.items()}
    warnings += told_depths({name: depth for one in seen.values() for name, depth in one.depths.items()})
    warnings += told_alike({split: one.names for split, one in different.items()}, looks, copies)
    for warning in warnings:
        log(f"warning: {root}: {warning}")
    unused = inventory.unused("that no part of the layout names: not used")
    for reason, names in unused.items():
        log(f"{root}: {len(names):,} x {reason}: {summary(names)}")
    data = DenseData(
        name,
        sets["train"],
        sets["val"],
        sets["test"],
        image_size or 512,
        [printable(name) for name in layout.classes],
        skipped=skipped,
        unused=unused,
        split_off=ours,
        warnings=warnings,
        task=task,
        problems=problems,
    )
    log(data.summary())
    return data


def inside(inventory: Inventory) -> Inventory:
    """The inventory of the one folder in which everything lies, where archives have been unpacked so."""
    while True:
        files = (*inventory.pictures, *inventory.others)
        (top, *more) = {name.partition("/")[0] if "/" in name else "" for name in files} or {""}
        if more or not top or split_of(top) or top.casefold() in (*PICTURE_WORDS, *LABEL_WORDS):
            return inventory
        inventory = take_inventory(inventory.root / top)


def readings(inventory: Inventory, task: str) -> dict[str, tuple[str, Read]]:
    """The layouts of a task that something in a folder speaks for: what does, and the reader, by the layout's name."""
    found = {name: (find(inventory), read) for name, find, read in LAYOUTS[task]}
    there = {name: (evidence, read) for name, (evidence, read) in found.items() if evidence}
    if len(there) > 1:  # tables are often made of the files that lie beside them
        there.pop(TABLE, None)
    return there


def read_layout(inventory: Inventory, task: str) -> Layout:
    """The one layout that is there.

    Raises:
        ValueError: There are several, or none; the message shows what was found.
    """
    root, found = inventory.root, readings(inventory, task)
    if len(found) > 1 and task == "segmentation":  # the first ones are special cases of the last
        found = dict([next(iter(found.items()))])
    if len(found) > 1:
        shown = " and ".join(f"{name} ({evidence})" for name, (evidence, _) in found.items())
        raise ValueError(f"{root} can be read in {len(found)} ways: as {shown}; move the files of the others away")
    for _, read in found.values():
        return read(inventory)
    other = [name for name in LAYOUTS if name != task and readings(inventory, name)]
    hint = f"; it looks like a set for {' or '.join(other)}" if other else ""
    kinds = sorted({Path(name).suffix.lower() for name in inventory.others} - {""})
    there = f"{len(inventory.pictures):,} pictures" + (f" and files in {', '.join(kinds[:6])}" if kinds else "")
    broken = "".join(f"; {name} cannot be read: {why}" for name, why in _unreadable(inventory))
    raise ValueError(f"{root}: no layout for {task} found among {there}{hint}{broken}; expected {EXPECTED[task]}")


def _unreadable(inventory: Inventory) -> list[tuple[str, str]]:
    """Files of annotations that are damaged, and why: the first three."""
    found = []
    for name in inventory.others:
        if name.lower().endswith((".json", ".xml")) and (why := why_unreadable(inventory.root / name)):
            found.append((name, why))
        if len(found) == 3:
            break
    return found


def _check_whole(root: Path, layout: Layout, sets: dict[str, Any], problems: Problems) -> tuple[list[str], set[str]]:
    """Judge what was loaded as a whole: what is odd about it, and the names of pictures that are in two splits.

    Raises:
        ValueError: Nothing could be learnt from it.
    """
    first = next((f"; first of all: {name}: {kind}" for kind, (name, *_) in problems.found.items()), "")
    train, told = sets["train"], list[str]()
    if not len(train):
        raise ValueError(
            f"{root}: none of its {len(layout.splits['train']):,} training pictures can be used ({layout.kind}){first}"
        )
    if isinstance(train, ObjectSet):
        used = sum(len(one.labels) for one in train.objects)
        given = sum(len(item.objects) for item in layout.splits["train"])
        if not any((~one.crowd).any() for one in train.objects):
            what = f"all {used:,} usable objects are crowds" if used else "no usable object"
            raise ValueError(
                f"{root}: {what} in its {len(train):,} training pictures ({layout.kind}): nothing could "
                f"be learnt{first}"
            )
        ends = [
            float(one.boxes.max())
            for one, size in zip(train.objects, train.sizes, strict=True)
            if min(size) > 1 and len(one.labels)
        ]
        if max(ends, default=2) <= 1:
            raise ValueError(
                f"{root}: all {used:,} boxes of the training pictures lie within their first pixel: they look like "
                f"shares of the sides, and {layout.kind} has pixels: multiply them by width and height"
            )
        if used < (1 - MOST_DROPPED) * given:
            told.append(f"only {used:,} of {given:,} objects of the training pictures can be used{first}")
        told += _absent(layout, {int(label) - 1 for one in train.objects for label in one.labels})
    seen: dict[int, str] = {}
    copies: set[str] = set()
    for split in SPLITS:
        contents = sets[split].contents().tolist()
        copies |= {name for name, content in zip(sets[split].names, contents, strict=True) if content in seen}
        for other in dict.fromkeys(seen.values()):
            shared = sum(seen.get(content) == other for content in contents)
            if shared:
                told.append(f"{shared:,} of {len(contents):,} {split} pictures are {other} pictures too")
        for content in contents:
            seen.setdefault(content, split)
    return told, copies


def _absent(layout: Layout, present: set[int]) -> list[str]:
    """What is to be said of classes that are not among these numbers, from 0 on."""
    absent = [printable(name) for number, name in enumerate(layout.classes) if number not in present]
    return [f"no training picture shows {summary(absent)}"] if absent else []


def _complete(sets: dict[str, Any], root: Path, seed: int, log: Log) -> bool:
    """Fill an empty validation or test set, see `load_dense`; whether pictures were split off."""
    if len(sets["val"]):
        if not len(sets["test"]):
            log(f"{root}: no labelled test images; the validation images are tested on")
            sets["test"] = sets["val"]
        return False
    shares = {"val": VAL_SHARE} | ({} if len(sets["test"]) else {"test": TEST_SHARE})
    train, count = sets["train"], len(sets["train"])
    if count <= len(shares):
        raise ValueError(f"{root}: {count} usable training images are too few to split off {' and '.join(shares)}")
    order, begin = np.argsort(hashes(seed, name_keys(train.names)), kind="stable"), 0
    for split, share in shares.items():
        end = begin + max(1, round(share * count))
        sets[split] = train.subset(np.sort(order[begin:end]).tolist())
        begin = end
    sets["train"] = train.subset(np.sort(order[begin:]).tolist())
    taken = " and ".join(f"{len(sets[split]):,} as {split}" for split in shares)
    log(f"{root}: split off from the training images by seed {seed}: {taken}")
    return True
