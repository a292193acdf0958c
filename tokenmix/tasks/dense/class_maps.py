"""Files that name the classes of masks, and their colours, as the tools that people use write them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from tokenmix.data.inventory import Inventory
from tokenmix.tasks.dense.values import rows_of, text_of

Colour = tuple[int, int, int]
_LISTS = ("classes.txt", "class_names.txt", "labels.txt", "label_names.txt")
_COLOURED = ("labelmap.txt", "class_dict.csv", "label_colors.txt", "label_colours.txt", "classes.csv", "_classes.csv")


@dataclass(frozen=True)
class ClassMap:
    """The classes of masks.

    Attributes:
        file: Where it stands.
        classes: Their names.
        colours: The colour of each, where masks are pictures in colour.
        values: The grey value of each, where they are not 0, 1, 2, ...
    """

    file: str
    classes: list[str]
    colours: list[Colour] | None = None
    values: list[int] | None = None


def read_class_map(inventory: Inventory) -> ClassMap | None:
    """The class map nearest to the root, or None where there is none.

    Read are lists of names, one a line; CVAT's ``labelmap.txt``; tables of a name and three colours
    (``class_dict.csv``, ``label_colors.txt``); Roboflow's ``_classes.csv`` (grey value, name).

    Raises:
        ValueError: Such a file cannot be read.
    """
    names = [name for name in inventory.others if PurePosixPath(name).name.lower() in (*_COLOURED, *_LISTS)]
    if not names:
        return None
    coloured = [name for name in names if PurePosixPath(name).name.lower() in _COLOURED]
    file = min(coloured or names, key=lambda name: (name.count("/"), name))
    known = _read(inventory, file)
    for other in coloured or names:  # some tools write one into the folder of each part
        if PurePosixPath(other).name == PurePosixPath(file).name and other.count("/") == file.count("/"):
            if (found := _read(inventory, other)) != replace(known, file=other):
                raise ValueError(
                    f"{inventory.root}: {file} and {other} say different things of the classes: "
                    f"{', '.join(known.classes[:5])} and {', '.join(found.classes[:5])}"
                )
            inventory.use([other])
    return known


def _read(inventory: Inventory, file: str) -> ClassMap:
    path, name = inventory.root / file, PurePosixPath(file).name.lower()
    if name not in _COLOURED:
        return ClassMap(file, _names(path))
    return _cvat(file, path) if name == "labelmap.txt" else _table(file, path)


def _names(path: Path) -> list[str]:
    """The names, one a line; labelme begins with ``__ignore__``, which is no class."""
    lines = [line.strip() for line in text_of(path).rstrip().splitlines()]
    if lines and lines[0].startswith("["):
        try:
            return [str(name) for name in json.loads("\n".join(lines))]
        except ValueError as error:
            raise ValueError(f"{path}: begins as a list in JSON, and is none: {error}") from error
    if "" in lines:
        raise ValueError(f"{path}: line {lines.index('') + 1} is empty: which number has the class below it?")
    return [line for line in lines if line != "__ignore__"]


def _cvat(file: str, path: Path) -> ClassMap:
    """``name:r,g,b:parts:actions`` in each line, a comment behind ``#``."""
    classes, colours = [], []
    for number, line in enumerate(text_of(path).splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = re.match(r"([^:]*):\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})", line)
        if not found:
            raise ValueError(f"{path}, line {number}: {line.strip()[:80]!r} is no class: write name:r,g,b::")
        classes.append(found[1].strip())
        colours.append(_colour(found.groups()[1:], path, number))
    _all_differ(path, classes, colours)
    return ClassMap(file, classes, colours)


def _table(file: str, path: Path) -> ClassMap:
    """A name and three numbers, in either order; or a grey value and a name."""
    rows = rows_of(path)
    if rows and all(len(row) == 1 for row in rows):  # columns between blanks
        rows = [row[0].split(maxsplit=3) for row in rows]
    rows = [[part for cell in row for part in _numbers(cell) or [cell]] for row in rows]
    classes, colours, values = [], [], []
    for number, row in enumerate(rows, 1):
        digits = [cell for cell in row if cell.lstrip("-").isdigit()]
        words = [cell for cell in row if cell and not cell.lstrip("-").isdigit()]
        if not digits and number == 1:
            continue  # the header
        if len(words) != 1 or len(digits) not in (1, 3):
            raise ValueError(f"{path}, line {number}: {row} is no class: a name with r, g, b, or with its value")
        classes.append(words[0])
        if len(digits) == 3:
            colours.append(_colour(digits, path, number))
        else:
            values.append(int(digits[0]))
            if not 0 <= values[-1] <= 65535:
                raise ValueError(
                    f"{path}, line {number}: the value of {words[0]!r} is {values[-1]}, not from 0 to 65535"
                )
    if colours and values:
        raise ValueError(f"{path}: some classes have a colour and others a value: give all the same")
    _all_differ(path, classes, colours or values)
    return ClassMap(file, classes, colours or None, values or None)


def _all_differ(path: Path, classes: list[str], marks: Sequence[Colour | int]) -> None:
    """Raise if two classes have the same colour or value.

    Raises:
        ValueError: They do; the message names both.
    """
    first: dict[Colour | int, str] = {}
    for name, mark in zip(classes, marks, strict=True):
        if mark in first:
            raise ValueError(f"{path}: {first[mark]!r} and {name!r} are both {mark}: which of them are such pixels?")
        first[mark] = name


def _numbers(cell: str) -> list[str]:
    """The numbers in a cell that holds nothing else."""
    words = cell.split()
    return words if all(word.isdigit() for word in words) else []


def _colour(words: tuple[str, ...] | list[str], path: Path, number: int) -> Colour:
    red, green, blue = map(int, words)
    if not all(0 <= value <= 255 for value in (red, green, blue)):
        raise ValueError(f"{path}, line {number}: a colour is three numbers from 0 to 255")
    return red, green, blue
