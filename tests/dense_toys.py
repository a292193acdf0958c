"""Small data sets with objects and labels, written in each layout that can be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 48, 32
SPLITS = ("train", "val")


def picture(path: Path, seed: int, boxes: list[tuple[int, int, int, int]] = (), size=(WIDTH, HEIGHT)) -> None:
    """Noise with bright rectangles, (left, top, right, bottom)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 90, (size[1], size[0], 3), dtype=np.uint8)
    for number, (left, top, right, bottom) in enumerate(boxes):
        pixels[top:bottom, left:right, number % 2] = 250
    Image.fromarray(pixels).save(path)


def rectangles(seed: int) -> list[tuple[int, int, int, int]]:
    """Two rectangles side by side: of class 1, red, and of class 2, green."""
    rng = np.random.default_rng(seed + 1000)
    lefts, tops = rng.integers((0, 24), (6, 30)), rng.integers(0, 12, 2)
    widths, heights = rng.integers(10, 16, 2), rng.integers(10, 16, 2)
    return [(int(a), int(b), int(a + c), int(b + d)) for a, b, c, d in zip(lefts, tops, widths, heights, strict=True)]


def polygon(box: tuple[float, ...]) -> list[float]:
    left, top, right, bottom = box
    return [left, top, right, top, right, bottom, left, bottom]


def write_coco(root: Path, count: int = 6, more: dict[str, list[Any]] | None = None) -> Path:
    """``annotations/instances_train2017.json`` and so on; ``more`` has annotations to add to the training file."""
    for at, split in enumerate(SPLITS):
        content: dict[str, list[Any]] = {"images": [], "annotations": []}
        content["categories"] = [{"id": 30, "name": "green"}, {"id": 7, "name": "red"}]
        for number in range(count):
            seed = 100 * at + number
            boxes = rectangles(seed)
            picture(root / f"{split}2017" / f"{seed:03}.png", seed, boxes)
            size = {"width": WIDTH, "height": HEIGHT}
            content["images"].append({"id": 500 + seed, "file_name": f"{seed:03}.png", **size})
            for box, category in zip(boxes, (7, 30), strict=True):
                entry = {"image_id": 500 + seed, "category_id": category, "id": len(content["annotations"]) + 1}
                entry["bbox"] = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
                entry |= {"segmentation": [polygon(box)], "area": entry["bbox"][2] * entry["bbox"][3], "iscrowd": 0}
                content["annotations"].append(entry)
        if split == "train":
            for name, entries in (more or {}).items():
                content[name] += entries
        path = root / "annotations" / f"instances_{split}2017.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return root


def write_voc(root: Path, count: int = 6) -> Path:
    for at, split in enumerate(SPLITS):
        stems = []
        for number in range(count):
            seed = 100 * at + number
            boxes = rectangles(seed)
            stems.append(f"{seed:03}")
            picture(root / "JPEGImages" / f"{seed:03}.png", seed, boxes)
            objects = "".join(
                f"<object><name>{name}</name><difficult>{number % 2}</difficult><bndbox><xmin>{box[0] + 1}</xmin>"
                f"<ymin>{box[1] + 1}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
                for name, box in zip(("red", "green"), boxes, strict=True)
            )
            (root / "Annotations").mkdir(exist_ok=True)
            (root / "Annotations" / f"{seed:03}.xml").write_text(f"<annotation>{objects}</annotation>")
        lists = root / "ImageSets" / "Main"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"{split}.txt").write_text("\n".join(stems))
    return root


def write_yolo(root: Path, count: int = 6, polygons: bool = False) -> Path:
    for at, split in enumerate(SPLITS):
        (root / "labels" / split).mkdir(parents=True)
        for number in range(count):
            seed = 100 * at + number
            boxes = rectangles(seed)
            picture(root / "images" / split / f"{seed:03}.png", seed, boxes)
            lines = []
            for label, (left, top, right, bottom) in enumerate(boxes):
                values = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
                values = polygon((left, top, right, bottom)) if polygons else values
                shares = [value / (HEIGHT if place % 2 else WIDTH) for place, value in enumerate(values)]
                lines.append(" ".join([str(label), *(f"{share:.17g}" for share in shares)]))
            (root / "labels" / split / f"{seed:03}.txt").write_text("\n".join(lines))
    (root / "data.yaml").write_text("path: .\ntrain: images/train\nval: images/val\nnames: {0: red, 1: green}\n")
    return root


def labels(seed: int) -> np.ndarray:
    """(HEIGHT, WIDTH) uint8: 0, and 1 and 2 in the rectangles."""
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    for label, (left, top, right, bottom) in enumerate(rectangles(seed), 1):
        values[top:bottom, left:right] = label
    return values


def mask(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def write_plain(root: Path, count: int = 6) -> Path:
    for at, split in enumerate(SPLITS):
        for number in range(count):
            seed = 100 * at + number
            picture(root / split / "images" / f"{seed:03}.png", seed, rectangles(seed))
            mask(root / split / "masks" / f"{seed:03}.png", labels(seed))
    (root / "classes.txt").write_text("nothing\nred\ngreen\n")
    return root
