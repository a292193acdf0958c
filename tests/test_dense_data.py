"""Every layout gives the same objects, and what is wrong with one is named, not met in training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from tests.dense_toys import (
    HEIGHT,
    WIDTH,
    picture,
    polygon,
    rectangles,
    write_coco,
    write_voc,
    write_yolo,
)
from tokenmix.sources import load_data
from tokenmix.tasks.dense.crops import LEAST_PX, object_crops
from tokenmix.tasks.dense.sets import ObjectSet


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


def run_length_codes(values: np.ndarray) -> list[dict]:
    """The mask as a list of counts, and as COCO's tools write it."""
    changes = np.flatnonzero(np.diff(np.concatenate(([0], values.T.flatten(), [2]))))
    counts = np.diff(np.concatenate(([0], changes))).tolist()
    code = coco_mask.encode(np.asfortranarray(values))["counts"].decode()
    return [{"size": [*values.shape], "counts": counts}, {"size": [*values.shape], "counts": code}]


def test_run_length_codes_and_crowds(tmp_path) -> None:
    values = np.random.default_rng(0).integers(0, 2, (HEIGHT, WIDTH), dtype=np.uint8)
    shapes = run_length_codes(values)
    entries = [annotation(segmentation=shape, iscrowd=crowd, area=7.5) for crowd, shape in enumerate(shapes)]
    data, _ = load(write_coco(tmp_path, more={"annotations": entries}), "instances")
    target = data.train.target(0)
    assert target["iscrowd"].tolist() == [0, 0, 0, 1]
    assert target["area"].tolist()[2:] == [7.5, 7.5]
    for drawn in target["masks"][2:]:
        assert np.array_equal(drawn.numpy(), values)


@pytest.mark.parametrize("task", ["detection", "instances"])
def test_run_length_codes_say_box_and_area_that_lack(tmp_path, task) -> None:
    """The mask's, by COCO's tools; also of a code whose numbers are floats or texts."""
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    values[3:9, 4], values[3, 4:20] = 1, 1
    shapes = run_length_codes(values)
    shapes[0] = {
        "size": [float(HEIGHT), str(WIDTH)],
        "counts": [str(shapes[0]["counts"][0]), *map(float, shapes[0]["counts"][1:])],
    }
    entries = [annotation(segmentation=shape, bbox=None) for shape in shapes]
    entries += [annotation(segmentation=shape, area=area) for shape in shapes for area in (0, None)]
    for number, entry in enumerate(entries):
        entry["id"] += number
    data, _ = load(write_coco(tmp_path, more={"annotations": entries}), task)
    assert not data.problems
    target = data.train.target(0)
    assert target["boxes"][2:4].tolist() == [[4, 3, 20, 9]] * 2
    assert target["boxes"][4:].tolist() == [[1, 1, 6, 6]] * 4
    assert target["area"][2:].tolist() == [float(values.sum())] * 6
    for drawn in target["masks"][2:] if task == "instances" else ():
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
    "mask that does not fill its size: left out": {"size": [HEIGHT, WIDTH], "counts": [5, 100000]},
    "mask that cannot be read: left out": {"size": [HEIGHT, WIDTH], "counts": "a name"},
}


@pytest.mark.parametrize("kind", BAD_MASKS)
def test_bad_masks_are_named(tmp_path, kind) -> None:
    root = write_coco(tmp_path, more={"annotations": [annotation(segmentation=BAD_MASKS[kind])]})
    data, _ = load(root, "instances")
    assert list(data.problems.found) == [kind]
    assert len(data.train.target(0)["masks"]) == 2


NONSENSE = [
    "text",
    7,
    [],
    {},
    [1, 2, 3],
    [["a"] * 6],
    [[1, 2, 3, 4, 5, float("inf")]],
    {"size": 5},
    None,
    [None] * 4,
    float("nan"),
]
NONSENSE += [{"size": [HEIGHT, WIDTH], "counts": counts} for counts in ([-1, 5], ["x"], "\u00e9", "zz", {}, [2**70])]


@pytest.mark.parametrize("field", ["bbox", "segmentation", "area", "iscrowd"])
def test_nonsense_never_breaks_loading(tmp_path, field) -> None:
    good = {"segmentation": [polygon((1, 1, 6, 6))]}
    entries = [annotation(**{**good, field: value}) for value in NONSENSE]
    root = write_coco(tmp_path, more={"annotations": entries})
    for task in ("detection", "instances"):
        data, _ = load(root, task)
        target = data.train.target(0)
        assert target["boxes"].isfinite().all()
        assert target["area"].isfinite().all()
        if field in ("bbox", "segmentation") and task == "instances":
            assert len(target["boxes"]) < 2 + len(entries)
            assert data.problems


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
        "line that is no object: left out": [f"labels/train/000.txt line {n}" for n in (3, 4, 6)],
        "object of an unknown class: left out": ["images/train/000.png line 5"],
        "picture without a label file: read as one without objects": ["images/train/001.png"],
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
        ("detection", "no layout for detection found among 0 pictures; expected .*COCO.*VOC.*YOLO"),
        ("segmentation", "no layout for segmentation found among 0 pictures; expected .*ADE20K.*Cityscapes"),
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
    with pytest.raises(ValueError, match=r"train2014\.json and annotations/instances_train2017\.json are both"):
        load(root)
    (root / "annotations" / "instances_train2014.json").unlink()
    (root / "train2017").rename(root / "elsewhere")
    assert len(load(root)[0].train) == 6  # found by their names
    (root / "elsewhere").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="none of its pictures"):
        load(root)
    yolo = write_yolo(tmp_path / "yolo")
    (yolo / "data.yaml").unlink()
    with pytest.raises(ValueError, match=r"write them into classes\.txt"):
        load(yolo)
    (yolo / "classes.txt").write_text("red\ngreen\n")
    assert load(yolo)[0].classes == ["red", "green"]


def test_cut_outs_of_objects_need_no_masks(tmp_path, monkeypatch) -> None:
    data, _ = load(write_coco(tmp_path), "instances")
    monkeypatch.delattr(ObjectSet, "target")  # which would draw them
    boxes = [box for seed in range(6) for box in rectangles(seed)]
    large = [box for box in boxes if min(box[2] - box[0], box[3] - box[1]) >= LEAST_PX]
    assert len(object_crops(data).train) == len(large) > 0


def test_crowds_alone_are_nothing_to_learn_from(tmp_path) -> None:
    path = write_coco(tmp_path) / "annotations" / "instances_train2017.json"
    path.write_text(path.read_text().replace('"iscrowd": 0', '"iscrowd": 1'))
    with pytest.raises(ValueError, match="all 12 usable objects are crowds in its 6 training pictures"):
        load(tmp_path)


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
