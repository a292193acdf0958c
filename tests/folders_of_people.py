"""Small folders of pictures as people have them, built in a few lines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COLOURS = {"red": (200, 30, 30), "green": (30, 160, 40), "blue": (30, 40, 200)}
WIDTH, HEIGHT = 48, 36
BOX = (6, 5, 24, 20)  # left, top, width, height in pixels


def picture(path: Path, colour: str = "red", *, seed: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """A file with a rectangle of a colour on noise."""
    pixels = np.random.default_rng(seed).integers(90, 130, (size[1], size[0], 3), np.uint8)
    left, top, width, height = BOX
    pixels[top : top + height, left : left + width] = COLOURS[colour]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "PNG" if path.suffix == ".png" else "JPEG", quality=95)
    return path


def classes(root: Path, places: Sequence[str], count: int = 8, suffix: str = ".jpg") -> Path:
    """Pictures in folders of classes."""
    for place_number, place in enumerate(places):
        for number in range(count):
            name = root / place / f"{number}{suffix}"
            picture(name, list(COLOURS)[place_number % 3], seed=100 * place_number + number)
    return root


def coco(root: Path, parts: Mapping[str, int], *, names: Sequence[str] = ("red", "green"), **changes: Any) -> Path:
    """COCO's layout; ``changes`` are functions of an annotation's dict, by the part whose annotations they change."""
    for part, count in parts.items():
        content: dict[str, list[dict[str, Any]]] = {
            "images": [],
            "annotations": [],
            "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
        }
        for number in range(count):
            colour = number % len(names)
            name = f"{part}{number}.png"
            picture(root / f"{part}2017" / name, names[colour], seed=hash_of(name))
            content["images"].append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
            entry = {"id": number, "image_id": number, "category_id": colour + 1, "bbox": list(BOX), "iscrowd": 0}
            content["annotations"].append(entry | {"area": BOX[2] * BOX[3], "segmentation": [outline()]})
        if part in changes:
            changes[part](content)
        path = root / "annotations" / f"instances_{part}2017.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return root


def outline() -> list[int]:
    """The box as a polygon."""
    left, top, width, height = BOX
    return [left, top, left + width, top, left + width, top + height, left, top + height]


def yolo_line(number: int = 0) -> str:
    """The box as a line of a label file."""
    left, top, width, height = BOX
    return f"{number} {(left + width / 2) / WIDTH} {(top + height / 2) / HEIGHT} {width / WIDTH} {height / HEIGHT}"


def hash_of(name: str) -> int:
    """A number that depends on the letters alone."""
    return sum(ord(letter) * 31**place for place, letter in enumerate(name)) % 2**31
