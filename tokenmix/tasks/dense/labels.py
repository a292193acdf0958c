"""Layouts with a label for each pixel: ADE20K's, Cityscapes', VOC's, and pictures with masks of their names."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from tokenmix.data.inventory import Inventory
from tokenmix.tasks.dense.class_maps import ClassMap, read_class_map
from tokenmix.tasks.dense.layout import SPLITS, Item, Layout, read_classes
from tokenmix.tasks.dense.pairing import LABEL_WORDS, Pairing, mask_stems, stem
from tokenmix.tasks.dense.sets import IGNORED, read_mask
from tokenmix.tasks.dense.voc import identity, splits_of

CITYSCAPES = {  # the 19 classes that are evaluated, and their ids in *_labelIds.png
    **{"road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19},
    **{"traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26},
    **{"truck": 27, "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33},
}
_LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif")
_SHOWN_VALUES = 12
_NEAR = 40  # how far from 0 and 255 the values of a lossy mask of two classes may be


def find_ade(inventory: Inventory) -> str:
    """What speaks for ADE20K's layout."""
    both = all(inventory.below(f"{part}/training") for part in ("images", "annotations"))
    return "images/training and annotations/training" if both else ""


def read_ade(inventory: Inventory) -> Layout:
    """``images/training`` and ``annotations/training``, with ``validation`` beside: 150 classes.

    In the files 0 is "none of them", which is ignored, and class k is k + 1. The names are those in
    ``objectInfo150.txt``, else numbers.
    """
    table = np.full(65536, IGNORED, np.uint8)
    table[1:151] = np.arange(150)
    listed = inventory.root / "objectInfo150.txt"
    rows = [line.split("\t") for line in read_classes(listed)[1:]] if listed.is_file() else []
    names = [row[-1].split(",")[0].strip() for row in rows]
    classes = names if len(names) == 150 else [str(number) for number in range(1, 151)]
    layout = Layout("ADE20K", classes, {}, table, void=frozenset({0, 255}))
    for split, folder in (("train", "training"), ("val", "validation"), ("test", "test")):
        pictures, masks = (inventory.below(f"{part}/{folder}") for part in ("images", "annotations"))
        layout.splits[split] = _pairs(pictures, Pairing(masks), layout)
        inventory.use(masks)
    inventory.use(name for name in inventory.others if "/" not in name)  # lists of objects and scenes
    return layout


def find_cityscapes(inventory: Inventory) -> str:
    """What speaks for Cityscapes' layout."""
    return "leftImg8bit and gtFine" if inventory.below("leftImg8bit") and inventory.below("gtFine") else ""


def read_cityscapes(inventory: Inventory) -> Layout:
    """``leftImg8bit/train/city/*_leftImg8bit.png`` and ``gtFine/train/city/*_gtFine_labelIds.png``: 19 classes.

    Where there is no ``labelIds`` file, ``labelTrainIds`` is read. The labels of the test pictures are not public, so
    these are not used.
    """
    trained = inventory.below("gtFine/train")
    kind = "labelIds" if any(name.endswith("_gtFine_labelIds.png") for name in trained) else "labelTrainIds"
    table = identity(len(CITYSCAPES))
    if kind == "labelIds":
        table[:] = IGNORED
        table[list(CITYSCAPES.values())] = np.arange(len(CITYSCAPES))
    layout = Layout("Cityscapes", list(CITYSCAPES), {"test": []}, table, void=frozenset({*range(34), 255}))
    for split in ("train", "val"):
        masks = {name for name in inventory.below(f"gtFine/{split}") if name.endswith(f"_gtFine_{kind}.png")}
        items = []
        for picture in inventory.below(f"leftImg8bit/{split}"):
            inner = picture.removeprefix(f"leftImg8bit/{split}/").rsplit("_", 1)[0]
            mask = f"gtFine/{split}/{inner}_gtFine_{kind}.png"
            problem = "" if mask in masks else "picture without a mask: left out"
            items.append(Item(picture, label_file=mask, problem=problem))
        layout.splits[split] = items
    inventory.use(inventory.below("gtFine"))
    inventory.use(name for name in inventory.others if name.startswith("gtFine/"))  # outlines of the same
    return layout


def find_masks(inventory: Inventory) -> str:
    """What speaks for masks in plain folders: pictures that have another picture of their name in a folder of masks."""
    pictures, masks = _divided(inventory)
    pairing = Pairing(masks, mask_stems)
    for picture in pictures:
        if mask := pairing.of(picture):
            return f"masks with the names of pictures, such as {mask}"
    return ""


def _divided(inventory: Inventory) -> tuple[list[str], list[str]]:
    """The pictures, and the masks: those in a folder that is called so, or whose own name says it.

    What such a folder has a mask for is a picture whatever its name, such as those of a left camera, ``1_l.png``.
    """
    masks = {name for name in inventory.pictures if _among_masks(name)}
    shown = {name for mask in masks for name in mask_stems(mask)}
    masks |= {name for name in inventory.pictures if len(mask_stems(name)) > 1 and stem(name) not in shown}
    parts: tuple[list[str], list[str]] = [], []
    for name in inventory.pictures:
        parts[name in masks].append(name)
    return parts


def _among_masks(name: str) -> bool:
    """Whether a file is in a folder of masks."""
    words = [part.casefold() for part in PurePosixPath(name).parts[:-1]]
    return any(
        word in LABEL_WORDS or word.endswith(("annot", "_masks", "_mask", "_labels", "_label", "-masks", "_gt"))
        for word in words
    )


def read_masks(inventory: Inventory) -> Layout:
    """``images/x.jpg`` and ``masks/x.png``, ``train/`` and ``trainannot/``, ``x.jpg`` and ``x_mask.png``, and the like.

    A mask has one channel: the class's number from 0 on, 255 is ignored; where all masks hold nothing but 0 and 255,
    255 is class 1. Colours need a map, see `tokenmix.tasks.dense.class_maps`. Without a file that names the classes
    they are the numbers that occur.

    Raises:
        ValueError: No mask that can be read, or their values are no numbers of classes.
    """
    pictures, masks = _divided(inventory)
    pairing = Pairing(masks, mask_stems)
    layout = Layout("images and masks", [], {split: [] for split in SPLITS})
    by_split, missing = splits_of(inventory, pictures, ())
    for split, names in by_split.items():
        layout.splits[split] = _pairs(names, pairing, layout, stray=False)
        layout.splits[split] += [Item(name, problem="picture missing: left out") for name in missing.get(split, ())]
    layout.strays += [("mask without a picture: not used", name) for name in pairing.left()] + pairing.doubts
    inventory.use(masks)
    _number(inventory, layout, read_class_map(inventory))
    return layout


def _number(inventory: Inventory, layout: Layout, known: ClassMap | None) -> None:
    """Find out which value, or colour, is which class."""
    if known and known.colours:
        layout.classes, layout.colours, layout.table = known.classes, known.colours, identity(len(known.classes))
        return
    files = [item.label_file for items in layout.splits.values() for item in items if not item.problem]
    values, colours, mixed = _values(inventory.root, files)
    if colours and not values:
        shown = ", ".join(map(str, sorted(colours)[:_SHOWN_VALUES]))
        raise ValueError(
            f"{inventory.root}: its masks are pictures in colour ({shown}): write a file labelmap.txt into the folder, "
            "a line name:r,g,b:: for each class, or save the numbers of the classes"
        )
    if mixed and not (known and known.values):
        raise ValueError(
            f"{inventory.root}: some of its masks hold 0 and 1 alone, such as {mixed[0]}, others 0 and 255, such as "
            f"{mixed[1]}: there 255 would be ignored, and looks like the object: save all alike"
        )
    lossy = bool(files) and all(file.lower().endswith(_LOSSY) for file in files)
    names = known.classes if known else ["object"]
    two = {1: ["background", *names], 2: names}.get(len(names))  # what masks of 0 and 255 alone may show
    table = identity(IGNORED)
    if known and known.values:
        table[:] = IGNORED
        table[known.values] = np.arange(len(known.values))
        layout.classes, layout.void = known.classes, frozenset({255} - set(known.values))
    elif two and values <= {0, 255} and 255 in values:
        layout.classes, table[255] = two, 1
    elif two and lossy and all(min(value, 255 - value) <= _NEAR for value in values) and max(values) > 127:
        table[:], table[128:256] = 0, 1
        layout.classes = two
        layout.strays.append(("masks in JPEG, which blurs numbers: 0 below 128, else 1", f"{len(files):,} files"))
    elif lossy:
        raise ValueError(
            f"{inventory.root}: its masks are JPEG files, such as {files[0]}, which change the numbers of classes "
            f"(found: {_some(values)}): save them as PNG; masks of 0 and 255 alone are read all the same"
        )
    else:
        count = len(known.classes) if known else max(values - {IGNORED}, default=0) + 1
        if grey := _looks_grey(values, count if known else 0):
            raise ValueError(
                f"{inventory.root}: the values in its masks ({_some(values)}) {grey}: save the number of its class, 0, "
                "1, 2, ..., for each pixel, or 0 and 255 for two classes; classes.txt names as many as there are"
            )
        layout.classes = known.classes if known else [str(number) for number in range(count)]
    table[len(layout.classes) : IGNORED] = np.where(
        table[len(layout.classes) : IGNORED] < len(layout.classes), table[len(layout.classes) : IGNORED], IGNORED
    )
    layout.table = table


def _looks_grey(values: set[int], count: int) -> str:
    """Why values can hardly be numbers of classes, or nothing."""
    real = sorted(values - {IGNORED})
    if not real or (count and real[-1] < count):
        return ""
    if count:
        beyond = [value for value in real if value >= count]
        return f"go beyond the {count} classes that are named" if len(beyond) > len(real) / 2 else ""
    gaps = real[-1] + 1 - len(real)
    if real[-1] >= 20 and gaps > len(real):
        return "look like grey levels, not like numbers of classes"
    if real[-1] > 127 and len(real) > 100:
        return "look like shades of grey, not like numbers of classes"
    return ""


def _some(values: set[int]) -> str:
    ordered = sorted(values)
    more = f", ... {len(ordered):,} in all" if len(ordered) > _SHOWN_VALUES else ""
    return ", ".join(map(str, ordered[:_SHOWN_VALUES])) + more


def _values(root: Path, files: list[str]) -> tuple[set[int], set[tuple[int, int, int]], tuple[str, str] | None]:
    """All numbers in the masks of one channel that can be read, and some colours of the others.

    And where some masks hold 0 and 1 alone, others 0 and 255 alone, and none both, a mask of either kind.
    """
    values: set[int] = set()
    kinds: dict[frozenset[int], str] = {}
    colours: set[tuple[int, int, int]] = set()
    for file in files:
        try:
            mask = read_mask(root / file)
        except ValueError:
            continue  # named when the pictures are checked
        if mask.ndim == 2:
            found = frozenset(np.unique(mask).tolist())
            values |= found
            kinds.setdefault(found - {0}, file)
        elif len(colours) < _SHOWN_VALUES:
            colours |= {tuple(row) for row in np.unique(mask.reshape(-1, 3)[::97], axis=0).tolist()}
    one, other = kinds.get(frozenset({1})), kinds.get(frozenset({255}))
    mixed = (one, other) if one and other and values == {0, 1, 255} and frozenset({1, 255}) not in kinds else None
    return values, colours, mixed


def _pairs(pictures: list[str], masks: Pairing, layout: Layout, *, stray: bool = True) -> list[Item]:
    """The pictures with the masks of their names."""
    items = []
    for name in pictures:
        mask = masks.of(name)
        items.append(Item(name, label_file=mask or "", problem="" if mask else "picture without a mask: left out"))
    if stray:
        layout.strays += [("mask without a picture: not used", name) for name in masks.left()] + masks.doubts
    return items
