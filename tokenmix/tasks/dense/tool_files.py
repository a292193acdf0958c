"""The own files of tools for annotation, see `tokenmix.tasks.dense.tool_formats`, as a data set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

from tokenmix.data.inventory import Inventory
from tokenmix.data.natural import same
from tokenmix.data.split_words import split_of
from tokenmix.data.text_files import read_bytes, read_json
from tokenmix.tasks.dense.layout import SPLITS, Item, Layout, RawObject
from tokenmix.tasks.dense.pairing import Pairing
from tokenmix.tasks.dense.tool_formats import READERS, AnnotatedPicture, Shape, read_cvat
from tokenmix.tasks.dense.voc import PlainTree

_MOST_LOOKED = 2**26  # bytes of a file that may be a tool's


def _files(inventory: Inventory, ending: str) -> list[str]:
    root = inventory.root
    named = [name for name in inventory.others if name.lower().endswith(ending)]
    return [name for name in named if (root / name).stat().st_size <= _MOST_LOOKED]


def _content(path: Path) -> Any:
    """What is in a file: the root of its XML, or the value of its JSON.

    Raises:
        ValueError: It cannot be read; the message does not repeat its name.
    """
    try:
        if path.name.lower().endswith(".xml"):
            content = read_bytes(path, most=_MOST_LOOKED)
            return ElementTree.fromstring(content, ElementTree.XMLParser(target=PlainTree()))
        return read_json(path)
    except (OSError, ValueError, LookupError, ElementTree.ParseError) as error:  # the third one: odd encodings
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise ValueError(reason.replace(f"{path} ", "").replace(f" {path}", "").strip()) from error


def why_unreadable(path: Path) -> str:
    """Why a file of annotations, JSON or XML, cannot be read; empty if it can."""
    try:
        _content(path)
    except ValueError as error:
        return str(error)
    return ""


def _read(inventory: Inventory, file: str) -> tuple[str, list[AnnotatedPicture], str]:
    """Of a file the tool, what it says, and what is wrong with it; no tool where it is nobody's."""
    try:
        content = _content(inventory.root / file)
    except ValueError as error:
        return "", [], str(error)
    if isinstance(content, ElementTree.Element):
        if content.tag != "annotations":
            return "", [], ""
        try:
            return "CVAT", list(read_cvat(content)), ""
        except ValueError as error:
            return "CVAT", [], str(error)
    for tool, read in READERS.items():
        try:
            if found := list(read(content, file)):
                return tool, found, ""
        except (TypeError, ValueError, AttributeError) as error:
            return tool, [], str(error)
    return "", [], ""


def find_tool(inventory: Inventory) -> str:
    """What speaks for the files of one of these tools; empty if nothing does."""
    for file in [*_files(inventory, ".xml")[:3], *_files(inventory, ".json")[:50]]:
        tool, found, wrong = _read(inventory, file)
        if tool and (found or wrong):
            return f"{tool}'s {file}"
    return ""


def read_tool(inventory: Inventory) -> Layout:
    """The pictures that such files name, with boxes and polygons; the classes are those that occur, by name.

    Raises:
        ValueError: None of them is there.
    """
    annotated: list[AnnotatedPicture] = []
    inventory.use(name for name in inventory.others if name.lower() in ("meta.json", "obj_class_to_machine_color.json"))
    layout = Layout("a tool's own files", [], {split: [] for split in SPLITS})
    for file in [*_files(inventory, ".xml"), *_files(inventory, ".json")]:
        tool, found, wrong = _read(inventory, file)
        if wrong and tool:
            layout.strays.append((f"{tool}'s file that cannot be read ({wrong}): left out", file))
        if tool:
            inventory.use([file])
            annotated += found
    pictures = Pairing(inventory.pictures, lambda name: (_name(name),))
    rows: list[tuple[str, str, AnnotatedPicture]] = []
    for one in annotated:
        if one.problem:
            layout.splits["train"].append(Item(one.picture, problem=one.problem))
            continue
        places = next(filter(None, (pictures.by_stem.get(_name(name), []) for name in _spellings(one.picture))), [])
        exact = [place for place in places if same(place).endswith(same(one.picture))] or places
        if len(exact) != 1:
            what = "picture missing: left out" if not exact else "picture of several folders: left out"
            layout.splits["train"].append(Item(one.picture, problem=what))
            continue
        words = [split_of(part) for part in PurePosixPath(exact[0]).parts[:-1]]
        rows.append((next(filter(None, words), "train"), exact[0], one))
        kinds = [f"shape that is neither box nor polygon ({kind}): left out" for kind in one.others]
        layout.strays += [(kind, exact[0]) for kind in (*kinds, *one.notes)]
    if not rows:
        first = "".join(f"; {name}: {kind}" for kind, name in layout.strays[:1])
        names = f"none of the {len(annotated):,} pictures that its annotations name is there"
        raise ValueError(f"{inventory.root}: {names if annotated else 'no annotation can be read'}{first}")
    layout.classes = sorted({shape.name for _, _, one in rows for shape in one.shapes})
    labels = {name: number for number, name in enumerate(layout.classes, 1)}
    for split, file, one in rows:
        objects = [_object(shape, labels, number) for number, shape in enumerate(one.shapes, 1)]
        layout.splits[split].append(Item(file, objects, size=one.size))
    return layout


def _spellings(path: str) -> list[str]:
    """A picture's path, without the codes of addresses, and without what Label Studio puts before an uploaded name."""
    plain = unquote(path)
    return [path, plain, re.sub(r"^[0-9a-f]{8}-", "", PurePosixPath(plain).name)]


def _name(path: str) -> str:
    """A file's name in one form of Unicode and small letters."""
    return same(PurePosixPath(path).name).casefold()


def _object(shape: Shape, labels: Mapping[str, int], number: int) -> RawObject:
    xs, ys = [x for x, _ in shape.points], [y for _, y in shape.points]
    box: Any = (min(xs), min(ys), max(xs), max(ys)) if shape.points else ()
    outline = [value for point in shape.points for value in point]
    if shape.is_box and shape.points:
        left, top, right, bottom = box
        outline = [left, top, right, top, right, bottom, left, bottom]
    return RawObject(labels[shape.name], box, shape=[outline], name=f"object {number} ({shape.name})")
