"""The own files of tools for annotation: labelme, VGG Image Annotator, Supervisely, Label Studio and CVAT."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
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
_READ = ("polygon", "rectangle")  # kinds of shapes
_CLASS_WORDS = ("label", "class", "name", "type", "category", "object", "kind")


@dataclass(frozen=True)
class Shape:
    """An outline of a named object: the two corners of a box, or the points of a polygon, in pixels."""

    name: str
    points: Sequence[tuple[float, float]]
    is_box: bool


@dataclass(frozen=True)
class Annotated:
    """A picture's name as its tool has it, its claimed (width, height), and what is on it.

    ``others`` are the kinds of shapes that are neither boxes nor polygons, and so not read.
    """

    picture: str
    shapes: Sequence[Shape]
    size: tuple[int, int] | None
    others: Sequence[str] = ()


# ------------------------------------------------------------------------------------------------------------- labelme


def _labelme(content: Any, file: str) -> Iterator[Annotated]:
    """``x.json`` beside ``x.jpg``: ``shapes`` with ``label``, ``points`` and ``shape_type``."""
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        return
    kinds = [str(entry.get("shape_type") or "polygon") for entry in content["shapes"]]
    shapes = [
        Shape(str(entry["label"]), _points(entry["points"]), kind == "rectangle")
        for entry, kind in zip(content["shapes"], kinds, strict=True)
        if kind in _READ
    ]
    name = str(content.get("imagePath") or "").replace("\\", "/")
    picture = PurePosixPath(name).name or PurePosixPath(file).stem
    others = [kind for kind in kinds if kind not in _READ]
    yield Annotated(picture, shapes, _size(content.get("imageWidth"), content.get("imageHeight")), others)


# ----------------------------------------------------------------------------------------------- VGG Image Annotator


def _via(content: Any, file: str) -> Iterator[Annotated]:
    """A project or an export in JSON: per picture ``filename`` and ``regions`` with ``shape_attributes``."""
    if not isinstance(content, dict):
        return
    entries = content.get("_via_img_metadata", content)
    entries = list(entries.values()) if isinstance(entries, dict) else []
    if not all(isinstance(entry, dict) and "filename" in entry and "regions" in entry for entry in entries):
        return
    listed = [list(e["regions"].values()) if isinstance(e["regions"], dict) else e["regions"] for e in entries]
    attribute = _class_attribute([region for regions in listed for region in regions])
    for entry, regions in zip(entries, listed, strict=True):
        shapes = [(region["shape_attributes"]["name"], _via_shape(region, attribute)) for region in regions]
        others = [kind for kind, shape in shapes if shape is None]
        yield Annotated(str(entry["filename"]), [shape for _, shape in shapes if shape], None, others)


def _class_attribute(regions: Sequence[Mapping[str, Any]]) -> str:
    """Which of the regions' attributes is their class: the only one, or the one with the name of such.

    Raises:
        ValueError: There are several.
    """
    names = list(dict.fromkeys(name for region in regions for name in region.get("region_attributes", {})))
    called = [name for name in names if name.strip().casefold() in _CLASS_WORDS]
    if len(names) <= 1 or len(called) == 1:
        return (called or names or [""])[0]
    raise ValueError(f"regions have the attributes {', '.join(names[:5])}: call the one that is the class 'class'")


def _via_shape(region: Mapping[str, Any], attribute: str) -> Shape | None:
    kind = region["shape_attributes"]
    value = region.get("region_attributes", {}).get(attribute, "object" if not attribute else "")
    if isinstance(value, dict):  # of checkboxes: those that are ticked
        value = ", ".join(key for key, ticked in value.items() if ticked)
    name = str(value)
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
    kinds = [str(entry.get("geometryType")) for entry in content["objects"]]
    shapes = [
        Shape(str(entry["classTitle"]), _points(entry["points"]["exterior"]), kind == "rectangle")
        for entry, kind in zip(content["objects"], kinds, strict=True)
        if kind in _READ
    ]
    size, others = content["size"], [kind for kind in kinds if kind not in _READ]
    name = PurePosixPath(file).name.removesuffix(".json")
    yield Annotated(name, shapes, _size(size.get("width"), size.get("height")), others)


# -------------------------------------------------------------------------------------------------------- Label Studio


def _label_studio(content: Any, file: str) -> Iterator[Annotated]:
    """Its JSON: a list of tasks with ``annotations``, whose results have values in percent of the picture's sides."""
    if not isinstance(content, list) or not all(isinstance(e, dict) and "annotations" in e for e in content):
        return
    for task in content:
        results = [one for made in task["annotations"][:1] for one in made["result"] if "value" in one]
        shapes = [(str(one.get("type")), _label_studio_shape(one)) for one in results]
        size = _size(results[0].get("original_width"), results[0].get("original_height")) if results else None
        picture = next((value for value in task["data"].values() if isinstance(value, str)), "")
        name = picture.split("?d=")[-1].split("?")[0].replace("\\", "/")
        others = [kind for kind, shape in shapes if shape is None]
        yield Annotated(name, [shape for _, shape in shapes if shape], size, others)


def _label_studio_shape(result: Mapping[str, Any]) -> Shape | None:
    value, kind = result["value"], str(result.get("type"))
    width, height = (number_of(result[side]) / 100 for side in ("original_width", "original_height"))
    if kind == "rectanglelabels" and not number_of(value.get("rotation", 0)):
        left, top, wide, high = (number_of(value[key]) for key in ("x", "y", "width", "height"))
        points = [(left * width, top * height), ((left + wide) * width, (top + high) * height)]
        return Shape(str(value[kind][0]), points, True)
    if kind == "polygonlabels":
        return Shape(str(value[kind][0]), [(x * width, y * height) for x, y in _points(value["points"])], False)
    return None


# ---------------------------------------------------------------------------------------------------------------- CVAT


def _cvat(tree: ElementTree.Element) -> Iterator[Annotated]:
    """``annotations.xml``, "CVAT for images": ``image`` elements with ``box`` and ``polygon``."""
    for image in tree.iter("image"):
        shapes, others = [], []
        for entry in image:
            if entry.tag == "box":
                left, top, right, bottom = (number_of(entry.get(key, "")) for key in ("xtl", "ytl", "xbr", "ybr"))
                if turn := number_of(entry.get("rotation", 0)):
                    shapes.append(Shape(entry.get("label", ""), _turned(left, top, right, bottom, turn), False))
                    continue
                shapes.append(Shape(entry.get("label", ""), [(left, top), (right, bottom)], True))
            elif entry.tag == "polygon":
                pairs = [pair.split(",") for pair in entry.get("points", "").split(";") if pair]
                points = [(number_of(x), number_of(y)) for x, y in pairs]
                shapes.append(Shape(entry.get("label", ""), points, False))
            elif entry.tag != "tag":
                others.append(entry.tag)
        yield Annotated(image.get("name", ""), shapes, _size(image.get("width"), image.get("height")), others)


def _turned(left: float, top: float, right: float, bottom: float, degrees: float) -> list[tuple[float, float]]:
    """The corners of a box that is turned clockwise around its centre."""
    x, y, turn = (left + right) / 2, (top + bottom) / 2, math.radians(degrees)
    corners = [(left - x, top - y), (right - x, top - y), (right - x, bottom - y), (left - x, bottom - y)]
    return [
        (x + a * math.cos(turn) - b * math.sin(turn), y + a * math.sin(turn) + b * math.cos(turn)) for a, b in corners
    ]


# ------------------------------------------------------------------------------------------------------------- reading

_JSON: dict[str, Callable[[Any, str], Iterator[Annotated]]] = {
    "labelme": _labelme,
    "Supervisely": _supervisely,
    "Label Studio": _label_studio,
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


def _read(inventory: Inventory, file: str) -> tuple[str, list[Annotated], str]:
    """Of a file the tool, what it says, and what is wrong with it; no tool where it is nobody's."""
    try:
        content = _content(inventory.root / file)
    except ValueError as error:
        return "", [], str(error)
    if isinstance(content, ElementTree.Element):
        if content.tag != "annotations":
            return "", [], ""
        try:
            return "CVAT", list(_cvat(content)), ""
        except ValueError as error:
            return "CVAT", [], str(error)
    for tool, read in _JSON.items():
        try:
            if found := list(read(content, file)):
                return tool, found, ""
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            lacks = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            return tool, [], lacks
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
    annotated: list[Annotated] = []
    inventory.use(name for name in inventory.others if name.lower() in ("meta.json", "obj_class_to_machine_color.json"))
    layout = Layout("a tool's own files", [], {split: [] for split in SPLITS})
    for file in [*_files(inventory, ".xml"), *_files(inventory, ".json")]:
        tool, found, wrong = _read(inventory, file)
        if wrong and tool:
            layout.strays.append((f"{tool}'s file that cannot be read ({wrong}): left out", file))
        if tool:
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
        kinds = [f"shape that is neither box nor polygon ({kind}): left out" for kind in one.others]
        layout.strays += [(kind, exact[0]) for kind in kinds]
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


def _object(shape: Shape, labels: Mapping[str, int], number: int) -> RawObject:
    xs, ys = [x for x, _ in shape.points], [y for _, y in shape.points]
    box: Any = (min(xs), min(ys), max(xs), max(ys)) if shape.points else ()
    outline = [value for point in shape.points for value in point]
    if shape.is_box and shape.points:
        left, top, right, bottom = box
        outline = [left, top, right, top, right, bottom, left, bottom]
    return RawObject(labels[shape.name], box, shape=[outline], name=f"object {number} ({shape.name})")
