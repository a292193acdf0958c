"""Pascal VOC's XML and masks (http://host.robots.ox.ac.uk/pascal/VOC/), wherever they lie beside their pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

import numpy as np

from tokenmix.data.inventory import Inventory
from tokenmix.data.natural import same
from tokenmix.data.split_words import split_of
from tokenmix.data.text_files import is_file, read_bytes
from tokenmix.tasks.dense.class_maps import read_class_map
from tokenmix.tasks.dense.layout import LEADS_OUT, SPLITS, Item, Layout, RawObject, leads_out
from tokenmix.tasks.dense.pairing import Pairing, stem
from tokenmix.tasks.dense.sets import IGNORED, coco_tools, read_labels
from tokenmix.tasks.dense.values import number_of, text_of, truth_of, whole_of
from tokenmix_runtime.cores import usable_cores

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
_LISTS = {"train": "train", "trainval": "train", "default": "train", "val": "val", "test": "test"}


@dataclass(frozen=True)
class _Annotation:
    """What an XML file says.

    Attributes:
        objects: Of each its name, its box and whether it is difficult.
        size: The (width, height) that it claims for the picture.
        notes: What of it could not be read.
    """

    objects: list[tuple[str, list[float] | None, bool]]
    size: tuple[int, int] | None
    notes: list[str]


def find_voc_boxes(inventory: Inventory) -> str:
    """What speaks for boxes in VOC's XML: files with the names of pictures; empty if there are none."""
    files = _xml_files(inventory)
    labels = Pairing(files)
    for picture in inventory.pictures:
        if file := labels.of(picture):
            return f"XML files with the names of pictures, such as {file}"
    return f"XML files in a folder Annotations, such as {files[0]}" if any(_in(f, "annotations") for f in files) else ""


def find_voc_masks(inventory: Inventory, folder: str) -> str:
    """What speaks for masks as VOC keeps them: a folder ``SegmentationClass`` or ``SegmentationObject``."""
    found = [name for name in inventory.pictures if _in(name, folder.lower())]
    return f"masks in {folder}, such as {found[0]}" if found else ""


def _in(file: str, folder: str) -> bool:
    return any(part.lower() == folder for part in PurePosixPath(file).parts[:-1])


def _xml_files(inventory: Inventory) -> list[str]:
    return [name for name in inventory.others if name.lower().endswith(".xml")]


def read_voc_boxes(inventory: Inventory) -> Layout:
    """Boxes in XML files; the classes are those of the training pictures, or of all where there are none, by name.

    Pixels are counted from 1, and the last one belongs to the box. Objects marked difficult are treated as crowds.
    """
    return _read_objects(inventory, ("Main", "Layout"), masks=False)


def read_voc_instances(inventory: Inventory) -> Layout:
    """Boxes in XML files and, for the masks, ``SegmentationObject/*.png``.

    There the pixels of the file's first object are 1, of its second 2 and so on; 0 and the borders, 255, are none's.
    """
    layout = _read_objects(inventory, ("Segmentation",), masks=True)
    with ThreadPoolExecutor(min(8, usable_cores())) as pool:
        for split, items in layout.splits.items():
            layout.splits[split] = []
            for item, left in pool.map(partial(_with_masks, inventory.root), items):
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


def _read_objects(inventory: Inventory, lists: Sequence[str], *, masks: bool) -> Layout:
    """The objects of the pictures that lists name, or of all that have a file."""
    root = inventory.root
    masked = [name for name in inventory.pictures if _in(name, "segmentationobject")] if masks else []
    taken = {name for name in inventory.pictures if _in(name, "segmentationclass") or _in(name, "segmentationobject")}
    pictures = [name for name in inventory.pictures if name not in taken]
    xml, drawn = Pairing(_xml_files(inventory)), Pairing(masked)
    by_split, missing = splits_of(inventory, pictures, lists)
    pairs = {split: [(name, xml.of(name), drawn.of(name)) for name in names] for split, names in by_split.items()}
    if not any(map(_listed, lists, [inventory] * len(lists))):  # then a picture without a file is none of the set
        pairs = {split: [row for row in rows if row[2 if masks else 1]] for split, rows in pairs.items()}
    parsed = {file: _parse(root, root / file) for rows in pairs.values() for _, file, _ in rows if file}
    inventory.use([*parsed, *taken])
    _use_lists(inventory)
    taught = pairs.get("train") or [row for rows in pairs.values() for row in rows]
    trees = [parsed[file] for _, file, _ in taught if file]
    names = sorted({entry[0] for tree in trees if isinstance(tree, _Annotation) for entry in tree.objects} - {""})
    labels = {name: number for number, name in enumerate(names, 1)}
    layout = Layout("VOC", names, {split: [] for split in SPLITS})
    for split, rows in pairs.items():
        for file, source, mask in rows:
            tree = parsed[source] if source else "annotation file missing or not XML: picture left out"
            if isinstance(tree, str):
                layout.splits[split].append(Item(file, problem=tree))
                continue
            objects = [
                RawObject(labels.get(name), box, crowd=difficult, name=f"object {number} ({name})")
                for number, (name, box, difficult) in enumerate(tree.objects, 1)
            ]
            layout.splits[split].append(Item(file, objects, mask or "", size=tree.size))
            layout.strays += [(note, source or file) for note in tree.notes]
        layout.splits[split] += [Item(name, problem="picture missing: left out") for name in missing.get(split, ())]
    layout.strays += xml.doubts + drawn.doubts
    if not masks:
        layout.strays += [("annotation without a picture: not used", name) for name in xml.left()]
    return layout


def read_voc_masks(inventory: Inventory) -> Layout:
    """``SegmentationClass/*.png``: 0 is the background, a class of its own, 255 is ignored.

    Own classes are named by ``classes.txt``, labelme's ``class_names.txt`` or CVAT's ``labelmap.txt``, whose colours
    are read too; without such a file they are VOC's 21.
    """
    masks = [name for name in inventory.pictures if _in(name, "segmentationclass")]
    taken = {*masks, *(name for name in inventory.pictures if _in(name, "segmentationobject"))}
    pictures = [name for name in inventory.pictures if name not in taken]
    known = read_class_map(inventory)
    classes = known.classes if known else ["background", *CLASSES]
    layout = Layout("VOC", classes, {split: [] for split in SPLITS}, table=identity(len(classes)))
    layout.colours = known.colours if known else None
    drawn = Pairing(masks)
    by_split, missing = splits_of(inventory, pictures, ("Segmentation",))
    listed = _listed("Segmentation", inventory)
    for split, names in by_split.items():
        pairs = [(name, drawn.of(name)) for name in names]
        layout.splits[split] = [
            Item(name, label_file=mask or "", problem="" if mask else "picture without a mask: left out")
            for name, mask in pairs
            if mask or listed
        ]
        layout.splits[split] += [Item(name, problem="picture missing: left out") for name in missing.get(split, ())]
    layout.strays += [("mask without a picture: not used", name) for name in drawn.left()] + drawn.doubts
    inventory.use([*taken, *(name for name in _xml_files(inventory) if _in(name, "annotations"))])
    _use_lists(inventory)
    return layout


def _use_lists(inventory: Inventory) -> None:
    """Note that the lists belong to the layout, also those for other tasks."""
    inventory.use(name for name in inventory.others if _in(name, "imagesets"))


def identity(count: int) -> np.ndarray:
    """The table of labels 0 .. ``count`` - 1, at most 255, where any other value is ignored."""
    table = np.full(65536, IGNORED, np.uint8)
    table[: min(count, IGNORED)] = np.arange(min(count, IGNORED))
    return table


def _listed(kind: str, inventory: Inventory) -> dict[str, list[str]]:
    """The lists of pictures for a kind of task: ``ImageSets/<kind>/train.txt`` of each year, or one in the root."""
    found: dict[tuple[str, ...], str] = {}
    for name in inventory.others:
        parts = PurePosixPath(name).parts
        if not name.lower().endswith(".txt") or (split := _split_of_list(parts[-1])) is None:
            continue
        folder = [part.lower() for part in parts[:-1]]
        inside = len(folder) >= 2 and folder[-2:] == ["imagesets", kind.lower()]
        if inside or (not folder and PurePosixPath(name).stem.lower() in ("train", "val", "test")):
            place = (split, *parts[:-1])
            if place in found and PurePosixPath(found[place]).stem.lower() == split:
                continue
            found[place] = name
    files: dict[str, list[str]] = {}
    for (split, *_), name in found.items():
        files.setdefault(split, []).append(name)
    return files


def _split_of_list(file: str) -> str | None:
    word = PurePosixPath(file).stem.lower()
    return _LISTS.get(word) or split_of(word) or None


def splits_of(
    inventory: Inventory, pictures: Sequence[str], lists: Sequence[str]
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The pictures of each split: those that a list names, with or without their ending, else by a folder's name.

    Args:
        inventory: The data set's files.
        pictures: Those that are no masks.
        lists: Folders in ``ImageSets``; the first that is there counts.

    Returns:
        The pictures by split, and those that a list names and that are not there.

    """
    found = next((listed for kind in lists if (listed := _listed(kind, inventory))), {})
    if not found:
        parts: dict[str, list[str]] = {}
        for name in pictures:
            words = [split_of(part) for part in PurePosixPath(name).parts[:-1]]
            parts.setdefault(next(filter(None, words), "train"), []).append(name)
        return parts, {}
    by_stem = {stem(name): name for name in pictures}
    by_path = {same(name).casefold(): name for name in pictures}
    by_split, missing = dict[str, list[str]](), dict[str, list[str]]()
    for split, files in found.items():
        by_split[split], missing[split] = [], []
        inventory.use(files)
        texts = [text_of(inventory.root / file) for file in files]
        for line in filter(None, (line.strip() for text in texts for line in text.splitlines())):
            picture = _named(line, by_stem, by_path)
            if picture is None:
                missing[split].append(line.split()[0])
            else:
                by_split[split].append(picture)
    return by_split, missing


def _named(line: str, by_stem: Mapping[str, str], by_path: Mapping[str, str]) -> str | None:
    """The picture that a line of a list names: whole, with its ending or a path, or before a number behind it."""
    words = [line, line.rsplit(maxsplit=1)[0], line.split()[0]]
    for word in words:
        clean = same(word).replace("\\", "/").casefold()
        whole = by_stem.get(clean) or by_path.get(clean) or by_stem.get(clean.rsplit("/", 1)[-1])
        if whole or (whole := by_stem.get(stem(clean))):
            return whole
    return None


class _Doctype(ValueError):
    """The file defines entities of its own."""


_DEEPEST = 100  # elements inside one another: no format has ten


class PlainTree(ElementTree.TreeBuilder):
    """Refuses a document type before its entities are read, which could multiply or name other files.

    Elements that are nested too deep for any format are left out: to build a hundred thousand takes seconds a file.
    """

    def __init__(self) -> None:
        super().__init__()
        self._depth = 0

    def start(self, tag: Any, attrs: Any, /) -> Any:
        self._depth += 1
        return super().start(tag, attrs) if self._depth <= _DEEPEST else None

    def end(self, tag: Any, /) -> Any:
        self._depth -= 1
        return super().end(tag) if self._depth < _DEEPEST else None

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise _Doctype(name)


def _parse(root: Path, path: Path) -> _Annotation | str:
    """What a file says, or what is wrong with it."""
    if leads_out(root, path):
        return LEADS_OUT
    try:
        tree = ElementTree.fromstring(read_bytes(path), ElementTree.XMLParser(target=PlainTree()))
    except _Doctype:
        return "annotation file with a DOCTYPE, which is not read: picture left out"
    except (OSError, ValueError, LookupError, ElementTree.ParseError):  # the second ones: no file, odd encodings
        return "annotation file missing or not XML: picture left out"
    objects, notes = [], []
    for entry in tree.iter("object"):
        try:
            sides = [number_of((entry.findtext(f"bndbox/{s}") or "").strip()) for s in ("xmin", "ymin", "xmax", "ymax")]
            box = [sides[0] - 1, sides[1] - 1, sides[2], sides[3]]
        except ValueError:
            box = None
        try:
            difficult = truth_of(entry.findtext("difficult"))
        except ValueError:
            difficult = False
            notes.append("difficult that is neither yes nor no: taken as no")
        objects.append(((entry.findtext("name") or "").strip(), box, difficult))
    try:
        width, height = (whole_of((tree.findtext(f"size/{side}") or "").strip()) for side in ("width", "height"))
        size = (width, height) if width > 0 and height > 0 else None  # some tools write zeros
    except ValueError:
        size = None
        if tree.find("size") is not None:
            notes.append("claimed size that is no number: not compared")
    return _Annotation(objects, size, notes)
