"""VOC's instance masks: palette pictures in which each object has its number, drawn as VOC's are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.dense_toys import HEIGHT, WIDTH, rectangles, write_voc
from tokenmix.sources import load_data

NAMES = ("red", "green")


def numbered(seed: int) -> np.ndarray:
    """1 and 2 where the objects are, in the order of the annotation, 255 on a border of one pixel around each."""
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    for number, (left, top, right, bottom) in enumerate(rectangles(seed), 1):
        values[top:bottom, left:right] = 255
        values[top + 1 : bottom - 1, left + 1 : right - 1] = number
    return values


def draw(path: Path, values: np.ndarray) -> None:
    """As VOC does it: a palette, in which 255 is a light yellow."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.frombytes("P", values.shape[::-1], values.tobytes())
    palette = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)
    palette[255] = (224, 224, 192)
    image.putpalette(palette.tobytes())
    image.save(path)


def write(root: Path, count: int = 4) -> Path:
    write_voc(root, count)
    for seed in (start + number for start in (0, 100) for number in range(count)):
        draw(root / "SegmentationObject" / f"{seed:03}.png", numbered(seed))
    (root / "ImageSets" / "Main").rename(root / "ImageSets" / "Segmentation")
    return root


def load(root: Path, **options):
    lines: list[str] = []
    return load_data(root, task="instances", log=lines.append, **options), lines


@pytest.mark.parametrize("place", [".", "VOC2012", "VOCdevkit/VOC2012"])
@pytest.mark.parametrize("check", [True, False])
def test_masks_boxes_and_classes(tmp_path, place, check) -> None:
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    write(tmp_path / place)
    data, lines = load(tmp_path, check=check)
    assert data.classes == ["green", "red"]
    assert (len(data.train), len(data.val)) == (4, 4)
    assert not data.problems, lines
    for split, start in ((data.train, 0), (data.val, 100)):
        for index in range(4):
            target, values = split.target(index), numbered(start + index)
            assert target["masks"].dtype == torch.uint8
            expected = np.stack([values == number for number in (1, 2)])
            assert np.array_equal(target["masks"].numpy(), expected)
            assert target["area"].tolist() == expected.sum((1, 2)).tolist()
            assert [data.classes[label - 1] for label in target["labels"].tolist()] == list(NAMES)
            assert target["iscrowd"].tolist() == [index % 2] * 2  # difficult ones
            assert target["boxes"].tolist() == [list(map(float, box)) for box in rectangles(start + index)]


def test_without_lists_all_pictures_with_masks_are_read(tmp_path) -> None:
    root = write(tmp_path, count=8)
    for path in (root / "ImageSets" / "Segmentation").iterdir():
        path.unlink()
    (root / "SegmentationObject" / "000.png").unlink()
    data, _ = load(root)
    assert len(data.train) + len(data.val) + len(data.test) == 15


def test_bad_masks_are_counted_and_named(tmp_path) -> None:
    root = write(tmp_path, count=7)
    folder = root / "SegmentationObject"
    (folder / "000.png").unlink()
    (folder / "001.png").write_bytes(b"no picture")
    Image.new("RGB", (WIDTH, HEIGHT), "red").save(folder / "002.png")
    draw(folder / "003.png", numbered(3)[:, :-1].copy())
    draw(folder / "004.png", np.where(numbered(4) == 2, 0, numbered(4)).astype(np.uint8))
    draw(folder / "005.png", np.where(numbered(5) == 2, 7, numbered(5)).astype(np.uint8))
    (root / "Annotations" / "006.xml").unlink()
    data, lines = load(root)
    assert data.problems.found == {
        "pixels of an object that is not in the annotation: ignored": ["JPEGImages/005.png"],
        "picture without a mask: left out": ["JPEGImages/000.png"],
        "mask that cannot be read: left out": ["SegmentationObject/001.png"],
        "mask that is a colour picture, not one number per pixel: left out": ["SegmentationObject/002.png"],
        "mask of another size: left out": [
            f"JPEGImages/003.png object {i} ({name})" for i, name in enumerate(NAMES, 1)
        ],
        "object without a mask: left out": [f"JPEGImages/{n}.png object 2 (green)" for n in ("004", "005")],
        "annotation file missing or not XML: picture left out": ["JPEGImages/006.png"],
    }
    assert all(any(kind in line for line in lines) for kind in data.problems.found)
    assert [len(data.train.target(index)["masks"]) for index in range(3)] == [0, 1, 1]


def test_folders_of_recipes_are_found_by_name(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TOKENMIX_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"there is no .*/voc: give the folder of voc with --data"):
        load("voc")
    write(tmp_path / "voc")
    assert len(load("voc")[0].train) == 4
