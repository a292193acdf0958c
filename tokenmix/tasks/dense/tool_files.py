"""The own files of tools that people annotate with: labelme, VGG Image Annotator, Supervisely and CVAT."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from xml.etree import ElementTree

from tokenmix.data.inventory import Inventory
from tokenmix.data.split_words import split_of
from tokenmix.data.text_files import read_bytes, read_json
from tokenmix.tasks.dense.layout import SPLITS, Item, Layout, RawObject
from tokenmix.tasks.dense.pairing import Pairing
from tokenmix.tasks.dense.values import number_of, whole_of
from tokenmix.tasks.dense.voc import PlainTree

_MOST_LOOKED = 2**26  # bytes of a file that may be a tool's


@dataclass(frozen=True)
class Shape:
    """An outline of a named object: the two corners of a box, or the points of a polygon, in pixels."""

    name: str
    points: Sequence[tuple[float, float]]
    is_box: bool


@dataclass(frozen=True)
class Annotated:
    """A picture's name as its tool has it, its claimed (width, height), and what is on it."""

    picture: str
    shapes: Sequence[Shape]
    size: tuple[int, int] | None


# ------------------------------------------------------------------------------------------------------------- labelme


def _labelme(content: Any, file: str) -> Iterator[Annotated]:
    """``x.json`` beside ``x.jpg``: ``shapes`` with ``label``, ``points`` and ``shape_type``."""
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        return
    shapes = [
        Shape(str(entry["label"]), _points(entry["points"]), entry.get("shape_type") == "rectangle")
        for entry in content["shapes"]
        if entry.get("shape_type", "polygon") in ("polygon", "rectangle")
    ]
    name = str(content.get("imagePath") or "").replace("\\", "/")
    picture = PurePosixPath(name).name or PurePosixPath(file).stem
    yield Annotated(picture, shapes, _size(content.get("imageWidth"), content.get("imageHeight")))


# ----------------------------------------------------------------------------------------------- VGG Image Annotator


def _via(content: Any, file: str) -> Iterator[Annotated]:
    """A project or an export in JSON: per picture ``filename`` and ``regions`` with ``shape_attributes``."""
    if not isinstance(content, dict):
        return
    entries = content.get("_via_img_metadata", content)
    for entry in entries.values() if isinstance(entries, dict) else ():
        if not isinstance(entry, dict) or "filename" not in entry or "regions" not in entry:
            return
        regions = entry["regions"]
        regions = list(regions.values()) if isinstance(regions, dict) else regions
        yield Annotated(str(entry["filename"]), [shape for one in regions if (shape := _via_shape(one))], None)


def _via_shape(region: Mapping[str, Any]) -> Shape | None:
    kind = region["shape_attributes"]
    names = [str(value) for value in region.get("region_attributes", {}).values() if isinstance(value, str) and value]
    name = names[0] if names else "object"
    if kind["name"] == "rect":
        left, top, width, height = (number_of(kind[key]) for key in ("x", "y", "width", "height"))
        return Shape(name, [(left, top), (left + width, top + height)], True)
    if kind["name"] in ("polygon", "polyline"):
        pairs = zip(kind["all_points_x"], kind["all_points_y"], strict=True)
        return Shape(name, [(number_of(x), number_of(y)) for x, y in pairs], False)
    return None


# --------------------------------------------------------------------------------------------------------- Supervisely


def _supervisely(content: Any, file: str) -> Iterator[Annotated]:
    """``ann/x.jpg.json`` for ``img/x.jpg``: ``objects`` with ``classTitle``, ``geometryType`` and ``points``."""
    if not isinstance(content, dict) or not isinstance(content.get("objects"), list) or "size" not in content:
        return
    shapes = [
        Shape(str(e["classTitle"]), _points(e["points"]["exterior"]), e["geometryType"] == "rectangle")
        for e in content["objects"]
        if e.get("geometryType") in ("rectangle", "polygon")
    ]
    size = content["size"]
    yield Annotated(
        PurePosixPath(file).name.removesuffix(".json"), shapes, _size(size.get("width"), size.get("height"))
    )


# ---------------------------------------------------------------------------------------------------------------- CVAT


def _cvat(tree: ElementTree.Element) -> Iterator[Annotated]:
    """``annotations.xml``, "CVAT for images": ``image`` elements with ``box`` and ``polygon``."""
    for image in tree.iter("image"):
        shapes = []
        for entry in image:
            if entry.tag == "box":
                left, top, right, bottom = (number_of(entry.get(key, "")) for key in ("xtl", "ytl", "xbr", "ybr"))
                shapes.append(Shape(entry.get("label", ""), [(left, top), (right, bottom)], True))
            elif entry.tag == "polygon":
                pairs = [pair.split(",") for pair in entry.get("points", "").split(";") if pair]
                points = [(number_of(x), number_of(y)) for x, y in pairs]
                shapes.append(Shape(entry.get("label", ""), points, False))
        yield Annotated(image.get("name", ""), shapes, _size(image.get("width"), image.get("height")))


# ------------------------------------------------------------------------------------------------------------- reading

_JSON: dict[str, Callable[[Any, str], Iterator[Annotated]]] = {
    "labelme": _labelme,
    "Supervisely": _supervisely,
    "VGG Image Annotator": _via,
}


def _points(points: Any) -> list[tuple[float, float]]:
    return [(number_of(x), number_of(y)) for x, y in points]


def _size(width: Any, height: Any) -> tuple[int, int] | None:
    try:
        return whole_of(width), whole_of(height)
    except (TypeError, ValueError):
        return None


def _files(inventory: Inventory, ending: str) -> list[str]:
    root = inventory.root
    named = [name for name in inventory.others if name.lower().endswith(ending)]
    return [name for name in named if (root / name).stat().st_size <= _MOST_LOOKED]


def _read(inventory: Inventory, file: str) -> tuple[str, list[Annotated], str]:
    """Of a file the tool, what it says, and what is wrong with it; no tool where it is nobody's."""
    path = inventory.root / file
    try:
        if file.lower().endswith(".xml"):
            tree = ElementTree.fromstring(
                read_bytes(path, most=_MOST_LOOKED), ElementTree.XMLParser(target=PlainTree())
            )
            return ("CVAT", list(_cvat(tree)), "") if tree.tag == "annotations" else ("", [], "")
        content = read_json(path)
    except (OSError, ValueError, LookupError, ElementTree.ParseError) as error:
        return "", [], str(error)
    for tool, read in _JSON.items():
        try:
            if found := list(read(content, file)):
                return tool, found, ""
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            return tool, [], f"{type(error).__name__} {error}"
    return "", [], ""


def find_tool(inventory: Inventory) -> str:
    """What speaks for the files of one of these tools; empty if nothing does."""
    for file in [*_files(inventory, ".xml")[:3], *_files(inventory, ".json")[:50]]:
        tool, found, _ = _read(inventory, file)
        if tool and found:
            return f"{tool}'s {file}"
    return ""


def read_tool(inventory: Inventory) -> Layout:
    """The pictures that such files name, with boxes and polygons; the classes are those that occur, by name.

    Raises:
        ValueError: None of them is there.
    """
    annotated: list[Annotated] = []
    layout = Layout("a tool's own files", [], {split: [] for split in SPLITS})
    for file in [*_files(inventory, ".xml"), *_files(inventory, ".json")]:
        tool, found, wrong = _read(inventory, file)
        if wrong and tool:
            layout.strays.append((f"{tool}'s file that cannot be read ({wrong}): left out", file))
        if found:
            inventory.use([file])
            annotated += found
    pictures = Pairing(inventory.pictures, lambda name: PurePosixPath(name).name.casefold())
    rows: list[tuple[str, str, Annotated]] = []
    for one in annotated:
        places = pictures.by_stem.get(PurePosixPath(one.picture).name.casefold(), [])
        exact = [place for place in places if place.endswith(one.picture)] or places
        if len(exact) != 1:
            what = "picture missing: left out" if not exact else "picture of several folders: left out"
            layout.splits["train"].append(Item(one.picture, problem=what))
            continue
        words = [split_of(part) for part in PurePosixPath(exact[0]).parts[:-1]]
        rows.append((next(filter(None, words), "train"), exact[0], one))
    if not rows:
        raise ValueError(
            f"{inventory.root}: none of the {len(annotated):,} pictures that its annotations name is there"
        )
    layout.classes = sorted({shape.name for _, _, one in rows for shape in one.shapes})
    labels = {name: number for number, name in enumerate(layout.classes, 1)}
    for split, file, one in rows:
        objects = [_object(shape, labels, number) for number, shape in enumerate(one.shapes, 1)]
        layout.splits[split].append(Item(file, objects, size=one.size))
    return layout


def _object(shape: Shape, labels: Mapping[str, int], number: int) -> RawObject:
    xs, ys = [x for x, _ in shape.points], [y for _, y in shape.points]
    box: Any = (min(xs), min(ys), max(xs), max(ys)) if shape.points else ()
    outline = [value for point in shape.points for value in point]
    if shape.is_box and shape.points:
        left, top, right, bottom = box
        outline = [left, top, right, top, right, bottom, left, bottom]
    return RawObject(labels[shape.name], box, shape=[outline], name=f"object {number} ({shape.name})")
