"""YOLO's text files: a line per object, its class's number and a box or polygon in shares of the picture's sides."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenmix.data.text_files import read_bytes, read_text
from tokenmix.tasks.dense.layout import (
    SPLITS,
    Item,
    Layout,
    RawObject,
    pictures,
    read_classes,
    split_folders,
    split_word,
)

_LISTS = ("data.yaml", "data.yml", "dataset.yaml")
_MOST_YAML, _MOST_ALIASES, _DEEPEST = 2**18, 20, 20  # bytes; 20 aliases make at most 1,500 copies


def find_yolo(root: Path) -> dict[str, str] | None:
    """The folder of each split's pictures, relative to ``root``; None where this is no such layout."""
    if any((root / name).is_file() for name in _LISTS):
        stated = _yaml(root)
        found = {
            split_word(key): _folder(root, stated, stated[key]) for key in ("train", "val", "test") if stated.get(key)
        }
        return {split: folder for split, folder in found.items() if folder}
    if (root / "images").is_dir() and (root / "labels").is_dir():
        return {split: f"images/{name}" for split, name in split_folders(root / "images").items()} or {
            "train": "images"
        }
    found = {split: f"{name}/images" for split, name in split_folders(root).items()}
    return (
        found if found and all((root / name.replace("images", "labels")).is_dir() for name in found.values()) else None
    )


def read_yolo(root: Path) -> Layout:
    """The pictures of `find_yolo`'s folders; labels stand in ``labels`` where the pictures are in ``images``.

    A picture without a file has no objects. The classes' names stand in ``data.yaml`` or ``classes.txt``.

    Raises:
        ValueError: No names, or no training pictures.
    """
    folders = find_yolo(root) or {}
    classes = _classes(root)
    if "train" not in folders:
        raise ValueError(
            f"{root}: no training pictures; expected images/train and labels/train, or data.yaml with 'train'"
        )
    layout = Layout("YOLO", classes, {split: [] for split in SPLITS})
    for split, folder in folders.items():
        head, _, tail = folder.rpartition("images")
        labels = Path(f"{head}labels{tail}")
        for name in pictures(root / folder):
            file = root / labels / Path(name).with_suffix(".txt")
            objects = _objects(file, len(classes), layout)
            if isinstance(objects, str):
                layout.splits[split].append(Item(f"{folder}/{name}", problem=objects))
            else:
                layout.splits[split].append(Item(f"{folder}/{name}", objects))
    return layout


def _yaml(root: Path) -> dict[str, Any]:
    import yaml  # comes with timm

    path = next(root / name for name in _LISTS if (root / name).is_file())
    text = read_text(path, most=_MOST_YAML)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with it
    try:
        _refuse_growth(yaml.parse(text, Loader=loader))
        content = yaml.load(text, Loader=loader)
    except Exception as error:  # YAML's constructors raise nearly every type on odd values
        raise ValueError(f"{path} cannot be read as YAML: {error or type(error).__name__}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold the keys train, val and names")
    return content


def _refuse_growth(events: Iterable[Any]) -> None:
    """Refuse a text whose aliases could multiply what it says, and one nested beyond any use, before it is built."""
    import yaml

    aliases = depth = 0
    for event in events:
        aliases += isinstance(event, yaml.AliasEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if aliases > _MOST_ALIASES:
            raise ValueError(f"it has more than {_MOST_ALIASES} aliases (*name): write the values out")
        if depth > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} levels deep")


def _folder(root: Path, stated: dict[str, Any], place: Any) -> str:
    """A folder of pictures as ``data.yaml`` gives it, relative to ``root``, or "" where there is none."""
    clean = str(place).removeprefix("./")
    while clean.startswith("../"):  # as some tools write it, although the folder is beside data.yaml
        clean = clean.removeprefix("../")
    bases = (root / str(stated.get("path", ".")), root)
    for path in (base / clean for base in bases):
        if path.is_dir() and path.resolve().is_relative_to(root.resolve()):
            folder = path.resolve().relative_to(root.resolve()).as_posix()
            if "images" not in folder and (path / "images").is_dir():
                folder += "/images"
            return folder
    return ""


def _classes(root: Path) -> list[str]:
    if any((root / name).is_file() for name in _LISTS):
        names = _yaml(root).get("names")
        if isinstance(names, dict):
            if not all(isinstance(key, int) for key in names):
                raise ValueError(f"{root}: the names in data.yaml must be a list, or numbered 0, 1, 2, ...")
            names = [names[key] for key in sorted(names)]
        if isinstance(names, list) and names:
            if any(isinstance(name, list | dict | tuple | set) for name in names):
                raise ValueError(f"{root}: a name in data.yaml is a list of its own: give a word for each class")
            return [str(name) for name in names]
    for file in (root / "classes.txt", root / "labels" / "classes.txt"):
        if file.is_file():
            return read_classes(file)
    raise ValueError(f"{root}: no names of the classes: write them into classes.txt, one a line, or data.yaml, 'names'")


def _objects(file: Path, count: int, layout: Layout) -> list[RawObject] | str:
    """The objects in a file, or what is wrong with it."""
    try:
        lines = read_bytes(file).decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, ValueError):
        return "label file that cannot be read: left out"
    objects = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            label, *values = [float(word) for word in line.split()]
        except ValueError:
            label, values = math.nan, []
        if label != label or label % 1 or (len(values) != 4 and (len(values) < 6 or len(values) % 2)):
            layout.strays.append(("line that is no object: left out", f"{file.name} line {number}"))
            continue
        known = int(label) + 1 if 0 <= label < count else None
        name = f"line {number}"
        if len(values) == 4:
            x, y, width, height = values
            box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            objects.append(RawObject(known, box, relative=True, name=name))
        else:
            objects.append(RawObject(known, None, relative=True, shape=[values], name=name))
    return objects
