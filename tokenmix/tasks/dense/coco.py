"""COCO's JSON: boxes, polygons, run-length codes and crowds (https://cocodataset.org/#format-data)."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from tokenmix.data.text_files import is_file, read_json
from tokenmix.tasks.dense.layout import SPLITS, Item, Layout, RawObject, leads_out, split_word

_LISTS = ("images", "annotations", "categories")


def find_coco(root: Path) -> dict[str, Path]:
    """The annotation file of each split; one without a split's name is that of ``train``.

    Raises:
        ValueError: Two files for one split.
    """
    inside = sorted(root.glob("annotations/*.json"))
    inside = [path for path in inside if path.name.startswith("instances")] or inside
    found: dict[str, Path] = {}
    for path in inside or sorted(root.glob("*/_annotations.coco.json")) or sorted(root.glob("*.json")):
        split = split_word(path.parent.name if path.name.startswith("_") else path.stem) or "train"
        if split in found:
            raise ValueError(f"{root}: {found[split].name} and {path.name} are both for {split}: keep one of them")
        found[split] = path
    return found


def read_coco(root: Path) -> Layout:
    """The data set of `find_coco`'s files; the classes are those of the training file, by their ids.

    Raises:
        ValueError: A file is not COCO's JSON, or there is none for training.
    """
    files = find_coco(root)
    if "train" not in files:
        raise ValueError(f"{root}: no annotation file for training; found {', '.join(map(str, files.values()))}")
    contents = {split: _parse(path) for split, path in files.items()}
    categories = sorted(
        contents["train"]["categories"], key=lambda category: (isinstance(category["id"], str), category["id"])
    )
    labels = {category["id"]: number for number, category in enumerate(categories, 1)}
    layout = Layout("COCO", [str(category["name"]) for category in categories], {split: [] for split in SPLITS})
    layout.class_ids = list(labels)
    for split, content in contents.items():
        if content["annotations"]:  # COCO's test images come without
            _read_split(root, files[split], content, labels, layout, split)
    return layout


def _parse(path: Path) -> dict[str, list[dict[str, Any]]]:
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in _LISTS):
        raise ValueError(f"{path} is not COCO's: it needs the lists {', '.join(_LISTS)}")
    needed = {"images": ("id", "file_name"), "annotations": ("image_id", "category_id"), "categories": ("id", "name")}
    for key, names in needed.items():
        for number, entry in enumerate(content[key]):
            if not isinstance(entry, dict) or not all(isinstance(entry.get(name), int | str) for name in names):
                raise ValueError(f"{path}: {key}[{number}] lacks {' or '.join(names)}")
    return content


def _read_split(root: Path, path: Path, content: dict, labels: dict[Any, int], layout: Layout, split: str) -> None:
    names = [str(image["file_name"]) for image in content["images"]]
    folder = _folder(root, path, split, names)
    objects: dict[Any, list[RawObject]] = defaultdict(list)
    known = {image["id"] for image in content["images"]}
    for entry in content["annotations"]:
        if entry["image_id"] in known:
            objects[entry["image_id"]].append(_object(entry, labels))
        else:
            place = f"{path.name} annotation {entry.get('id')}"
            layout.strays.append(("object of a picture that is not listed: left out", place))
    for image, name in zip(content["images"], names, strict=True):
        size = (image.get("width"), image.get("height"))
        claimed = size if all(isinstance(side, int) for side in size) else None
        found = objects[image["id"]]
        layout.splits[split].append(Item((folder / name).as_posix(), found, size=claimed, id=image["id"]))


def _object(entry: dict[str, Any], labels: dict[Any, int]) -> RawObject:
    box: Any = entry.get("bbox")
    if box is not None:  # without one it is that of the polygons; one that cannot be read is a mistake
        numbers = isinstance(box, list) and len(box) == 4 and all(isinstance(value, int | float) for value in box)
        left, top, width, height = map(_number, box) if numbers else (math.nan,) * 4
        box = (left, top, left + width, top + height) if numbers else ()
    area = entry.get("area")
    area = _number(area) if isinstance(area, int | float) else math.nan
    return RawObject(
        labels.get(entry["category_id"]),
        box,
        crowd=bool(entry.get("iscrowd", 0)),
        area=area if 0 <= area < math.inf else None,
        shape=entry.get("segmentation") or None,
        name=f"annotation {entry.get('id')}",
    )


def _number(value: float) -> float:
    """As a float; an integer beyond all floats is infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _folder(root: Path, path: Path, split: str, names: list[str]) -> Path:
    """Where the pictures are, relative to ``root``: the first usual place that has one of the first of them."""
    year = path.stem.rsplit("_", 1)[-1]  # instances_train2017
    places = [path.parent / ".", root / year, root / "images" / year, root / split, root / "images" / split]
    places += [root / "images", root / "JPEGImages", root]
    for place in places:
        if any(is_file(place / name) and not leads_out(root, place / name) for name in names[:50]):
            return place.relative_to(root)
    looked = ", ".join(str(place) for place in places[1:])
    raise ValueError(f"{path}: none of its first pictures ({', '.join(names[:3])}) is in {path.parent}, {looked}")
