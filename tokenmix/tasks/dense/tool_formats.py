"""What annotation tools write into their own files: labelme, VGG Image Annotator, Supervisely, Label Studio and CVAT.

Each reader yields what a file says of its pictures; of a value that is of another tool it yields nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Annotated, Any
from xml.etree import ElementTree

from pydantic import BeforeValidator, Field

from tokenmix.tasks.dense.values import Entry, Many, Number, Side, entry_of

_READ = ("polygon", "rectangle")  # kinds of shapes
_CLASS_WORDS = ("label", "class", "name", "type", "category", "object", "kind")


@dataclass(frozen=True)
class Shape:
    """An outline of a named object: the two corners of a box, or the points of a polygon, in pixels."""

    name: str
    points: Sequence[tuple[float, float]]
    is_box: bool


@dataclass(frozen=True)
class AnnotatedPicture:
    """A picture's name as its tool has it, its claimed (width, height), and what is on it.

    ``others`` are the kinds of shapes that are neither boxes nor polygons, and so not read; ``notes`` what else is not
    taken as the file has it; ``problem`` is why the picture cannot be used.
    """

    picture: str
    shapes: Sequence[Shape]
    size: tuple[int, int] | None
    others: Sequence[str] = ()
    problem: str = ""
    notes: Sequence[str] = ()


class _Sides(Entry):
    width: Side = None
    height: Side = None

    @property
    def size(self) -> tuple[int, int] | None:
        return _pair(self.width, self.height)


def _pair(width: int | None, height: int | None) -> tuple[int, int] | None:
    """(width, height), or None where a file does not say both."""
    return None if width is None or height is None else (width, height)


def _sorted_out(name: str, shapes: Sequence[Shape | str], size: tuple[int, int] | None) -> AnnotatedPicture:
    """What is on a picture, of shapes and of the kinds of those that are not read."""
    others = [shape for shape in shapes if isinstance(shape, str)]
    return AnnotatedPicture(name, [shape for shape in shapes if isinstance(shape, Shape)], size, others)


# ------------------------------------------------------------------------------------------------------------- labelme

_Points = Many[tuple[Number, Number]]


class _LabelmeShape(Entry):
    label: str
    points: _Points
    shape_type: str | None = None


class _LabelmeFile(Entry):
    shapes: Many[_LabelmeShape]
    imagePath: str | None = None
    imageWidth: Side = None
    imageHeight: Side = None


def _labelme(content: Any, file: str) -> Iterator[AnnotatedPicture]:
    """``x.json`` beside ``x.jpg``: ``shapes`` with ``label``, ``points`` and ``shape_type``."""
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        return
    read = entry_of(_LabelmeFile, content)
    kinds = [shape.shape_type or "polygon" for shape in read.shapes]
    shapes = [
        Shape(shape.label, shape.points, kind == "rectangle")
        for shape, kind in zip(read.shapes, kinds, strict=True)
        if kind in _READ
    ]
    picture = PurePosixPath((read.imagePath or "").replace("\\", "/")).name or PurePosixPath(file).stem
    others = [kind for kind in kinds if kind not in _READ]
    yield AnnotatedPicture(picture, shapes, _pair(read.imageWidth, read.imageHeight), others)


# ----------------------------------------------------------------------------------------------- VGG Image Annotator


class _Named(Entry):
    name: str


class _Rectangle(Entry):
    x: Number
    y: Number
    width: Number
    height: Number


class _ViaOutline(Entry):
    all_points_x: Many[Number]
    all_points_y: Many[Number]


class _ViaRegion(Entry):
    shape_attributes: dict[str, Any]
    region_attributes: dict[str, Any] = Field(default_factory=dict)


def _values(value: Any) -> Any:
    return list(value.values()) if isinstance(value, dict) else value


class _ViaPicture(Entry):
    filename: str
    regions: Annotated[Many[_ViaRegion], BeforeValidator(_values)]


def _via(content: Any, file: str) -> Iterator[AnnotatedPicture]:
    """A project or an export in JSON: per picture ``filename`` and ``regions`` with ``shape_attributes``."""
    if not isinstance(content, dict):
        return
    entries = content.get("_via_img_metadata", content)
    entries = entries if isinstance(entries, dict) else {}
    if not all(isinstance(entry, dict) and "filename" in entry and "regions" in entry for entry in entries.values()):
        return
    pictures = [entry_of(_ViaPicture, entry, name) for name, entry in entries.items()]
    attribute = _class_attribute([region for picture in pictures for region in picture.regions])
    for picture in pictures:
        place = f"{picture.filename} regions"
        shapes = [_via_shape(region, attribute, f"{place}[{at}]") for at, region in enumerate(picture.regions)]
        yield _sorted_out(picture.filename, shapes, None)


def _class_attribute(regions: Sequence[_ViaRegion]) -> str:
    """Which of the regions' attributes is their class: the only one, or the one with the name of such.

    Raises:
        ValueError: There are several.
    """
    names = list(dict.fromkeys(name for region in regions for name in region.region_attributes))
    called = [name for name in names if name.strip().casefold() in _CLASS_WORDS]
    if len(names) <= 1 or len(called) == 1:
        return (called or names or [""])[0]
    raise ValueError(f"regions have the attributes {', '.join(names[:5])}: call the one that is the class 'class'")


def _via_shape(region: _ViaRegion, attribute: str, place: str) -> Shape | str:
    """The shape of a region, or its kind if it is neither box nor polygon."""
    value = region.region_attributes.get(attribute, "object" if not attribute else "")
    if isinstance(value, dict):  # of checkboxes: those that are ticked
        value = ", ".join(key for key, ticked in value.items() if ticked)
    kind = entry_of(_Named, region.shape_attributes, place).name
    if kind == "rect":
        box = entry_of(_Rectangle, region.shape_attributes, place)
        return Shape(str(value), _corners(box), True)
    if kind in ("polygon", "polyline"):
        outline = entry_of(_ViaOutline, region.shape_attributes, place)
        if len(outline.all_points_x) != len(outline.all_points_y):
            raise ValueError(f"{place}: all_points_x and all_points_y are of different lengths")
        return Shape(str(value), list(zip(outline.all_points_x, outline.all_points_y, strict=True)), False)
    return kind


def _corners(box: _Rectangle, width: float = 1, height: float = 1) -> list[tuple[float, float]]:
    """Two corners of a box in units of ``width`` and ``height``."""
    return [(box.x * width, box.y * height), ((box.x + box.width) * width, (box.y + box.height) * height)]


# --------------------------------------------------------------------------------------------------------- Supervisely


class _Geometry(Entry):
    geometryType: str | None = None


class _Outlines(Entry):
    exterior: _Points
    interior: Any = None


class _SuperviselyObject(Entry):
    classTitle: str
    points: _Outlines


def _supervisely(content: Any, file: str) -> Iterator[AnnotatedPicture]:
    """``ann/x.jpg.json`` for ``img/x.jpg``: ``objects`` with ``classTitle``, ``geometryType`` and ``points``."""
    if not isinstance(content, dict) or not isinstance(content.get("objects"), list) or "size" not in content:
        return
    objects = enumerate(content["objects"])
    kinds = [str(entry_of(_Geometry, entry, f"objects[{number}]").geometryType) for number, entry in objects]
    found = [
        (entry_of(_SuperviselyObject, entry, f"objects[{number}]"), kind)
        for number, (entry, kind) in enumerate(zip(content["objects"], kinds, strict=True))
        if kind in _READ
    ]
    shapes = [Shape(entry.classTitle, entry.points.exterior, kind == "rectangle") for entry, kind in found]
    size, others = entry_of(_Sides, content["size"], "size"), [kind for kind in kinds if kind not in _READ]
    notes = [f"polygon with holes ({entry.classTitle}): filled" for entry, _ in found if entry.points.interior]
    yield AnnotatedPicture(PurePosixPath(file).name.removesuffix(".json"), shapes, size.size, others, notes=notes)


# -------------------------------------------------------------------------------------------------------- Label Studio


class _Result(Entry):
    type: str = ""
    value: dict[str, Any] | None = None
    original_width: Side = None
    original_height: Side = None


class _Made(Entry):
    result: Many[_Result]
    was_cancelled: bool = False


class _Task(Entry):
    data: dict[str, Any]
    annotations: Many[_Made]


class _LabelStudioRectangle(_Rectangle):
    rotation: Number = 0
    rectanglelabels: Many[str] = Field(min_length=1)


class _LabelStudioPolygon(Entry):
    points: _Points
    polygonlabels: Many[str] = Field(min_length=1)


def _label_studio(content: Any, file: str) -> Iterator[AnnotatedPicture]:
    """Its JSON: a list of tasks with ``annotations``, whose results have values in percent of the picture's sides."""
    if not isinstance(content, list) or not all(isinstance(e, dict) and "annotations" in e for e in content):
        return
    for number, entry in enumerate(content):
        task = entry_of(_Task, entry, f"[{number}]")
        made = next(((at, one) for at, one in enumerate(task.annotations) if not one.was_cancelled), None)
        results = [one for one in made[1].result if one.value is not None] if made else []
        place = f"[{number}].annotations[{made[0] if made else 0}].result"
        shapes = [_label_studio_shape(one, f"{place}[{at}].value") for at, one in enumerate(results)]
        size = _pair(results[0].original_width, results[0].original_height) if results else None
        picture = next((value for value in task.data.values() if isinstance(value, str)), "")
        name = picture.split("?d=")[-1].split("?")[0].replace("\\", "/")
        problem = "" if made else "picture that nobody has annotated: left out"
        yield replace(_sorted_out(name, shapes, size), problem=problem)


def _label_studio_shape(result: _Result, place: str) -> Shape | str:
    """The shape of a result, or its kind if it is neither box nor polygon."""
    if result.type not in ("rectanglelabels", "polygonlabels"):
        return result.type
    if result.original_width is None or result.original_height is None:
        raise ValueError(f"{place}: 'original_width' or 'original_height' beside it lacks, or is no number")
    width, height = result.original_width / 100, result.original_height / 100
    if result.type == "polygonlabels":
        outline = entry_of(_LabelStudioPolygon, result.value, place)
        return Shape(outline.polygonlabels[0], [(x * width, y * height) for x, y in outline.points], False)
    box = entry_of(_LabelStudioRectangle, result.value, place)
    return result.type if box.rotation else Shape(box.rectanglelabels[0], _corners(box, width, height), True)


# ---------------------------------------------------------------------------------------------------------------- CVAT


class _CvatBox(Entry):
    label: str = ""
    xtl: Number
    ytl: Number
    xbr: Number
    ybr: Number
    rotation: Number = 0


class _CvatPolygon(Entry):
    label: str = ""
    points: Annotated[_Points, BeforeValidator(lambda text: [pair.split(",") for pair in text.split(";") if pair])]


def read_cvat(tree: ElementTree.Element) -> Iterator[AnnotatedPicture]:
    """``annotations.xml``, "CVAT for images": ``image`` elements with ``box`` and ``polygon``."""
    for image in tree.iter("image"):
        name, shapes, others = image.get("name", ""), [], []
        for number, entry in enumerate(image):
            place = f"{name} {entry.tag}[{number}]"
            if entry.tag == "box":
                box = entry_of(_CvatBox, entry.attrib, place)
                sides = (box.xtl, box.ytl, box.xbr, box.ybr)
                points = _turned(*sides, box.rotation) if box.rotation else [sides[:2], sides[2:]]
                shapes.append(Shape(box.label, points, not box.rotation))
            elif entry.tag == "polygon":
                outline = entry_of(_CvatPolygon, entry.attrib, place)
                shapes.append(Shape(outline.label, outline.points, False))
            elif entry.tag != "tag":
                others.append(entry.tag)
        yield AnnotatedPicture(name, shapes, entry_of(_Sides, image.attrib).size, others)


def _turned(left: float, top: float, right: float, bottom: float, degrees: float) -> list[tuple[float, float]]:
    """The corners of a box that is turned clockwise around its centre."""
    x, y, turn = (left + right) / 2, (top + bottom) / 2, math.radians(degrees)
    corners = [(left - x, top - y), (right - x, top - y), (right - x, bottom - y), (left - x, bottom - y)]
    return [
        (x + a * math.cos(turn) - b * math.sin(turn), y + a * math.sin(turn) + b * math.cos(turn)) for a, b in corners
    ]


READERS: dict[str, Callable[[Any, str], Iterator[AnnotatedPicture]]] = {
    "labelme": _labelme,
    "Supervisely": _supervisely,
    "Label Studio": _label_studio,
    "VGG Image Annotator": _via,
}
