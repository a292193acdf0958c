"""Layouts with a label for each pixel: ADE20K's, Cityscapes' and plain folders ``images/`` and ``masks/``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tokenmix.tasks.dense.layout import SPLITS, Item, Layout, pictures, read_classes, split_folders
from tokenmix.tasks.dense.sets import IGNORED, read_labels
from tokenmix.tasks.dense.voc import identity

CITYSCAPES = {  # the 19 classes that are evaluated, and their ids in *_labelIds.png
    **{"road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19},
    **{"traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26},
    **{"truck": 27, "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33},
}
_MASKS = (".png", ".bmp", ".tif", ".tiff", ".gif")


def read_ade(root: Path) -> Layout:
    """``images/training`` and ``annotations/training``, with ``validation`` beside: 150 classes.

    In the files 0 is "none of them", which is ignored, and class k is k + 1. The names are those in
    ``objectInfo150.txt``, else numbers.
    """
    table = np.full(65536, IGNORED, np.uint8)
    table[1:151] = np.arange(150)
    listed = root / "objectInfo150.txt"
    rows = [line.split("\t") for line in read_classes(listed)[1:]] if listed.is_file() else []
    names = [row[-1].split(",")[0].strip() for row in rows]
    classes = names if len(names) == 150 else [str(number) for number in range(1, 151)]
    layout = Layout("ADE20K", classes, {}, table, frozenset({0, 255}))
    for split, folder in (("train", "training"), ("val", "validation"), ("test", "test")):
        layout.splits[split] = _pairs(
            root,
            f"images/{folder}",
            f"annotations/{folder}",
            lambda name: Path(name).with_suffix("").as_posix(),
            layout,
        )
    return layout


def read_cityscapes(root: Path) -> Layout:
    """``leftImg8bit/train/city/*_leftImg8bit.png`` and ``gtFine/train/city/*_gtFine_labelIds.png``: 19 classes.

    Where there is no ``labelIds`` file, ``labelTrainIds`` is read. The labels of the test pictures are not public, so
    these are not used.
    """
    kind = "labelIds" if next(root.glob("gtFine/train/*/*_gtFine_labelIds.png"), None) else "labelTrainIds"
    table = identity(len(CITYSCAPES))
    if kind == "labelIds":
        table[:] = IGNORED
        table[list(CITYSCAPES.values())] = np.arange(len(CITYSCAPES))
    layout = Layout("Cityscapes", list(CITYSCAPES), {"test": []}, table, frozenset({*range(34), 255}))
    for split in ("train", "val"):
        layout.splits[split] = _pairs(
            root,
            f"leftImg8bit/{split}",
            f"gtFine/{split}",
            lambda name: name.rsplit("_", 1)[0] + f"_gtFine_{kind}",
            layout,
            stray=False,
        )
    return layout


def read_plain(root: Path) -> Layout:
    """``images/x.jpg`` and ``masks/x.png``, or ``train/images`` and ``train/masks``, or ``images/train`` and so on.

    A mask has one channel: the class's number from 0 on, 255 is ignored; where all masks hold nothing but 0 and 255,
    255 is class 1. ``classes.txt`` names the classes; without it they are the numbers that occur.

    Raises:
        ValueError: No mask that can be read.
    """
    inner = split_folders(root / "images")
    outer = {split: name for split, name in split_folders(root).items() if (root / name / "images").is_dir()}
    places = {split: (f"images/{name}", f"masks/{name}") for split, name in inner.items()}
    places |= {split: (f"{name}/images", f"{name}/masks") for split, name in outer.items()}
    layout = Layout("images and masks", [], {split: [] for split in SPLITS})
    for split, (images, masks) in (places or {"train": ("images", "masks")}).items():
        layout.splits[split] = _pairs(root, images, masks, lambda name: Path(name).with_suffix("").as_posix(), layout)
    named = root / "classes.txt"
    values = _values(root, layout)
    table = identity(IGNORED)
    if values <= {0, 255} and 255 in values:
        layout.classes, table[255] = ["background", "object"], 1
    else:
        layout.classes = [str(number) for number in range(max(values - {IGNORED}, default=0) + 1)]
    if named.is_file():
        layout.classes = read_classes(named)
    table[len(layout.classes) : IGNORED] = IGNORED
    layout.table = table
    return layout


def _values(root: Path, layout: Layout) -> set[int]:
    """All numbers in the masks that can be read."""
    values: set[int] = set()
    for item in (item for items in layout.splits.values() for item in items if not item.problem):
        try:
            values |= set(np.unique(read_labels(root / item.label_file)).tolist())
        except ValueError:
            continue  # named when the pictures are checked
    return values


def _pairs(
    root: Path, images: str, masks: str, stem: Callable[[str], str], layout: Layout, *, stray: bool = True
) -> list[Item]:
    """The pictures of a folder with their label files: those whose name without extension is ``stem(picture)``."""
    found = {Path(name).with_suffix("").as_posix(): name for name in pictures(root / masks, _MASKS)}
    items = []
    for name in pictures(root / images):
        mask = found.pop(stem(name), None)
        problem = "" if mask else "picture without a mask: left out"
        items.append(Item(f"{images}/{name}", label_file=f"{masks}/{mask}", problem=problem))
    if stray:
        layout.strays += [("mask without a picture: not used", f"{masks}/{name}") for name in found.values()]
    return items
