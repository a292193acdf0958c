"""Folders with objects and masks as people have them: read rightly, or refused with the reason."""

from __future__ import annotations

import codecs
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.folders_of_people import BOX, COLOURS, HEIGHT, WIDTH, coco, outline, picture, yolo_line
from tokenmix.cli import main
from tokenmix.sources import load_data, recognise

LEFT, TOP, RIGHT, BOTTOM = BOX[0], BOX[1], BOX[0] + BOX[2], BOX[1] + BOX[3]
SQUARE = torch.tensor([[LEFT, TOP, RIGHT, BOTTOM]], dtype=torch.float32)


def load(root: Path, task: str = "detection", log: Callable[[str], None] = lambda line: None) -> Any:
    return load_data(root, task=task, log=log)


def is_the_box(target: dict[str, Any], label: int) -> bool:
    return target["labels"].tolist() == [label] and torch.allclose(target["boxes"], SQUARE, atol=1e-3)


# ------------------------------------------------------------------------------------------------------------- COCO


def test_each_file_of_coco_has_its_own_numbers(tmp_path: Path) -> None:
    def other(content: dict[str, Any]) -> None:
        content["categories"] = [{"id": 7, "name": "green"}, {"id": 9, "name": "red"}]
        for entry in content["annotations"]:
            entry["category_id"] = 9 if entry["category_id"] == 1 else 7

    data = load(coco(tmp_path / "other", {"train": 4, "val": 2}, val=other))
    assert data.classes == ["red", "green"]
    assert is_the_box(data.val.target(0), 1)
    assert is_the_box(data.val.target(1), 2)

    def strange(content: dict[str, Any]) -> None:
        content["categories"][1]["name"] = "violet"

    with pytest.raises(ValueError, match=r"instances_val2017\.json: has objects of 'violet'"):
        load(coco(tmp_path / "strange", {"train": 4, "val": 2}, val=strange))


SPELLINGS: dict[str, Callable[[dict[str, Any]], None]] = {
    "ids as texts": lambda c: [entry.update(image_id=str(entry["image_id"])) for entry in c["annotations"]] and None,
    "classes as floats": lambda c: [e.update(category_id=float(e["category_id"])) for e in c["annotations"]] and None,
    "coordinates as texts": lambda c: [e.update(bbox=[str(v) for v in e["bbox"]]) for e in c["annotations"]] and None,
    "crowd as a text": lambda c: [entry.update(iscrowd="0") for entry in c["annotations"]] and None,
    "no crowd": lambda c: [entry.pop("iscrowd") for entry in c["annotations"]] and None,
    "sizes as floats": lambda c: [e.update(width=float(WIDTH), height=str(HEIGHT)) for e in c["images"]] and None,
    "areas of 0": lambda c: [entry.update(area=0) for entry in c["annotations"]] and None,
    "a flat polygon": lambda c: [entry.update(segmentation=outline()) for entry in c["annotations"]] and None,
    "a part of two points": lambda c: [e["segmentation"].append([1, 2, 3, 4]) for e in c["annotations"]] and None,
    "backslashes": lambda c: [entry.update(file_name=".\\" + entry["file_name"]) for entry in c["images"]] and None,
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_harmless_spellings_read_the_same(tmp_path: Path, name: str) -> None:
    data = load(coco(tmp_path, {"train": 4, "val": 2}, train=SPELLINGS[name]), "instances")
    target = data.train.target(0)
    assert is_the_box(target, 1)
    assert int(target["masks"].sum()) == int(target["area"]) == BOX[2] * BOX[3]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.sets(st.sampled_from(sorted(SPELLINGS)), max_size=4))
def test_harmless_spellings_go_together(tmp_path_factory: pytest.TempPathFactory, names: set[str]) -> None:
    def change(content: dict[str, Any]) -> None:
        for name in sorted(names):
            if {"a flat polygon", "a part of two points"} <= names and name == "a part of two points":
                continue
            SPELLINGS[name](content)

    root = coco(tmp_path_factory.mktemp("coco"), {"train": 3, "val": 1}, train=change)
    assert is_the_box(load(root, "instances").train.target(0), 1)


def _twice(content: dict[str, Any]) -> None:
    content["categories"].append({"id": 1, "name": "another"})


def _no_number(content: dict[str, Any]) -> None:
    content["categories"][0]["id"] = 1.5


@pytest.mark.parametrize(
    ("change", "words"), [(_twice, "id 1 is that of the classes"), (_no_number, r"categories\[0\], field 'id'")]
)
def test_what_may_mean_two_things_is_refused(tmp_path: Path, change: Any, words: str) -> None:
    with pytest.raises(ValueError, match=f"instances_train2017.json: .*{words}"):
        load(coco(tmp_path, {"train": 3, "val": 1}, train=change))


def test_a_part_of_the_pictures_is_enough(tmp_path: Path) -> None:
    root, lines = coco(tmp_path, {"train": 60, "val": 2}), []
    for path in sorted((root / "train2017").iterdir())[:54]:
        path.unlink()
    data = load(root, log=lines.append)
    assert len(data.train) == 6
    assert any("54 x picture missing: left out" in line for line in lines)
    assert any("only 6 of 60 objects" in line for line in lines)


def test_pictures_of_two_parts_are_told(tmp_path: Path) -> None:
    lines: list[str] = []
    root = tmp_path
    for number in range(4):
        picture(root / "images" / "all" / f"{number}.jpg", seed=number)
        (root / "labels" / "all").mkdir(parents=True, exist_ok=True)
        (root / "labels" / "all" / f"{number}.txt").write_text(yolo_line())
    (root / "data.yaml").write_text("train: images/all\nval: images/all\nnames: [red]\n")
    load(root, log=lines.append)
    assert any("4 of 4 val pictures are train pictures too" in line for line in lines)


# ------------------------------------------------------------------------------------------------------------- YOLO


def yolo(root: Path, place: str = "images/train", labels: str = "labels/train", count: int = 6) -> Path:
    for number in range(count):
        picture(root / place / f"{number:03d}.jpg", ("red", "green")[number % 2], seed=number)
        (root / labels).mkdir(parents=True, exist_ok=True)
        (root / labels / f"{number:03d}.txt").write_text(yolo_line(number % 2))
    (root / "classes.txt").write_text("red\ngreen\n")
    return root


@pytest.mark.parametrize(
    ("place", "labels"),
    [
        ("images/train", "labels/train"),
        ("train/images", "train/labels"),
        ("images", "labels"),
        ("train", "train"),
        (".", "."),
        ("data/obj_train_data", "data/obj_train_data"),
    ],
)
def test_label_files_are_found_by_their_names(tmp_path: Path, place: str, labels: str) -> None:
    data = load(yolo(tmp_path, place, labels))
    found = {name: split.target(row) for split in (data.train, data.val) for row, name in enumerate(split.names)}
    assert all(is_the_box(target, int(Path(name).stem) % 2 + 1) for name, target in found.items())


def test_notes_in_json_are_no_annotations(tmp_path: Path) -> None:
    root = yolo(tmp_path, "images", "labels")
    (root / "notes.json").write_text(
        '{"categories": [{"id": 0, "name": "red"}], "info": {"contributor": "Label Studio"}}'
    )
    assert load(root).classes == ["red", "green"]


def test_key_points_behind_a_box_are_no_polygon(tmp_path: Path) -> None:
    root = yolo(tmp_path)
    for path in (root / "labels" / "train").iterdir():
        path.write_text(f"{yolo_line()} 0.1 0.1 0.9 0.9\n")
    (root / "data.yaml").write_text("train: images/train\nkpt_shape: [2, 2]\nnames: {0: red}\n")
    assert is_the_box(load(root).train.target(0), 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: images/train\nval: images/vall\nnames: [red, green]\n", "data.yaml says val: images/vall"),
        ("train: images/train\nnc: 3\nnames: [red, green]\n", "says nc: 3, but names 2"),
        ("train: images/train\nnames: [[red], green]\n", "a list of its own"),
    ],
)
def test_what_data_yaml_states_is_honoured_or_quoted(tmp_path: Path, text: str, words: str) -> None:
    (yolo(tmp_path) / "data.yaml").write_text(text)
    with pytest.raises(ValueError, match=words):
        load(tmp_path)


def test_parts_may_be_lists_and_numbers_may_have_gaps(tmp_path: Path) -> None:
    root = yolo(tmp_path)
    yolo(root, "images/more", "labels/more", 2)
    for path in (root / "labels").rglob("*.txt"):
        path.write_text(
            path.read_text().replace("1 ", "7 ", 1) if path.read_text().startswith("1 ") else path.read_text()
        )
    (root / "mine.txt").write_text("./images/train/000.jpg\n/home/me/set/images/train/001.jpg\n\n")
    text = "train: [images/train, images/more]\nval: mine.txt\nnames: {0: red, 7: green}\n"
    (root / "data.yaml").write_text(text)
    data = load(root)
    assert (len(data.train), len(data.val), data.classes) == (8, 2, ["red", "green"])
    assert is_the_box(data.val.target(1), 2)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "ascii"])
def test_marks_and_encodings_of_label_files(tmp_path: Path, encoding: str) -> None:
    root = yolo(tmp_path)
    for path in (root / "labels" / "train").iterdir():
        path.write_bytes(codecs.encode(path.read_text() + "\r\n", encoding))
    data = load(root)
    assert is_the_box(data.train.target(0), int(Path(data.train.names[0]).stem) % 2 + 1)


def test_no_label_file_at_all_is_an_error(tmp_path: Path) -> None:
    root = yolo(tmp_path)
    (root / "data.yaml").write_text("train: images/train\nnames: [red, green]\n")
    shutil.rmtree(root / "labels")
    with pytest.raises(ValueError, match="no label file for any of its 6 pictures"):
        load(root)


# -------------------------------------------------------------------------------------------------------------- VOC


def voc(
    root: Path, xml: str = "Annotations", pictures: str = "JPEGImages", size: tuple[int, int] = (WIDTH, HEIGHT)
) -> Path:
    for number in range(6):
        picture(root / pictures / f"a {number}.jpg", seed=number)
        path = root / xml / f"a {number}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        sides = "".join(
            f"<{name}>{value}</{name}>"
            for name, value in zip(("xmin", "ymin", "xmax", "ymax"), (LEFT + 1, TOP + 1, RIGHT, BOTTOM), strict=True)
        )
        path.write_text(
            f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size><object><name>red</name>"
            f"<difficult>False</difficult><bndbox>{sides}</bndbox></object></annotation>"
        )
    return root


@pytest.mark.parametrize(
    ("xml", "pictures"),
    [("Annotations", "JPEGImages"), ("annotations", "images"), ("ANNOTATIONS/xmls", "Images"), ("all", "all")],
)
def test_xml_files_are_found_by_their_names(tmp_path: Path, xml: str, pictures: str) -> None:
    assert is_the_box(load(voc(tmp_path, xml, pictures)).train.target(0), 1)


@pytest.mark.parametrize("line", ["a {}", "a {}.jpg", "JPEGImages/a {}.jpg", "a {} 1"])
def test_lists_name_pictures_in_many_ways(tmp_path: Path, line: str) -> None:
    root = voc(tmp_path)
    folder = root / "ImageSets" / "Main"
    folder.mkdir(parents=True)
    (folder / "train.txt").write_text("\n".join(line.format(number) for number in range(4)))
    (folder / "val.txt").write_text("\n".join(line.format(number) for number in (4, 5)))
    data = load(root)
    assert (len(data.train), len(data.val)) == (4, 2)


def test_boxes_of_a_picture_that_was_turned_since(tmp_path: Path) -> None:
    lines: list[str] = []
    root = voc(tmp_path, size=(HEIGHT, WIDTH))
    with pytest.raises(ValueError, match="another size than its annotation says"):
        load(root, log=lines.append)


# ------------------------------------------------------------------------------------------------------------ masks


def masks(root: Path, values: tuple[int, ...] = (0, 1), *, suffix: str = ".png", place: str = "masks") -> Path:
    for number in range(6):
        picture(root / "images" / f"{number}.jpg", seed=number)
        label = np.full((HEIGHT, WIDTH), values[0], np.uint8)
        for part, value in enumerate(values[1:]):
            label[TOP + part * 3 :, LEFT:RIGHT] = value
        (root / place).mkdir(parents=True, exist_ok=True)
        Image.fromarray(label).save(root / place / f"{number}{suffix}", quality=70)
    return root


def test_masks_are_numbers_of_classes_or_black_and_white(tmp_path: Path) -> None:
    assert load(masks(tmp_path / "numbers", (0, 1, 2)), "segmentation").classes == ["0", "1", "2"]
    assert load(masks(tmp_path / "white", (0, 255)), "segmentation").classes == ["background", "object"]
    for values in ((0, 128, 255), (0, 60, 120, 180, 240), (0, 2, 5, 250, 253, 255)):  # the last are a JPEG's rings
        with pytest.raises(ValueError, match=r"look like grey levels.*save the number"):
            load(masks(tmp_path / str(len(values)), values), "segmentation")


def test_masks_in_jpeg_are_read_by_threshold_or_refused(tmp_path: Path) -> None:
    lines: list[str] = []
    data = load(masks(tmp_path / "two", (0, 255), suffix=".jpg"), "segmentation", lines.append)
    assert set(data.train.target(0)["label"].unique().tolist()) == {0, 1}
    assert any("JPEG" in line for line in lines)
    with pytest.raises(ValueError, match="save them as PNG"):
        load(masks(tmp_path / "more", (0, 90, 180), suffix=".jpg"), "segmentation")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:250,50,83::\nlane:51,221,255::\n"),
        ("class_dict.csv", "name,r,g,b\nbackground,0,0,0\nroad,250,50,83\nlane,51,221,255\n"),
        ("label_colors.txt", "0 0 0\tbackground\n250 50 83\troad\n51 221 255\tlane\n"),
    ],
)
def test_colours_need_their_map(tmp_path: Path, name: str, text: str) -> None:
    root = masks(tmp_path, (0, 1, 2))
    colours = np.array([(0, 0, 0), (250, 50, 83), (51, 221, 255)], np.uint8)
    for path in (root / "masks").iterdir():
        Image.fromarray(colours[np.asarray(Image.open(path))]).save(path)
    with pytest.raises(ValueError, match=r"pictures in colour.*labelmap.txt"):
        load(root, "segmentation")
    (root / name).write_text(text)
    data = load(root, "segmentation")
    assert data.classes == ["background", "road", "lane"]
    assert data.train.target(0)["label"].unique().tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("pictures", "labels", "end"),
    [("train", "trainannot", ""), ("train/images", "train/labels", ""), ("x", "x", "_mask"), ("imgs", "gt", "_gt")],
)
def test_masks_are_found_by_their_names(tmp_path: Path, pictures: str, labels: str, end: str) -> None:
    root = masks(tmp_path / "source", (0, 1, 2))
    for path in (root / "images").iterdir():
        target = tmp_path / "set" / pictures / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        target = tmp_path / "set" / labels / f"{path.stem}{end}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / "masks" / f"{path.stem}.png", target)
    data = load(tmp_path / "set", "segmentation")
    assert len(data.train) + len(data.val) + len(data.test) == 6


# ------------------------------------------------------------------------------------------------- whole folders


def test_a_folder_that_can_be_read_in_two_ways_shows_both(tmp_path: Path) -> None:
    root = voc(yolo(tmp_path, "JPEGImages", "JPEGImages"))
    for number in range(6):
        (root / "JPEGImages" / f"a {number}.txt").write_text(yolo_line())
    with pytest.raises(ValueError, match=r"read in 2 ways: as VOC's XML .* and YOLO's text files"):
        load(root)


def test_what_is_there_instead_is_shown(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"among 6 pictures and files in .txt, .xml|it looks like a set for"):
        load(voc(tmp_path), "segmentation")


def test_a_set_is_checked_as_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = coco(tmp_path / "coco", {"train": 4, "val": 2})
    assert recognise(root)[0].name == "detection"
    assert recognise(masks(tmp_path / "masks"))[0].name == "segmentation"
    assert main(["data", "check", str(root)]) == 0
    assert "COCO's JSON" in capsys.readouterr().out
    assert COLOURS.keys() >= {"red", "green"}


# ------------------------------------------------------------------------------------------- tools' own files


def _labelme(number: int) -> dict[str, Any]:
    corners = [[LEFT, TOP], [RIGHT, BOTTOM]]
    shape = {"label": "red", "points": corners, "shape_type": "rectangle"}
    return {"shapes": [shape], "imagePath": f"..\\pictures\\{number}.jpg", "imageWidth": WIDTH, "imageHeight": HEIGHT}


def _supervisely(number: int) -> dict[str, Any]:
    points = [outline()[row : row + 2] for row in range(0, 8, 2)]
    entry = {"classTitle": "red", "geometryType": "polygon", "points": {"exterior": points, "interior": []}}
    return {"size": {"width": WIDTH, "height": HEIGHT}, "objects": [entry]}


def _via(number: int) -> dict[str, Any]:
    kind = {"name": "rect", "x": LEFT, "y": TOP, "width": BOX[2], "height": BOX[3]}
    regions = [{"shape_attributes": kind, "region_attributes": {"type": "red"}}]
    return {f"{number}.jpg123": {"filename": f"{number}.jpg", "size": 123, "regions": regions}}


@pytest.mark.parametrize("tool", ["labelme", "supervisely", "via", "cvat"])
def test_the_own_files_of_tools(tmp_path: Path, tool: str) -> None:
    for number in range(6):
        picture(tmp_path / ("img" if tool == "supervisely" else "pictures") / f"{number}.jpg", seed=number)
    if tool == "labelme":
        for number in range(6):
            (tmp_path / "pictures" / f"{number}.json").write_text(json.dumps(_labelme(number)))
    elif tool == "supervisely":
        (tmp_path / "ann").mkdir()
        for number in range(6):
            (tmp_path / "ann" / f"{number}.jpg.json").write_text(json.dumps(_supervisely(number)))
    elif tool == "via":
        content = {key: entry for number in range(6) for key, entry in _via(number).items()}
        (tmp_path / "via.json").write_text(json.dumps({"_via_img_metadata": content}))
    else:
        images = "".join(
            f'<image id="{n}" name="pictures/{n}.jpg" width="{WIDTH}" height="{HEIGHT}"><box label="red" xtl="{LEFT}" '
            f'ytl="{TOP}" xbr="{RIGHT}" ybr="{BOTTOM}"/></image>'
            for n in range(6)
        )
        (tmp_path / "annotations.xml").write_text(f"<annotations><version>1.1</version>{images}</annotations>")
    for task in ("detection", "instances"):
        data = load(tmp_path, task)
        assert data.classes == ["red"]
        assert len(data.train) + len(data.val) + len(data.test) == 6
        assert is_the_box(data.train.target(0), 1)
