"""Writers of the layouts that are read: one random set, in each format, with spellings that mean the same."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 40, 30
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels


@dataclass(frozen=True)
class Drawn:
    """A random set: the names of the classes, and of each picture, by its name without ending, the objects on it."""

    classes: tuple[str, ...]
    pictures: dict[str, tuple[tuple[int, Box], ...]]

    def objects(self) -> dict[str, list[tuple[str, Box]]]:
        """By the picture the name of each object's class, and its box, sorted."""
        return {stem: sorted((self.classes[label], box) for label, box in rows) for stem, rows in self.pictures.items()}

    def labels(self, stem: str) -> np.ndarray:
        """(HEIGHT, WIDTH) uint8: 0, and the number of each box's class from 1 on; later boxes lie over earlier ones."""
        values = np.zeros((HEIGHT, WIDTH), np.uint8)
        for label, (left, top, right, bottom) in self.pictures[stem]:
            values[top:bottom, left:right] = label + 1
        return values


def picture(path: Path) -> None:
    """Noise that no other file has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng([ord(letter) for letter in path.name])
    Image.fromarray(draws.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)).save(path, "PNG")


def text(
    path: Path, content: str, chance: random.Random, *, encodings: tuple[str, ...] = ("utf-8", "utf-8-sig")
) -> None:
    """A text in one of the encodings, with one of the ends of lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.replace("\n", chance.choice(["\n", "\r\n"])).encode(chance.choice(encodings)))


def corners(box: Box) -> list[int]:
    left, top, right, bottom = box
    return [left, top, right, top, right, bottom, left, bottom]


def ending(chance: random.Random) -> str:
    return chance.choice([".png", ".PNG", ".Png"])


# ------------------------------------------------------------------------------------------------------ COCO, YOLO, VOC


def write_coco(root: Path, drawn: Drawn, chance: random.Random) -> list[Path]:
    """Ids as numbers, floats and texts, keys beside those that are read, pictures in one of many places."""
    key: Callable[[int], Any] = chance.choice([int, float, str, lambda number: f" {number} "])
    number: Callable[[int], Any] = chance.choice([int, float, str])
    folder = chance.choice(["train2017", "images", ".", "JPEGImages", "somewhere/else"])
    first, step = chance.randrange(9), chance.randrange(1, 4)
    ids = [first + step * place for place in range(len(drawn.classes))]
    images, annotations = [], []
    for at, (stem, rows) in enumerate(drawn.pictures.items()):
        name = stem + ending(chance)
        picture(root / folder / name)
        size = {"width": number(WIDTH), "height": number(HEIGHT)} if chance.random() < 0.8 else {}
        images.append({"id": key(at), "file_name": chance.choice(["", "./", ".\\"]) + name, "license": 1, **size})
        for label, (left, top, right, bottom) in rows:
            entry: dict[str, Any] = {"id": len(annotations), "image_id": key(at), "category_id": key(ids[label])}
            entry["bbox"] = [number(value) for value in (left, top, right - left, bottom - top)]
            entry |= chance.choice([{}, {"iscrowd": 0}, {"iscrowd": "0"}, {"iscrowd": False}])
            entry |= chance.choice([{}, {"segmentation": [corners((left, top, right, bottom))]}, {"segmentation": []}])
            annotations.append(entry)
    categories = [
        {"id": key(at), "name": name, "supercategory": "x"} for at, name in zip(ids, drawn.classes, strict=True)
    ]
    for entries in (images, annotations, categories):
        chance.shuffle(entries)
    path = root / chance.choice(
        ["annotations/instances_train2017.json", "_annotations.coco.json", "Annotations/result.json"]
    )
    content = {"images": images, "annotations": annotations, "categories": categories, "info": {}}
    text(path, json.dumps(content, ensure_ascii=chance.random() < 0.5, indent=chance.choice([None, 2])), chance)
    return [path]


def write_yolo(root: Path, drawn: Drawn, chance: random.Random) -> list[Path]:
    """Label files beside the pictures or in folders of many names; classes in one of five files; blanks and tabs."""
    place, labels = chance.choice(
        [
            ("images/train", "labels/train"),
            ("train/images", "train/labels"),
            ("obj_train_data", "obj_train_data"),
            (".", "."),
        ]
    )
    gap, last = chance.choice([" ", "  ", "\t"]), chance.choice(["", "\n", "\n\n", " \n"])
    written = []
    for stem, rows in drawn.pictures.items():
        picture(root / place / (stem + ending(chance)))
        lines = []
        for label, (left, top, right, bottom) in rows:
            values = [(left + right) / 2 / WIDTH, (top + bottom) / 2 / HEIGHT]
            values += [(right - left) / WIDTH, (bottom - top) / HEIGHT]
            shown = chance.choice(["{:.17g}", "{:.9f}", "{:.12e}"])
            lines.append(gap.join([chance.choice([f"{label}", f"{label}.0"]), *map(shown.format, values)]))
        written.append(root / labels / f"{stem}.txt")
        text(written[-1], "\n".join(lines) + last, chance)
    names = list(drawn.classes)
    kind = chance.choice(["list", "numbers", "classes.txt", "obj.names", "_darknet.labels"])
    if kind in ("list", "numbers"):
        stated: Any = names if kind == "list" else dict(enumerate(names))
        head = f"train: {place}\n" + chance.choice(["", f"nc: {len(names)}\n", "path: .\n", "# made by hand\n"])
        text(
            root / "data.yaml",
            f"{head}names: {json.dumps(names) if kind == 'list' else yaml_mapping(stated)}\n",
            chance,
        )
    else:
        text(root / kind, "\n".join(names) + last, chance)
    return written


def yaml_mapping(names: dict[int, str]) -> str:
    return "{" + ", ".join(f"{number}: {json.dumps(name)}" for number, name in names.items()) + "}"


def write_voc(root: Path, drawn: Drawn, chance: random.Random) -> list[Path]:
    """XML with and without a declaration, sizes and marks, in folders in any case of letters."""
    place, notes = chance.choice(
        [("JPEGImages", "Annotations"), ("images", "annotations"), ("Images", "ANNOTATIONS/xmls"), ("all", "all")]
    )
    number: Callable[[int], str] = chance.choice([str, lambda value: f"{value}.0", lambda value: f" {value} "])
    written = []
    for stem, rows in drawn.pictures.items():
        name = stem + ending(chance)
        picture(root / place / name)
        objects = ""
        for label, (left, top, right, bottom) in rows:
            difficult = chance.choice(["", "<difficult>0</difficult>", "<difficult>False</difficult>", "<difficult/>"])
            sides = dict(xmin=left + 1, ymin=top + 1, xmax=right, ymax=bottom)
            box = "".join(f"<{side}>{number(value)}</{side}>" for side, value in sides.items())
            kind = f"<name>{escape(drawn.classes[label])}</name><pose/>{difficult}"
            objects += f"<object>{kind}<bndbox>{box}</bndbox></object>\n"
        size = chance.choice(
            [
                "",
                "<size><width>0</width><height>0</height></size>",
                f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>",
            ]
        )
        head, encodings = chance.choice(
            [("", ("utf-8",)), ('<?xml version="1.0" encoding="utf-8"?>\n', ("utf-8", "utf-8-sig"))]
        )
        written.append(root / notes / f"{stem}.xml")
        content = f"{head}<annotation><filename>{escape(name)}</filename>{size}\n{objects}</annotation>"
        text(written[-1], content, chance, encodings=encodings)
    return written


# ------------------------------------------------------------------------------------------------- tools' own files


def write_labelme(root: Path, drawn: Drawn, chance: random.Random) -> list[Path]:
    """``x.json`` beside ``x.png``, with corners in any order and polygons."""
    written = []
    for stem, rows in drawn.pictures.items():
        name = stem + ending(chance)
        picture(root / "set" / name)
        shapes = []
        for label, (left, top, right, bottom) in rows:
            shape: dict[str, Any] = {"label": drawn.classes[label], "group_id": None, "flags": {}}
            ends = chance.choice(
                [[[left, top], [right, bottom]], [[right, bottom], [left, top]], [[left, bottom], [right, top]]]
            )
            outline = corners((left, top, right, bottom))
            kinds = [("rectangle", ends), ("polygon", [outline[row : row + 2] for row in range(0, 8, 2)])]
            shape["shape_type"], shape["points"] = chance.choice(kinds)
            shapes.append(shape)
        path = chance.choice(["", "..\\pictures\\", "/home/someone/"]) + name
        sides = chance.choice(
            [{}, {"imageWidth": WIDTH, "imageHeight": HEIGHT}, {"imageWidth": None, "imageHeight": None}]
        )
        written.append(root / "set" / f"{stem}.json")
        text(
            written[-1],
            json.dumps({"version": "5.4", "shapes": shapes, "imagePath": path, "imageData": None, **sides}),
            chance,
        )
    return written


def write_via(root: Path, drawn: Drawn, chance: random.Random) -> list[Path]:
    """A project or an export, with regions as a list or a mapping."""
    entries = {}
    for stem, rows in drawn.pictures.items():
        name = stem + ending(chance)
        picture(root / "pictures" / name)
        regions: Any = []
        for label, box in rows:
            outline, (left, top, right, bottom) = corners(box), box
            kind = chance.choice(
                [
                    {"name": "rect", "x": left, "y": top, "width": right - left, "height": bottom - top},
                    {"name": "polygon", "all_points_x": outline[::2], "all_points_y": outline[1::2]},
                ]
            )
            regions.append({"shape_attributes": kind, "region_attributes": {"kind": drawn.classes[label]}})
        if chance.random() < 0.3:
            regions = {str(number): region for number, region in enumerate(regions)}
        entries[f"{name}123"] = {"filename": name, "size": 123, "regions": regions, "file_attributes": {}}
    content = chance.choice([entries, {"_via_settings": {}, "_via_img_metadata": entries, "_via_attributes": {}}])
    path = root / chance.choice(["via_project.json", "pictures/labels.json"])
    text(path, json.dumps(content), chance)
    return [path]


def write_supervisely(root: Path, drawn: Drawn, chance: random.Random) -> list[Path]:
    """``img/x.png`` and ``ann/x.png.json``, perhaps in a folder of a data set, with ``meta.json``."""
    place = chance.choice(["", "ds0/"])
    written = []
    for stem, rows in drawn.pictures.items():
        name = stem + ending(chance)
        picture(root / f"{place}img" / name)
        objects = []
        for label, (left, top, right, bottom) in rows:
            outline = corners((left, top, right, bottom))
            kinds = [
                ("rectangle", [[left, top], [right, bottom]]),
                ("polygon", [outline[at : at + 2] for at in range(0, 8, 2)]),
            ]
            kind, points = chance.choice(kinds)
            entry = {"classTitle": drawn.classes[label], "geometryType": kind, "tags": []}
            objects.append(entry | {"points": {"exterior": points, "interior": []}})
        content = {"description": "", "tags": [], "size": {"width": WIDTH, "height": HEIGHT}, "objects": objects}
        written.append(root / f"{place}ann" / f"{name}.json")
        text(written[-1], json.dumps(content), chance)
    text(root / "meta.json", json.dumps({"classes": [{"title": name} for name in drawn.classes], "tags": []}), chance)
    return written


def write_cvat(root: Path, drawn: Drawn, chance: random.Random) -> list[Path]:
    """``annotations.xml``: boxes and polygons, names of pictures with and without their folder."""
    folder, images = chance.choice(["images", "data/images"]), ""
    for number, (stem, rows) in enumerate(drawn.pictures.items()):
        name = stem + ending(chance)
        picture(root / folder / name)
        objects = ""
        for label, (left, top, right, bottom) in rows:
            outline = corners((left, top, right, bottom))
            points = ";".join(f"{x}.00,{y}" for x, y in zip(outline[::2], outline[1::2], strict=True))
            kind = quoteattr(drawn.classes[label])
            objects += chance.choice(
                [
                    f'<box label={kind} occluded="0" xtl="{left}" ytl="{top}.0" xbr="{right}" ybr="{bottom}"></box>',
                    f'<polygon label={kind} points="{points}"/>',
                ]
            )
        told = quoteattr(chance.choice(["", f"{folder.rsplit('/', 1)[-1]}/"]) + name)
        images += f'<image id="{number}" name={told} width="{WIDTH}" height="{HEIGHT}">{objects}</image>\n'
    path = root / "annotations.xml"
    text(
        path,
        f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>{images}</annotations>',
        chance,
    )
    return [path]


# ------------------------------------------------------------------------------------------------ masks and folders


def write_masks(root: Path, drawn: Drawn, chance: random.Random) -> list[Path]:
    """Masks of one channel, of palettes, of three equal channels, of 16 bits; in folders and by endings of names."""
    place, masks, end = chance.choice(
        [
            ("images", "masks", ""),
            ("imgs", "gt", "_gt"),
            ("train", "trainannot", ""),
            ("all", "all", "_mask"),
            ("x", "y", ""),
        ]
    )
    palette = [value for colour in ((0, 0, 0), (200, 0, 0), (0, 200, 0), (0, 0, 200)) for value in colour]
    written = []
    for stem in drawn.pictures:
        picture(root / place / (stem + ending(chance)))
        values = drawn.labels(stem)
        image = Image.fromarray(values)
        kind = chance.choice(["L", "P", "RGB", "I;16"])
        if kind == "P":
            image = image.convert("P")
            image.putpalette(palette)
        elif kind == "RGB":
            image = image.convert("RGB")
        elif kind == "I;16":
            image = Image.fromarray(values.astype(np.uint16))
        written.append(root / masks / f"{stem}{end}{chance.choice(['.png', '.PNG'])}")
        written[-1].parent.mkdir(parents=True, exist_ok=True)
        image.save(written[-1], "PNG")
    listed = ["nothing", *drawn.classes]
    text(root / chance.choice(["classes.txt", "class_names.txt", "labels.txt"]), "\n".join(listed) + "\n", chance)
    return written


def write_classes(root: Path, drawn: Drawn, chance: random.Random) -> list[Path]:
    """Folders of classes, with folders below them, endings in any case, and what systems leave behind."""
    around = chance.choice(["", "photos/", "photos/photos/"])
    written = []
    for stem, rows in drawn.pictures.items():
        inner = chance.choice(["", "more/", "2024/05/"])
        written.append(root / f"{around}{drawn.classes[rows[0][0]]}" / f"{inner}{stem}{ending(chance)}")
        picture(written[-1])
    junk = chance.choice([".DS_Store", "Thumbs.db", "__MACOSX/._0.png", "@eaDir/0.png", ".hidden/0.png", "desktop.ini"])
    place = root / around / junk
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(b"\0\5\x16\7")
    return written


OBJECTS = {
    "COCO": write_coco,
    "YOLO": write_yolo,
    "VOC": write_voc,
    "labelme": write_labelme,
    "VIA": write_via,
    "Supervisely": write_supervisely,
    "CVAT": write_cvat,
}
