"""From what the files say to what can be trained on: everything that would fail later is found, named and left out."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags

from tokenmix.data.dataset import Skipped, printable
from tokenmix.data.depth import Depth, depth_of
from tokenmix.data.likeness import Look, look_of
from tokenmix.data.text_files import is_file
from tokenmix.tasks.dense.layout import LEADS_OUT, Item, Layout, RawObject, leads_out
from tokenmix.tasks.dense.problems import Problems
from tokenmix.tasks.dense.sets import (
    LabelSet,
    Log,
    Objects,
    ObjectSet,
    coco_tools,
    compressed,
    draw,
    labels_of,
    mask_problem,
)
from tokenmix_runtime.cores import usable_cores
from tokenmix_runtime.images import open_image, open_known

TURNED = "picture that its file turns or mirrors: its answer is taken as it is shown"
_EDGE_PX = 0.5  # how far a box may reach over the edge before that counts as a mistake and not as rounding


@dataclass
class Impressions:
    """What was seen of decoded pictures: look and depth of each, by its name, and the classes that masks show."""

    looks: dict[str, Look] = field(default_factory=dict)
    depths: dict[str, Depth] = field(default_factory=dict)
    classes: set[int] = field(default_factory=set)


def usable(
    root: Path,
    layout: Layout,
    items: Sequence[Item],
    task: str,
    check: bool,
    problems: Problems,
    log: Log,
    seen: Impressions | None = None,
) -> tuple[ObjectSet | LabelSet, list[Skipped]]:
    """The set of a split's pictures that can be used, their objects checked and clipped; and the other pictures.

    Args:
        root: The data set's folder.
        layout: For its classes and table.
        items: The pictures.
        task: One of `DENSE_TASKS`.
        check: Decode every picture and label file too, not only their headers.
        problems: What was found is added.
        log: Hears how far it is.
        seen: What is seen of the pictures that can be used is added, if they are decoded.
    """
    look = _look_at_labels if task == "segmentation" else _look_at_picture
    kept: list[Item] = []
    skipped: list[Skipped] = []
    sizes: list[tuple[int, int]] = []
    objects: list[Objects] = []

    def inspect(item: Item) -> Inspected | str:
        if item.problem:
            return item.problem
        if leads_out(root, root / item.file) or (item.label_file and leads_out(root, root / item.label_file)):
            return LEADS_OUT
        return look(root, item, layout, check)

    inspected = _in_threads(inspect, items, log)
    for item, found in zip(items, inspected, strict=True):
        if isinstance(found, str):
            problems.add(found, item.label_file if found.startswith("mask") and item.label_file else item.file)
            skipped.append(Skipped(printable(item.file), found))
            continue
        for note in found.notes:
            problems.add(note, item.file)
        kept.append(item)
        sizes.append(found.size)
        if found.look is not None and seen is not None:
            seen.looks[printable(item.file)] = found.look
            seen.classes |= found.classes
            if found.depth:
                seen.depths[printable(item.file)] = found.depth
        if task != "segmentation":
            objects.append(checked(item.objects, found.size, item.file, task == "instances", check, problems))
    files = [item.file for item in kept]
    if task == "segmentation":
        return LabelSet(root, files, [item.label_file for item in kept], layout.table, layout.colours), skipped
    ids = [number if item.id is None else item.id for number, item in enumerate(kept)]
    masks = task == "instances"
    return ObjectSet(root, files, objects, sizes, masks=masks, ids=ids, class_ids=layout.class_ids), skipped


class Measured(NamedTuple):
    """A picture as it is shown.

    Attributes:
        size: (height, width) in pixels.
        turned: Whether its file says that it is to be turned or mirrored before it is shown.
        sideways: Whether that is so, and changes its size: then a size tells which of the two is meant.
        look: See `tokenmix.data.likeness`; None of a picture that was not decoded.
        depth: See `tokenmix.data.depth`; None of 8 bits, or if it was not decoded.
    """

    size: tuple[int, int]
    turned: bool
    sideways: bool
    look: Look | None
    depth: Depth | None


def measure(path: Path, check: bool) -> Measured | str:
    """What a picture's file says of it, with its look where it is decoded to be checked; or what is wrong with it."""
    if not _exists(path):
        return "picture missing: left out"
    try:
        picture = open_image(path, at_least=1) if check else None
        look, depth = (look_of(picture), depth_of(picture)) if picture else (None, None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_known(path) as image:
                # A PNG without such notes would be decoded as a whole to find out; XMP is where some programs write it.
                asked = image.format != "PNG" or any("exif" in key or "xmp" in key for key in image.info)
                turn = image.getexif().get(ExifTags.Base.Orientation, 1) if asked else 1
                on_its_side = turn in (5, 6, 7, 8)
                size = (image.width, image.height) if on_its_side else (image.height, image.width)
                return Measured(size, turn in range(2, 9), on_its_side and image.width != image.height, look, depth)
    except Exception:  # Pillow's format plugins raise nearly every type on broken files
        return "picture that cannot be read: left out"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no file can have
        return False


class Inspected(NamedTuple):
    """What was seen of a picture that can be used.

    Attributes:
        size: (height, width) in pixels.
        notes: What is noteworthy.
        look: See `tokenmix.data.likeness`.
        depth: See `tokenmix.data.depth`.
        classes: Those that its mask shows.
    """

    size: tuple[int, int]
    notes: list[str]
    look: Look | None = None
    depth: Depth | None = None
    classes: frozenset[int] = frozenset()


def _look_at_picture(root: Path, item: Item, layout: Layout, check: bool) -> Inspected | str:
    picture = measure(root / item.file, check)
    if isinstance(picture, str):
        return picture
    if item.size not in (None, picture.size[::-1]):
        return "picture of another size than its annotation says: left out"
    unclear = picture.turned and bool(item.objects) and not (picture.sideways and item.size)
    return Inspected(picture.size, [TURNED] if unclear else [], picture.look, picture.depth)


def _look_at_labels(root: Path, item: Item, layout: Layout, check: bool) -> Inspected | str:
    picture = measure(root / item.file, check)
    if isinstance(picture, str):
        return picture
    size = picture.size
    path = root / item.label_file
    if not is_file(path):
        return "picture without a mask: left out"
    try:
        if not check:
            with open_known(path) as image:
                whole = (image.height, image.width) == size
                return Inspected(size, []) if whole else "mask of another size: left out"
        label, present = labels_of(path, layout.table, layout.colours)
    except Exception as error:  # see above
        colour = "colour" in str(error)
        return f"mask that {'is a colour picture, not one number per pixel' if colour else 'cannot be read'}: left out"
    if label.shape != size:
        return "mask of another size: left out"
    notes = [TURNED] if picture.turned and not picture.sideways else []
    if layout.colours is not None and present.max(initial=0) > 255:
        known = {red * 65536 + green * 256 + blue for red, green, blue in layout.colours}
        if set(present.tolist()) - known:
            notes.append("pixels of a colour that no class has: ignored")
        return Inspected(size, notes, picture.look, picture.depth, frozenset(np.unique(label).tolist()))
    strange = set(present[layout.table[present] == 255].tolist())
    if strange - layout.void:
        notes.append("pixels of an unknown class: ignored")
    return Inspected(size, notes, picture.look, picture.depth, frozenset(layout.table[present].tolist()))


def _in_threads(look: Callable[[Item], Inspected | str], items: Sequence[Item], log: Log) -> list[Inspected | str]:
    said = time.monotonic()
    found: list[Inspected | str] = []
    # Decoding switches warnings off, which is not safe in threads: the outer block puts the filters back as they were.
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, usable_cores())) as pool:
        for begin in range(0, len(items), 256):
            found += pool.map(look, items[begin : begin + 256])
            if time.monotonic() - said >= 5:
                said = time.monotonic()
                log(f"checking images: {len(found):,} of {len(items):,}")
    return found


def checked(
    raw: Sequence[RawObject], size: tuple[int, int], file: str, masks: bool, check: bool, problems: Problems
) -> Objects:
    """The objects that can be used, in pixels, clipped to the picture; the others are noted in ``problems``."""
    height, width = size
    boxes: list[list[float]] = []
    kept: list[tuple[RawObject, Any, float]] = []
    for entry in raw:
        whole = [line for line in entry.shape if _is_polygon(line)] if isinstance(entry.shape, list) else []
        if whole and len(whole) < len(entry.shape):  # label tools leave parts of one or two points behind
            problems.add("part of a polygon with fewer than 3 points: part left out", f"{file} {entry.name}")
            entry = replace(entry, shape=whole)
        shape, box = _in_pixels(entry, width, height)
        area = entry.area
        if isinstance(shape, dict) and (box is None or area is None) and not _wrong_mask(shape, size, check=False):
            around, covered = _measured(shape)
            box, area = around if box is None else box, covered if area is None else area
        wrong = _wrong(entry, box, size) or (_wrong_mask(shape, size, check) if masks else "")
        if wrong:
            problems.add(wrong, f"{file} {entry.name}")
            continue
        sides = (width, height, width, height)
        clipped = [min(max(value, 0.0), float(side)) for value, side in zip(box, sides, strict=True)]
        if max(abs(a - b) for a, b in zip(box, clipped, strict=True)) > _EDGE_PX:
            problems.add("box over the picture's edge: clipped", f"{file} {entry.name}")
        if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
            problems.add("box outside the picture: left out", f"{file} {entry.name}")
            continue
        if not area:
            area = sum(map(_shoelace, shape)) if _are_polygons(shape) else 0.0
            area = area or (clipped[2] - clipped[0]) * (clipped[3] - clipped[1])
        boxes.append(clipped)
        kept.append((entry, shape, area))
    return Objects(
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array([entry.label for entry, *_ in kept], np.int64),
        np.array([entry.crowd for entry, *_ in kept], np.bool_),
        np.array([area for *_, area in kept], np.float64),
        tuple(_compact(shape) for _, shape, _ in kept) if masks else (),
    )


def _in_pixels(entry: RawObject, width: int, height: int) -> tuple[Any, Any]:
    """The shape and the box in pixels; the box of polygons that come without one."""
    shape, box = entry.shape, entry.box
    if entry.relative:
        if shape is not None:
            shape = [[value * (height if at % 2 else width) for at, value in enumerate(line)] for line in shape]
        if box is not None:
            box = [value * (height if at % 2 else width) for at, value in enumerate(box)]
    if box is None and _are_polygons(shape):
        xs = [x for line in shape for x in line[::2]]
        ys = [y for line in shape for y in line[1::2]]
        box = (min(xs), min(ys), max(xs), max(ys))
    return shape, box


def _measured(code: dict[str, Any]) -> tuple[tuple[float, ...], float]:
    """The box of a run-length code's mask, and its area."""
    tools, code = coco_tools(), compressed(code)
    left, top, width, height = tools.toBbox(code).tolist()
    return (left, top, left + width, top + height), float(tools.area(code))


def _wrong(entry: RawObject, box: Any, size: tuple[int, int]) -> str:
    """What is wrong with a box, or nothing."""
    if entry.label is None:
        return "object of an unknown class: left out"
    try:
        left, top, right, bottom = (float(value) for value in box)
    except (TypeError, ValueError, OverflowError):
        return "object without a box: left out"
    if not all(math.isfinite(value) for value in (left, top, right, bottom)):
        return "box that is not finite: left out"
    if right <= left or bottom <= top:
        return "box of zero area: left out"
    if right <= 0 or bottom <= 0 or left >= size[1] or top >= size[0]:
        return "box outside the picture: left out"
    return ""


def _wrong_mask(shape: Any, size: tuple[int, int], check: bool) -> str:
    """What is wrong with an object's mask, or nothing."""
    if not shape:
        return "object without a mask: left out"
    if isinstance(shape, dict):
        if shape.get("size") != list(size):
            return "mask of another size: left out"
        if not isinstance(shape.get("counts"), str | list):
            return "mask that cannot be read: left out"
    elif not _are_polygons(shape):
        return "polygon of fewer than 3 points: left out"
    if problem := mask_problem(shape, *size):
        return problem
    try:  # a polygon needs no drawing to be known as good
        there = sum(map(_shoelace, shape)) if isinstance(shape, list) else not check or draw(shape, *size).any()
    except (ValueError, TypeError, OverflowError):
        return "mask that cannot be read: left out"
    return "" if there else "mask of zero area: left out"


def _are_polygons(shape: Any) -> bool:
    return isinstance(shape, list) and bool(shape) and all(_is_polygon(line) for line in shape)


def _is_polygon(line: Any) -> bool:
    if not isinstance(line, list) or len(line) < 6 or len(line) % 2:
        return False
    return all(isinstance(value, int | float) and -1e150 < value < 1e150 for value in line)  # so that areas are finite


def _shoelace(line: Sequence[float]) -> float:
    """The area of a polygon ``[x, y, x, y, ...]``."""
    x, y = np.array(line[::2]), np.array(line[1::2])
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def _compact(shape: Any) -> Any:
    """The same with arrays instead of lists of numbers, which take a fifth of the memory."""
    return [np.array(line, np.float64) for line in shape] if isinstance(shape, list) else shape
