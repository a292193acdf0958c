"""Every layout gives the same objects and labels, and what is wrong with one is named, not met in training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from tests.dense_toys import (
    HEIGHT,
    WIDTH,
    labels,
    mask,
    picture,
    polygon,
    rectangles,
    write_coco,
    write_plain,
    write_voc,
    write_yolo,
)
from tokenmix.data import load_data


def load(root: Path, task: str = "detection", **options):
    lines: list[str] = []
    return load_data(root, task=task, log=lines.append, **options), lines


WRITERS = {"coco": write_coco, "voc": write_voc, "yolo": write_yolo}


@pytest.mark.parametrize("layout", WRITERS)
def test_boxes_of_every_layout(tmp_path, layout) -> None:
    data, lines = load(WRITERS[layout](tmp_path / "set"))
    ordered = ["green", "red"] if layout == "voc" else ["red", "green"]
    assert data.classes == ordered
    assert (len(data.train), len(data.val), data.test) == (6, 6, data.val)
    assert not data.problems
    assert data.skipped == []
    for split, start in ((data.train, 0), (data.val, 100)):
        for index in range(6):
            target, boxes = split.target(index), rectangles(start + index)
            assert target["boxes"].dtype == torch.float32
            assert torch.allclose(target["boxes"], torch.tensor(boxes, dtype=torch.float32), atol=1e-5)
            assert [data.classes[label - 1] for label in target["labels"].tolist()] == ["red", "green"]
            sides = [(box[2] - box[0]) * (box[3] - box[1]) for box in boxes]
            assert target["area"].tolist() == pytest.approx(sides)
            assert target["iscrowd"].tolist() == ([index % 2] * 2 if layout == "voc" else [0, 0])
            assert target["image_id"].item() == index
            assert split.load(index).size == (WIDTH, HEIGHT)
    assert "6 training, 6 validation" in lines[-1]


@pytest.mark.parametrize("layout", ["coco", "yolo"])
def test_masks_of_polygons(tmp_path, layout) -> None:
    root = write_coco(tmp_path) if layout == "coco" else write_yolo(tmp_path, polygons=True)
    data, _ = load(root, "instances")
    for index in range(6):
        target = data.train.target(index)
        assert target["masks"].shape == (2, HEIGHT, WIDTH)
        assert target["masks"].dtype == torch.uint8
        for drawn, (left, top, right, bottom) in zip(target["masks"], rectangles(index), strict=True):
            expected = torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8)
            expected[top:bottom, left:right] = 1
            assert torch.equal(drawn, expected)


def annotation(**values):
    return {"id": 99, "image_id": 500, "category_id": 7, "bbox": [1, 1, 5, 5], "iscrowd": 0, **values}


def test_run_length_codes_and_crowds(tmp_path) -> None:
    values = np.random.default_rng(0).integers(0, 2, (HEIGHT, WIDTH), dtype=np.uint8)
    code = coco_mask.encode(np.asfortranarray(values))
    columns = values.T.flatten()
    changes = np.flatnonzero(np.diff(np.concatenate(([0], columns, [2]))))
    counts = np.diff(np.concatenate(([0], changes))).tolist()
    shapes = [
        {"size": [HEIGHT, WIDTH], "counts": counts},
        {"size": [HEIGHT, WIDTH], "counts": code["counts"].decode()},
    ]
    entries = [annotation(segmentation=shape, iscrowd=crowd, area=7.5) for crowd, shape in enumerate(shapes)]
    data, _ = load(write_coco(tmp_path, more={"annotations": entries}), "instances")
    target = data.train.target(0)
    assert target["iscrowd"].tolist() == [0, 0, 0, 1]
    assert target["area"].tolist()[2:] == [7.5, 7.5]
    for drawn in target["masks"][2:]:
        assert np.array_equal(drawn.numpy(), values)


BAD = {
    "box over the picture's edge: clipped": {"bbox": [40, 20, 30, 30]},
    "box outside the picture: left out": {"bbox": [60, 1, 5, 5]},
    "box of zero area: left out": {"bbox": [3, 3, 0, 5]},
    "box that is not finite: left out": {"bbox": [float("nan"), 3, 4, 5]},
    "object without a box: left out": {"bbox": [1, 2, 3]},
    "object of an unknown class: left out": {"category_id": 8},
    "object of a picture that is not listed: left out": {"image_id": 1},
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_boxes_are_named(tmp_path, kind) -> None:
    data, lines = load(write_coco(tmp_path, more={"annotations": [annotation(**BAD[kind])]}))
    assert list(data.problems.found) == [kind]
    (name,) = data.problems.found[kind]
    assert name.endswith("annotation 99")
    assert any(kind in line and "annotation 99" in line for line in lines)
    target = data.train.target(0)
    if "clipped" in kind:
        assert target["boxes"][2].tolist() == [40, 20, WIDTH, HEIGHT]
    else:
        assert len(target["boxes"]) == 2


BAD_MASKS = {
    "object without a mask: left out": None,
    "mask of another size: left out": {"size": [HEIGHT, WIDTH + 1], "counts": [HEIGHT * (WIDTH + 1)]},
    "polygon of fewer than 3 points: left out": [[1, 1, 2, 2]],
    "mask of zero area: left out": [[3, 3, 3, 3, 3, 3]],
    "mask that cannot be read: left out": {"size": [HEIGHT, WIDTH], "counts": [5, 100000]},
}


@pytest.mark.parametrize("kind", BAD_MASKS)
def test_bad_masks_are_named(tmp_path, kind) -> None:
    root = write_coco(tmp_path, more={"annotations": [annotation(segmentation=BAD_MASKS[kind])]})
    data, _ = load(root, "instances")
    assert list(data.problems.found) == [kind]
    assert len(data.train.target(0)["masks"]) == 2


def test_bad_pictures_are_named(tmp_path) -> None:
    root = write_coco(tmp_path)
    (root / "train2017" / "000.png").unlink()
    (root / "train2017" / "001.png").write_bytes(b"no picture")
    picture(root / "train2017" / "002.png", 2, size=(WIDTH + 1, HEIGHT))
    content = (root / "train2017" / "003.png").read_bytes()
    (root / "train2017" / "003.png").write_bytes(content[: len(content) // 2])
    data, _ = load(root)
    assert data.problems.found == {
        "picture missing: left out": ["train2017/000.png"],
        "picture that cannot be read: left out": ["train2017/001.png", "train2017/003.png"],
        "picture of another size than its annotation says: left out": ["train2017/002.png"],
    }
    assert [skipped.name[-7:] for skipped in data.skipped] == ["000.png", "001.png", "002.png", "003.png"]
    assert data.train.names == ["train2017/004.png", "train2017/005.png"]


def test_yolo_lines_that_are_wrong(tmp_path) -> None:
    root = write_yolo(tmp_path)
    (root / "labels/train/000.txt").write_text(
        "0 .5 .5 .1 .1\n\n0 .5\nred .1 .1 .1 .1\n5 .5 .5 .1 .1\n0.5 .1 .1 .1 .1\n"
    )
    (root / "labels/train/001.txt").unlink()
    data, _ = load(root)
    assert data.problems.found == {
        "line that is no object: left out": ["000.txt line 3", "000.txt line 4", "000.txt line 6"],
        "object of an unknown class: left out": ["images/train/000.png line 5"],
    }
    assert [len(data.train.target(index)["boxes"]) for index in range(3)] == [1, 0, 2]


def test_broken_xml(tmp_path) -> None:
    root = write_voc(tmp_path)
    (root / "Annotations" / "000.xml").write_text("<annotation><object>")
    (root / "Annotations" / "001.xml").unlink()
    text = (root / "Annotations" / "100.xml").read_text()
    (root / "Annotations" / "100.xml").write_text(text.replace("red", "blue").replace("<xmin>", "<xmin>x", 1))
    data, _ = load(root)
    assert data.problems.found == {
        "annotation file missing or not XML: picture left out": ["JPEGImages/000.png", "JPEGImages/001.png"],
        "object of an unknown class: left out": ["JPEGImages/100.png object 1 (blue)"],
    }


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


def test_bad_label_files_are_named(tmp_path) -> None:
    root = write_plain(tmp_path, count=8)
    masks = root / "train" / "masks"
    (masks / "000.png").unlink()
    (masks / "001.png").write_bytes(b"")
    mask(masks / "002.png", np.zeros((HEIGHT + 1, WIDTH), np.uint8))
    mask(masks / "003.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    mask(masks / "004.png", np.full((HEIGHT, WIDTH), 9, np.uint8))
    mask(masks / "extra.png", labels(0))
    (root / "train" / "images" / "005.png").write_bytes(b"junk")
    data, _ = load(root, "segmentation")
    assert data.problems.found == {
        "mask without a picture: not used": ["train/masks/extra.png"],
        "picture without a mask: left out": ["train/images/000.png"],
        "mask that cannot be read: left out": ["train/images/001.png"],
        "mask of another size: left out": ["train/images/002.png"],
        "mask that is a colour picture, not one number per pixel: left out": ["train/images/003.png"],
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


def test_roboflow_and_a_single_file(tmp_path) -> None:
    source = write_coco(tmp_path / "source", count=12)
    (tmp_path / "one").mkdir()
    (source / "train2017").rename(tmp_path / "one" / "images")
    (source / "annotations" / "instances_train2017.json").rename(tmp_path / "one" / "labels.json")
    data, _ = load(tmp_path / "one")
    assert (len(data.train), len(data.val), len(data.test)) == (8, 2, 2)
    flow = tmp_path / "flow"
    (flow / "valid").mkdir(parents=True)
    (tmp_path / "one" / "images").rename(flow / "train")
    (tmp_path / "one" / "labels.json").rename(flow / "train" / "_annotations.coco.json")
    (source / "val2017").rename(flow / "valid")
    (source / "annotations" / "instances_val2017.json").rename(flow / "valid" / "_annotations.coco.json")
    data, _ = load(flow)
    assert (len(data.train), len(data.val)) == (12, 12)
    assert data.train.load(0).size == (WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("detection", "no layout for detection found; looked for annotations.*COCO.*VOC.*YOLO"),
        ("segmentation", "no layout for segmentation found; looked for .*ADE20K.*Cityscapes"),
        ("detections", "unknown task 'detections'.*detection"),
    ],
)
def test_nothing_there(tmp_path, task, words) -> None:
    with pytest.raises(ValueError, match=words):
        load(tmp_path, task)


def test_mistakes_of_whole_sets(tmp_path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        load(tmp_path / "nowhere")
    root = write_coco(tmp_path / "coco")
    path = root / "annotations" / "instances_train2017.json"
    whole = path.read_text()
    for text, words in (
        ("[", "cannot be read as JSON"),
        ("[]", "not COCO's"),
        (whole.replace("file_name", "f"), "lacks"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=words):
            load(root)
    path.write_text(whole)
    (root / "annotations" / "instances_train2014.json").write_text(whole)
    with pytest.raises(ValueError, match=r"instances_train2014\.json and instances_train2017\.json are both for train"):
        load(root)
    (root / "annotations" / "instances_train2014.json").unlink()
    (root / "train2017").rename(root / "elsewhere")
    with pytest.raises(ValueError, match="none of its first pictures"):
        load(root)
    yolo = write_yolo(tmp_path / "yolo")
    (yolo / "data.yaml").unlink()
    with pytest.raises(ValueError, match=r"write them into classes\.txt"):
        load(yolo)
    (yolo / "classes.txt").write_text("red\ngreen\n")
    assert load(yolo)[0].classes == ["red", "green"]


def test_unchecked_sets_trust_what_is_inside(tmp_path) -> None:
    root = write_coco(tmp_path)
    path = root / "train2017" / "003.png"
    path.write_bytes(path.read_bytes()[:-40])
    assert len(load(root, check=False)[0].train) == 6
    assert len(load(root)[0].train) == 5


def test_a_missing_package_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pycocotools.mask", None)
    monkeypatch.delattr("pycocotools.mask")
    assert len(load(write_coco(tmp_path))[0].train) == 6
    with pytest.raises(ValueError, match=r"pip install 'tokenmix\[detection\]'"):
        load(tmp_path, "instances")


def test_polygons_alone_give_boxes(tmp_path) -> None:
    content = write_coco(tmp_path) / "annotations" / "instances_train2017.json"
    values = json.loads(content.read_text())
    for entry in values["annotations"]:
        del entry["bbox"], entry["area"]
    content.write_text(json.dumps(values))
    data, _ = load(tmp_path)
    assert data.train.target(0)["boxes"].tolist() == [list(map(float, box)) for box in rectangles(0)]
    assert polygon((0, 0, 1, 1)) == [0, 0, 1, 0, 1, 1, 0, 1]
