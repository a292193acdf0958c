"""Every layout of label files gives the same classes, and what is wrong with one is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.dense_toys import HEIGHT, WIDTH, labels, mask, picture, write_plain
from tests.test_dense_data import load


def test_labels_of_plain_folders(tmp_path) -> None:
    data, _ = load(write_plain(tmp_path), "segmentation")
    assert data.classes == ["nothing", "red", "green"]
    for index in range(6):
        label = data.val.target(index)["label"]
        assert label.dtype == torch.int64
        assert np.array_equal(label.numpy(), labels(100 + index))
    (tmp_path / "classes.txt").unlink()
    assert load(tmp_path, "segmentation")[0].classes == ["0", "1", "2"]


def test_masks_of_black_and_white(tmp_path) -> None:
    for seed in range(12):
        picture(tmp_path / "images" / f"{seed}.jpg", seed)
        mask(tmp_path / "masks" / f"{seed}.png", np.where(labels(seed) > 0, 255, 0).astype(np.uint8))
    data, lines = load(tmp_path, "segmentation", seed=3)
    assert data.classes == ["background", "object"]
    assert (len(data.train), len(data.val), len(data.test)) == (8, 2, 2)
    names = [name for part in (data.train, data.val, data.test) for name in part.names]
    assert len(set(names)) == 12
    assert any("seed 3: 2 as val and 2 as test" in line for line in lines)
    index = int(data.val.names[0].split("/")[1].split(".")[0])
    assert np.array_equal(data.val.target(0)["label"].numpy(), labels(index) > 0)


def test_one_class_that_is_named_is_the_object(tmp_path) -> None:
    for seed in range(8):
        picture(tmp_path / "images" / f"{seed}.jpg", seed)
        mask(tmp_path / "masks" / f"{seed}.png", np.where(labels(seed) > 0, 255, 0).astype(np.uint8))
    (tmp_path / "classes.txt").write_text("crack\n")
    data, _ = load(tmp_path, "segmentation")
    assert data.classes == ["background", "crack"]
    assert set(np.unique(data.train.target(0)["label"].numpy())) == {0, 1}


def test_black_and_white_may_be_colours_of_classes(tmp_path) -> None:
    """A mask in which only grey colours happen to be is read by the colours too."""
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nurban,0,255,255\nbarren,255,255,255\nunknown,0,0,0\n")
    colours = {"urban": (0, 255, 255), "barren": (255, 255, 255), "unknown": (0, 0, 0)}
    for number in range(9):
        picture(tmp_path / "images" / f"{number}.jpg", number)
        colour = list(colours.values())[number % 3]
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT), colour).save(tmp_path / "masks" / f"{number}.png")
    data, _ = load(tmp_path, "segmentation")
    assert data.classes == list(colours)
    for part in (data.train, data.val, data.test):
        for row, name in enumerate(part.names):
            assert np.unique(part.target(row)["label"].numpy()).tolist() == [int(Path(name).stem) % 3]


def test_the_set_keeps_its_name_whatever_lies_beside(tmp_path) -> None:
    root = write_plain(tmp_path / "mine")
    mask(root / "train" / "masks" / "stray.png", labels(0))
    data, lines = load(root, "segmentation")
    assert data.name == "mine"
    assert any("mask without a picture" in line for line in lines)


def test_bad_label_files_are_named(tmp_path) -> None:
    root = write_plain(tmp_path, count=8)
    masks = root / "train" / "masks"
    (masks / "000.png").unlink()
    (masks / "001.png").write_bytes(b"")
    mask(masks / "002.png", np.zeros((HEIGHT + 1, WIDTH), np.uint8))
    mask(masks / "003.png", np.full((HEIGHT, WIDTH, 3), (9, 0, 0), np.uint8))
    mask(masks / "004.png", np.full((HEIGHT, WIDTH), 9, np.uint8))
    mask(masks / "extra.png", labels(0))
    (root / "train" / "images" / "005.png").write_bytes(b"junk")
    data, _ = load(root, "segmentation")
    assert data.problems.found == {
        "mask without a picture: not used": ["train/masks/extra.png"],
        "picture without a mask: left out": ["train/images/000.png"],
        "mask that cannot be read: left out": ["train/masks/001.png"],
        "mask of another size: left out": ["train/masks/002.png"],
        "mask that is a colour picture, not one number per pixel: left out": ["train/masks/003.png"],
        "pixels of an unknown class: ignored": ["train/images/004.png"],
        "picture that cannot be read: left out": ["train/images/005.png"],
    }
    assert len(data.train) == 3
    assert set(data.train.target(0)["label"].unique().tolist()) == {255}


def test_ade20k(tmp_path) -> None:
    values = np.arange(HEIGHT * WIDTH, dtype=np.int64).reshape(HEIGHT, WIDTH) % 151
    for split in ("training", "validation"):
        picture(tmp_path / "images" / split / "a.png", 0)
        mask(tmp_path / "annotations" / split / "a.png", values.astype(np.uint8))
    data, _ = load(tmp_path, "segmentation")
    assert len(data.classes) == 150
    assert not data.problems
    assert np.array_equal(data.train.target(0)["label"].numpy(), np.where(values == 0, 255, values - 1))
    rows = "".join(f"{number}\t0.1\t1\t1\tname {number}, other\n" for number in range(1, 151))
    (tmp_path / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tName\n" + rows)
    assert load(tmp_path, "segmentation")[0].classes[149] == "name 150"


def test_cityscapes(tmp_path) -> None:
    ids = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 34
    for split in ("train", "val", "test"):
        picture(tmp_path / "leftImg8bit" / split / "ulm" / "ulm_000_019_leftImg8bit.png", 0)
        mask(tmp_path / "gtFine" / split / "ulm" / "ulm_000_019_gtFine_labelIds.png", ids.astype(np.uint8))
        mask(tmp_path / "gtFine" / split / "ulm" / "ulm_000_019_gtFine_instanceIds.png", ids.astype(np.uint8))
    data, _ = load(tmp_path, "segmentation")
    assert len(data.classes) == 19
    assert data.test is data.val
    assert not data.problems
    evaluated = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    expected = np.array([evaluated.index(value) if value in evaluated else 255 for value in ids.flatten()])
    assert np.array_equal(data.val.target(0)["label"].numpy().flatten(), expected)


def test_voc_masks_with_palette(tmp_path) -> None:
    for seed in range(4):
        picture(tmp_path / "VOCdevkit" / "VOC2012" / "JPEGImages" / f"{seed}.jpg", seed)
        path = tmp_path / "VOCdevkit" / "VOC2012" / "SegmentationClass" / f"{seed}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        values = labels(seed)
        values[0] = 255
        image = Image.fromarray(values).convert("P")
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tolist())
        image.putdata(values.flatten().tolist())
        image.save(path)
    data, _ = load(tmp_path, "segmentation")
    assert data.classes[:3] == ["background", "aeroplane", "bicycle"]
    assert len(data.classes) == 21
    expected = labels(int(Path(data.train.names[0]).stem)).astype(np.int64)
    expected[0] = 255
    assert np.array_equal(data.train.target(0)["label"].numpy(), expected)
