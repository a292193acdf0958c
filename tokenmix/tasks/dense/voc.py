"""Pascal VOC's folders (http://host.robots.ox.ac.uk/pascal/VOC/): boxes in XML, masks of classes and of objects."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from tokenmix.cores import usable_cores
from tokenmix.data.text_files import is_file, read_bytes
from tokenmix.tasks.dense.layout import LEADS_OUT, SPLITS, Item, Layout, RawObject, leads_out, pictures, read_classes
from tokenmix.tasks.dense.sets import IGNORED, coco_tools, read_labels

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


def find_voc(root: Path, inside: str) -> Path | None:
    """The folder with ``inside`` in it: ``root``, or a year's below it.

    Raises:
        ValueError: There are several.
    """
    found = [path for path in (root, *root.glob("VOC[0-9]*"), *root.glob("VOCdevkit/VOC*")) if (path / inside).is_dir()]
    if len(found) > 1:
        raise ValueError(f"{root} holds {', '.join(path.name for path in found)}: give the folder of one of them")
    return found[0] if found else None


def read_voc_boxes(root: Path) -> Layout:
    """``Annotations/*.xml``; the classes are those of the training pictures, by name.

    Pixels are counted from 1, and the last one belongs to the box. Objects marked difficult are treated as crowds.
    """
    return _read_objects(root, "Main", "Annotations", masks=False)


def read_voc_instances(root: Path) -> Layout:
    """``Annotations/*.xml`` and, for the masks, ``SegmentationObject/*.png``.

    There the pixels of the file's first object are 1, of its second 2 and so on; 0 and the borders, 255, are none's.
    """
    layout = _read_objects(root, "Segmentation", "SegmentationObject", masks=True)
    with ThreadPoolExecutor(min(8, usable_cores())) as pool:
        for split, items in layout.splits.items():
            layout.splits[split] = []
            for item, left in pool.map(partial(_with_masks, root), items):
                layout.splits[split].append(item)
                if left:
                    layout.strays.append(("pixels of an object that is not in the annotation: ignored", item.file))
    return layout


def _with_masks(root: Path, item: Item) -> tuple[Item, bool]:
    """The picture with its objects' masks, and whether there are pixels of no object."""
    if item.problem:
        return item, False
    path = root / item.label_file
    if not is_file(path) or leads_out(root, path):
        return replace(item, problem="picture without a mask: left out"), False
    try:
        values = read_labels(path)
    except ValueError as error:
        what = "is a colour picture, not one number per pixel" if "colour" in str(error) else "cannot be read"
        return replace(item, problem=f"mask that {what}: left out"), False
    objects = []
    for number, entry in enumerate(item.objects, 1):
        mask = values == number
        if area := int(mask.sum()):
            code = coco_tools().encode(np.asfortranarray(mask, np.uint8))
            entry = replace(entry, area=float(area), shape={**code, "counts": code["counts"].decode()})
        objects.append(entry)
    known = (values <= len(objects)) | (values == IGNORED)
    return replace(item, objects=objects), not known.all()


def _read_objects(root: Path, lists: str, inside: str, *, masks: bool) -> Layout:
    """The objects of the pictures in ``ImageSets/lists``, or of all that have a file in the folder ``inside``."""
    found = find_voc(root, inside)
    assert found is not None
    files = _by_stem(found)
    stems = sorted(path.stem for path in (found / inside).iterdir() if path.suffix == (".png" if masks else ".xml"))
    splits = _splits(found, lists) or {"train": stems}
    parsed = {stem: _parse(root, found / "Annotations" / f"{stem}.xml") for stems in splits.values() for stem in stems}
    names = {entry[0] for stem in splits["train"] if isinstance(tree := parsed[stem], list) for entry in tree}
    labels = {name: number for number, name in enumerate(sorted(names), 1)}
    layout = Layout("VOC", sorted(names), {split: [] for split in SPLITS})
    for split, stems in splits.items():
        for stem in stems:
            file, tree = _relative(root, found, files.get(stem, f"JPEGImages/{stem}.jpg")), parsed[stem]
            if isinstance(tree, str):
                layout.splits[split].append(Item(file, problem=tree))
                continue
            objects = [
                RawObject(labels.get(name), box, crowd=difficult, name=f"object {number} ({name})")
                for number, (name, box, difficult) in enumerate(tree, 1)
            ]
            label_file = _relative(root, found, f"{inside}/{stem}.png") if masks else ""
            layout.splits[split].append(Item(file, objects, label_file))
    return layout


def read_voc_masks(root: Path) -> Layout:
    """``SegmentationClass/*.png``: 0 is the background, a class of its own, 255 is ignored.

    A file ``classes.txt`` beside names other classes than VOC's 21.
    """
    found = find_voc(root, "SegmentationClass")
    assert found is not None
    files = _by_stem(found)
    named = found / "classes.txt"
    classes = read_classes(named) if named.is_file() else ["background", *CLASSES]
    stems = sorted(path.stem for path in (found / "SegmentationClass").glob("*.png"))
    splits = _splits(found, "Segmentation") or {"train": stems}
    layout = Layout("VOC", classes, {split: [] for split in SPLITS}, table=identity(len(classes)))
    for split, members in splits.items():
        layout.splits[split] = [
            Item(
                _relative(root, found, files.get(stem, f"JPEGImages/{stem}.jpg")),
                label_file=_relative(root, found, f"SegmentationClass/{stem}.png"),
            )
            for stem in members
        ]
    return layout


def identity(count: int) -> np.ndarray:
    """The table of labels 0 .. ``count`` - 1, at most 255, where any other value is ignored."""
    table = np.full(65536, IGNORED, np.uint8)
    table[: min(count, IGNORED)] = np.arange(min(count, IGNORED))
    return table


def _by_stem(found: Path) -> dict[str, str]:
    """The pictures by their names without extension."""
    folder = next((name for name in ("JPEGImages", "images", "Images") if (found / name).is_dir()), "JPEGImages")
    return {Path(file).stem: f"{folder}/{file}" for file in pictures(found / folder)}


def _relative(root: Path, found: Path, file: str) -> str:
    return (found.relative_to(root) / file).as_posix()


def _splits(found: Path, kind: str) -> dict[str, list[str]]:
    """The names in ``ImageSets/kind/train.txt`` and so on; nothing where there is no such file."""
    lists = {split: found / "ImageSets" / kind / f"{split}.txt" for split in SPLITS}
    read = {split: [line.split()[0] for line in read_classes(path)] for split, path in lists.items() if path.is_file()}
    if read and "train" not in read:
        raise ValueError(f"{found / 'ImageSets' / kind}: has {', '.join(read)} but no train.txt")
    return read


class _Doctype(ValueError):
    """The file defines entities of its own."""


class _Plain(ElementTree.TreeBuilder):
    """Refuses a document type before its entities are read, which could multiply or name other files."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise _Doctype(name)


def _parse(root: Path, path: Path) -> list[tuple[str, list[float] | None, bool]] | str:
    """The objects in a file: name, box, whether difficult; or what is wrong with the file."""
    if leads_out(root, path):
        return LEADS_OUT
    try:
        tree = ElementTree.fromstring(read_bytes(path), ElementTree.XMLParser(target=_Plain()))
    except _Doctype:
        return "annotation file with a DOCTYPE, which is not read: picture left out"
    except (OSError, ValueError, LookupError, ElementTree.ParseError):  # the second ones: no file, odd encodings
        return "annotation file missing or not XML: picture left out"
    objects = []
    for entry in tree.iter("object"):
        try:
            sides = [float(entry.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")]
            box = [sides[0] - 1, sides[1] - 1, sides[2], sides[3]]
        except ValueError:
            box = None
        name = (entry.findtext("name") or "").strip()
        objects.append((name, box, entry.findtext("difficult", "0").strip() == "1"))
    return objects
