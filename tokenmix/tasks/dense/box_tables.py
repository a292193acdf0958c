"""Tables of boxes: a row of a CSV file has a picture, the sides of a box, and its class."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import PurePosixPath

from tokenmix.data.inventory import Inventory
from tokenmix.data.natural import natural
from tokenmix.data.picture_names import PictureFinder, split_of_path
from tokenmix.data.split_words import split_in
from tokenmix.tasks.dense.layout import SPLITS, Item, Layout, RawObject
from tokenmix.tasks.dense.values import rows_of
from tokenmix_runtime.images import EXTENSIONS

KIND = "a table of boxes"
MOST_BYTES = 1 << 29
SIDES = (("xmin", "ymin", "xmax", "ymax"), ("x_min", "y_min", "x_max", "y_max"), ("x1", "y1", "x2", "y2"),
         ("left", "top", "right", "bottom"))  # fmt: skip
PICTURES = ("filename", "file_name", "file", "image", "image_name", "image_path", "image_id", "imageid", "path", "img")
CLASSES = ("class", "label", "class_name", "label_name", "labelname", "category", "name")


@dataclass(frozen=True)
class _Table:
    """A table's rows, and the places of its columns."""

    file: str
    rows: list[list[str]]
    picture: int
    sides: tuple[int, ...]
    label: int
    size: tuple[int, int] | None  # of width and height


def find_box_table(inventory: Inventory) -> str:
    """The first file that is such a table; empty if none is."""
    return next((file for file in _named(inventory) if _read(inventory, file)), "")


def read_box_tables(inventory: Inventory) -> Layout:
    """The pictures that tables name, with their boxes in pixels, or in shares of the sides where none is larger than 1.

    Columns go by their names: ``filename, width, height, class, xmin, ymin, xmax, ymax`` in any order, as TensorFlow's
    tools and Roboflow write them, or without a header ``path, x1, y1, x2, y2, class``, where a picture without objects
    has empty cells. A picture's part is told by its folder, or by the table's name.

    Raises:
        ValueError: None of the pictures is there.
    """
    finder, layout = PictureFinder(inventory.pictures), Layout(KIND, [], {split: [] for split in SPLITS})
    found: dict[str, tuple[str, tuple[int, int] | None, list[tuple[str, list[float], bool]]]] = {}
    missing: dict[str, str] = {}
    for file in _named(inventory):
        table = _read(inventory, file)
        if table is None:
            continue
        inventory.use([file])
        hint = split_in(PurePosixPath(file).stem)
        boxes = [_numbers(row, table.sides) for row in table.rows]
        relative = max((max(box) for box in boxes if box), default=2.0) <= 1
        for row, box in zip(table.rows, boxes, strict=True):
            picture = finder.find(row[table.picture], file, hint)
            if not picture:
                missing.setdefault(row[table.picture], file)
                continue
            split = split_of_path(picture) or hint or "train"
            sides = _numbers(row, table.size) if table.size else []
            size = (int(sides[0]), int(sides[1])) if sides else None
            _, _, objects = found.setdefault(picture, (split, size, []))
            if box and row[table.label]:
                objects.append((row[table.label], box, relative))
            elif any(row[place] for place in table.sides):
                layout.strays.append(("row without four numbers and a class: left out", f"{file}: {picture}"))
    layout.splits["train"] += [Item(name, problem="picture missing: left out") for name in missing]
    if not found:
        raise ValueError(f"{inventory.root}: none of the {len(missing):,} pictures that its table names is there")
    layout.classes = sorted({label for _, _, objects in found.values() for label, *_ in objects}, key=natural)
    labels = {name: number for number, name in enumerate(layout.classes, 1)}
    for picture, (split, size, objects) in found.items():
        raw = [
            RawObject(labels[label], box, relative=relative, name=f"object {number} ({label})")
            for number, (label, box, relative) in enumerate(objects, 1)
        ]
        layout.splits[split].append(Item(picture, raw, size=size))
    return layout


def _named(inventory: Inventory) -> list[str]:
    named = (name for name in inventory.others if name.lower().endswith((".csv", ".tsv")))
    return [name for name in named if "submission" not in name.lower()]


def _read(inventory: Inventory, file: str) -> _Table | None:
    """A table of boxes, None of anything else."""
    try:
        rows = rows_of(inventory.root / file, MOST_BYTES)
    except (OSError, ValueError, csv.Error):
        return None
    if not rows or len({len(row) for row in rows}) != 1:
        return None
    titles = [title.lower() for title in rows[0]]
    sides = next((tuple(map(titles.index, names)) for names in SIDES if set(names) <= set(titles)), None)
    picture, label = (next((titles.index(n) for n in names if n in titles), None) for names in (PICTURES, CLASSES))
    if sides is not None and picture is not None and label is not None:
        size = (titles.index("width"), titles.index("height")) if {"width", "height"} <= set(titles) else None
        return _Table(file, rows[1:], picture, sides, label, size)
    whole = len(titles) == 6 and all(row[0].lower().endswith(EXTENSIONS) for row in rows)
    if whole and all(_numbers(row, (1, 2, 3, 4)) or not any(row[1:]) for row in rows):
        return _Table(file, rows, 0, (1, 2, 3, 4), 5, None)
    return None


def _numbers(row: list[str], places: tuple[int, ...]) -> list[float]:
    """The finite numbers in some cells; none if one is no such number."""
    try:
        found = [float(row[place]) for place in places]
    except ValueError:
        return []
    return found if all(map(math.isfinite, found)) else []
