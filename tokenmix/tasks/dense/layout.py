"""What every reader of a layout gives: the classes, and per split the pictures with what is said of them, unchecked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenmix.data.text_files import read_text

SPLITS = ("train", "val", "test")
LEADS_OUT = "path that leads out of the data set's folder: left out"
MOST_CLASSES = 100_000  # four times as many as any public set has: more are a mistake, and a model of that size


@dataclass(frozen=True)
class RawObject:
    """An object as its file has it.

    Args:
        label: Its class from 1 on, or None: a class that is not in the list.
        box: Left, top, right, bottom; None: the smallest one around its polygons or mask.
        relative: Whether box and polygons are shares of the picture's width and height, not pixels.
        crowd: Whether it is a group that training leaves out.
        area: In square pixels; None: that of its polygons, mask or box.
        shape: Polygons ``[[x, y, x, y, ...], ...]``, a run-length code of COCO, or None.
        name: What a message calls it.
    """

    label: int | None
    box: Sequence[float] | None
    relative: bool = False
    crowd: bool = False
    area: float | None = None
    shape: Any = None
    name: str = "object"


@dataclass(frozen=True)
class Item:
    """A picture's path relative to the data set's folder, and its objects or the path of its label file.

    ``size`` is the (width, height) that the annotation claims, ``problem`` why the picture cannot be used, ``id`` how
    the annotation calls it.
    """

    file: str
    objects: Sequence[RawObject] = ()
    label_file: str = ""
    size: tuple[int, int] | None = None
    problem: str = ""
    id: int | str | None = None


@dataclass
class Layout:
    """A data set as its files have it.

    Args:
        kind: The layout's name.
        classes: Their names.
        splits: The pictures.
        table: Of label files: the class of each value, see `LabelSet`.
        colours: Of label files that are pictures in colour: that of each class.
        void: Of label files: values that belong to no class, as the layout has it.
        class_ids: How the annotations call the classes, if not by their names.
        strays: Further problems, (kind, name).
    """

    kind: str
    classes: list[str]
    splits: dict[str, list[Item]]
    table: Any = None
    colours: Sequence[tuple[int, int, int]] | None = None
    void: frozenset[int] = frozenset({255})
    class_ids: Sequence[int | str] = ()
    strays: list[tuple[str, str]] = field(default_factory=list)


def leads_out(root: Path, path: Path) -> bool:
    """Whether a path, of which an annotation names a part, is not below the data set's folder."""
    return not os.path.abspath(path).startswith(os.path.join(os.path.abspath(root), ""))


def read_classes(path: Path) -> list[str]:
    """The lines of a file of class names."""
    return [line.strip() for line in read_text(path, "the class names in ").splitlines() if line.strip()]
