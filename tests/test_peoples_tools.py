"""What annotation tools write beside boxes and polygons, and what stands in lists: read, or named with the reason."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin

from tests.folders_of_people import BOX, HEIGHT, WIDTH, coco, picture, yolo_line
from tokenmix.data.identity import DataIdentity
from tokenmix.data.inventory import OTHER
from tokenmix.sources import load_data
from tokenmix.tasks import find_task
from tokenmix.tasks.dense.checks import TURNED
from tokenmix.tasks.dense.judged import open_judged_folder
from tokenmix.tasks.dense.pairing import Pairing
from tokenmix.tasks.detection.predictions import write_detections

LEFT, TOP, RIGHT, BOTTOM = BOX[0], BOX[1], BOX[0] + BOX[2], BOX[1] + BOX[3]
CORNERS = [[LEFT, TOP], [RIGHT, TOP], [RIGHT, BOTTOM], [LEFT, BOTTOM]]


def load(root: Path, task: str = "detection", log: Callable[[str], None] = lambda line: None) -> Any:
    return load_data(root, task=task, log=log)


def pictures(root: Path, folder: str = "pictures", count: int = 4) -> Path:
    for number in range(count):
        picture(root / folder / f"{number}.jpg", seed=number)
    return root


def boxes(data: Any) -> list[list[int]]:
    """Of the first training picture, rounded."""
    return [[round(value) for value in box] for box in data.train.target(0)["boxes"].tolist()]


# ----------------------------------------------------------------------------------------------------- tools' shapes


def test_label_studios_own_json(tmp_path: Path) -> None:
    percent = {"x": 100 * LEFT / WIDTH, "y": 100 * TOP / HEIGHT, "width": 100 * BOX[2] / WIDTH}
    percent["height"] = 100 * BOX[3] / HEIGHT
    outline = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in CORNERS]
    sides = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    results = [
        {"type": "rectanglelabels", "value": {**percent, "rotation": 0, "rectanglelabels": ["red"]}, **sides},
        {"type": "polygonlabels", "value": {"points": outline, "polygonlabels": ["green"]}, **sides},
        {"type": "keypointlabels", "value": {"x": 1, "y": 1, "keypointlabels": ["red"]}, **sides},
    ]
    places = ["/data/upload/1/0.jpg", "/data/local-files/?d=pictures/1.jpg", "s3://bucket/2.jpg", "3.jpg"]
    tasks = [
        {"id": n, "data": {"image": place}, "annotations": [{"result": results}]} for n, place in enumerate(places)
    ]
    (pictures(tmp_path) / "project-1.json").write_text(json.dumps(tasks))
    data = load(tmp_path)
    assert data.classes == ["green", "red"]
    assert boxes(data) == [[LEFT, TOP, RIGHT, BOTTOM]] * 2
    assert len(data.problems.found["shape that is neither box nor polygon (keypointlabels): left out"]) == 4


def test_other_shapes_of_labelme_are_named(tmp_path: Path) -> None:
    shapes = [{"label": "red", "points": CORNERS, "shape_type": "polygon"}]
    shapes.append({"label": "red", "points": [[5, 5], [9, 9]], "shape_type": "circle"})
    for number in range(4):
        path = pictures(tmp_path) / "pictures" / f"{number}.json"
        path.write_text(json.dumps({"shapes": shapes, "imagePath": f"{number}.jpg"}))
    found = load(tmp_path).problems.found
    assert found == {
        "shape that is neither box nor polygon (circle): left out": [f"pictures/{n}.jpg" for n in range(4)]
    }


def test_holes_of_supervisely_are_named(tmp_path: Path) -> None:
    hole = [[LEFT + 2, TOP + 2], [RIGHT - 2, TOP + 2], [RIGHT - 2, BOTTOM - 2]]
    points = [{"exterior": CORNERS, "interior": interior} for interior in ([], [hole])]
    objects = [{"classTitle": "red", "geometryType": "polygon", "points": outlines} for outlines in points]
    for number in range(4):
        path = pictures(tmp_path, "img") / "ann" / f"{number}.jpg.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"size": {"width": WIDTH, "height": HEIGHT}, "objects": objects}))
    found = load(tmp_path).problems.found
    assert found == {"polygon with holes (red): filled": [f"img/{n}.jpg" for n in range(4)]}


def test_the_attribute_of_via_that_is_the_class(tmp_path: Path) -> None:
    kind = {"name": "rect", "x": LEFT, "y": TOP, "width": BOX[2], "height": BOX[3]}

    def write(attributes: dict[str, Any]) -> Path:
        regions = [{"shape_attributes": kind, "region_attributes": attributes}]
        entries = {str(n): {"filename": f"{n}.jpg", "regions": regions} for n in range(4)}
        (pictures(tmp_path) / "via.json").write_text(json.dumps(entries))
        return tmp_path

    for attributes in ({"type": "red"}, {"colour": "dark", "class": "red"}, {"kind": {"red": True, "green": False}}):
        assert load(write(attributes)).classes == ["red"]
    with pytest.raises(ValueError, match=r"via\.json: .*attributes colour, size: call the one that is the class"):
        load(write({"colour": "dark", "size": "big"}))


def test_turned_boxes_of_cvat(tmp_path: Path) -> None:
    entry = f'<box label="red" xtl="{LEFT}" ytl="{TOP}" xbr="{RIGHT}" ybr="{BOTTOM}" rotation="90.0"/>'
    entry += '<mask label="red" rle="1,2"/><tag label="good"/>'
    images = "".join(f'<image name="{n}.jpg" width="{WIDTH}" height="{HEIGHT}">{entry}</image>' for n in range(4))
    (pictures(tmp_path) / "annotations.xml").write_text(f"<annotations>{images}</annotations>")
    data = load(tmp_path)
    middle, half = ((LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2), (BOX[3] / 2, BOX[2] / 2)
    turned = [middle[0] - half[0], middle[1] - half[1], middle[0] + half[0], middle[1] + half[1]]
    assert np.allclose(data.train.target(0)["boxes"].numpy(), [turned], atol=1e-3)
    assert list(data.problems.found) == ["shape that is neither box nor polygon (mask): left out"]


# ------------------------------------------------------------------------------------------------------------- YOLO


def yolo(root: Path, line: str = "", yaml: str = "") -> Path:
    for number in range(6):
        picture(root / "images" / "train" / f"{number}.jpg", seed=number)
        (root / "labels" / "train").mkdir(parents=True, exist_ok=True)
        (root / "labels" / "train" / f"{number}.txt").write_text(line or yolo_line())
    if yaml:
        (root / "data.yaml").write_text(yaml)
    return root


def test_what_data_yaml_says_of_a_test_part_is_told(tmp_path: Path) -> None:
    data = load(yolo(tmp_path, yaml="train: images/train\ntest: ../test/images\nnames: {'0': red}\nnc: '1'\n"))
    assert data.problems.found == {
        "part that data.yaml names and that is not there: left out": ["test: ../test/images"]
    }


@pytest.mark.parametrize(
    ("line", "yaml", "words"),
    [
        ("0 20 15 10 8", "names: [red]\n", "numbers beyond 8, which are no shares of the sides"),
        ("", "names: [red]\nnc: two\n", "says nc: two, but names 1"),
        ("", "names: {red: 0}\n", "a list, or numbered 0, 1, 2"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, line: str, yaml: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        load(yolo(tmp_path, line, f"train: images/train\n{yaml}"))


def test_an_empty_line_between_names_would_move_the_numbers(tmp_path: Path) -> None:
    root = yolo(tmp_path)
    (root / "classes.txt").write_text("red\n\ngreen\n")
    with pytest.raises(ValueError, match=r"classes.txt: line 2 is empty"):
        load(root)
    (root / "classes.txt").write_text("red\ngreen\n\n \n")
    assert load(root).classes == ["red", "green"]


@pytest.mark.parametrize("folder", ["labels/{part}", "dataset/{part}/labels"])
def test_a_picture_without_objects_takes_no_label_of_another_part(folder: str) -> None:
    """Numbered pictures of every part, of which one has no label file, since nothing is on it."""
    parts = ("train", "valid", "test")
    files = [f"{folder.format(part=part)}/{n:04}.txt" for part in parts for n in range(4) if (part, n) != ("train", 2)]
    pairing = Pairing(files)
    for part in parts:
        for n in range(4):
            own = f"{folder.format(part=part)}/{n:04}.txt"
            picture = own.replace("labels", "images").replace(".txt", ".jpg")
            assert pairing.of(picture) == (None if (part, n) == ("train", 2) else own)
    assert not pairing.doubts


def test_which_label_file_is_a_pictures_is_certain_or_told(tmp_path: Path) -> None:
    """Names that differ in the case of letters alone, two files for a picture, and one for two pictures."""
    root = yolo(tmp_path, yaml="train: images/train\nnames: [red, green]\n")
    labels = root / "labels" / "train"
    for name, number in (("Cat", 0), ("cat", 1)):
        picture(root / "images" / "train" / f"{name}.jpg", seed=50 + number)
        (labels / f"{name}.txt").write_text(yolo_line(number))
    data = load(root)
    read = {}
    for part in (data.train, data.val, data.test):
        read |= {Path(name).stem: part.target(row)["labels"].tolist() for row, name in enumerate(part.names)}
    assert (read["Cat"], read["cat"]) == ([1], [2])
    assert not data.problems.found
    (labels / "0.txt").unlink()
    for folder in ("first", "second"):
        (root / folder).mkdir()
        (root / folder / "0.txt").write_text(yolo_line())
    picture(root / "images" / "train" / "1.png", seed=60)
    found = load(root).problems.found
    assert found == {
        "picture with several label files of its name: first/0.txt is used": ["images/train/0.jpg"],
        "label file without a picture: not used": ["second/0.txt"],
        "picture with the label file of another, labels/train/1.txt: used for both": ["images/train/1.png"],
    }


# ------------------------------------------------------------------------------------------------- files and turns


def test_files_that_no_reader_asks_for_are_named(tmp_path: Path) -> None:
    root = yolo(tmp_path, yaml="train: images/train\nnames: [red]\n")
    for name in ("notes.json", "labels.zip", "README.dataset.txt", "labels.cache", "LICENSE"):
        (root / name).write_text("{}")
    data = load(root)
    assert data.unused == {OTHER: ["labels.zip", "notes.json"]}


def test_damaged_annotations_are_named_where_no_layout_is_found(tmp_path: Path) -> None:
    (pictures(tmp_path) / "result.json").write_text('{"images": [')
    with pytest.raises(ValueError, match=r"no layout for detection .*result\.json cannot be read: "):
        load(tmp_path)


def test_odd_marks_and_sizes_are_named(tmp_path: Path) -> None:
    def odd(content: dict[str, Any]) -> None:
        content["annotations"][0]["iscrowd"] = "perhaps"
        content["images"][1]["width"] = "wide"

    found = load(coco(tmp_path, {"train": 4, "val": 2}, train=odd)).problems.found
    file = "instances_train2017.json"
    assert found == {
        "iscrowd that is neither yes nor no: taken as no": [f"{file} annotation 0"],
        "claimed size that is no number: not compared": [f"{file} train1.png"],
    }


def _turned(path: Path, turn: int, how: str, size: tuple[int, int]) -> None:
    """A picture that its file says to turn, by EXIF in a JPEG, or by XMP in a PNG."""
    image = Image.new("RGB", size, "red")
    if how == "EXIF":
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = turn
        image.save(path, "JPEG", exif=exif)
        return
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", f"<x:xmpmeta><tiff:Orientation>{turn}</tiff:Orientation></x:xmpmeta>")
    image.save(path, "PNG", pnginfo=info)


@pytest.mark.parametrize("how", ["EXIF", "XMP"])
@pytest.mark.parametrize(
    ("turn", "stored", "kind"),
    [
        (6, (HEIGHT, WIDTH), ""),  # its size tells that the boxes are of the picture as it is shown
        (6, (WIDTH, HEIGHT), "picture of another size than its annotation says: left out"),
        (3, (WIDTH, HEIGHT), TURNED),
        (2, (WIDTH, HEIGHT), TURNED),
    ],
)
def test_sizes_are_compared_with_turned_pictures(
    tmp_path: Path, how: str, turn: int, stored: tuple[int, int], kind: str
) -> None:
    root = coco(tmp_path, {"train": 4, "val": 2})
    _turned(root / "train2017" / "train0.png", turn, how, stored)
    assert load(root).problems.found == ({kind: ["train2017/train0.png"]} if kind else {})


# ------------------------------------------------------------------------------------------- judged without training


def judged(root: Path, task: str = "detection") -> Any:
    loaded: Any = SimpleNamespace(classes=["green", "red"], data=None)
    return open_judged_folder(find_task(task), root, loaded, None, 0, lambda line: None)


def voc(root: Path) -> Path:
    sides = dict(xmin=LEFT + 1, ymin=TOP + 1, xmax=RIGHT, ymax=BOTTOM)
    box = "".join(f"<{name}>{value}</{name}>" for name, value in sides.items())
    for number in range(3):
        picture(root / "test" / f"{number}.jpg", seed=number)
        text = f"<annotation><object><name>red</name><bndbox>{box}</bndbox></object></annotation>"
        (root / "test" / f"{number}.xml").write_text(text)
    return root


def yolo_test(root: Path) -> Path:
    for number in range(3):
        picture(root / "test" / "images" / f"{number}.jpg", seed=number)
        (root / "test" / "labels").mkdir(parents=True, exist_ok=True)
        (root / "test" / "labels" / f"{number}.txt").write_text(yolo_line())
    (root / "classes.txt").write_text("red\n")
    return root


@pytest.mark.parametrize("write", [voc, yolo_test, lambda root: coco(root, {"test": 3}, names=["red"])])
def test_a_test_part_alone_is_judged_and_not_trained_on(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    """And one class alone, which is the model's second."""
    root = write(tmp_path)
    samples = judged(root).samples
    assert len(samples) == 3
    assert samples.target(0)["labels"].tolist() == [2]
    with pytest.raises(ValueError, match=r"no training pictures; as .* it has 3 test pictures"):
        load(root)


def test_results_have_the_ids_of_the_folders_own_file(tmp_path: Path) -> None:
    def renumber(content: dict[str, Any]) -> None:
        content["categories"] = [{"id": 9, "name": "red"}]
        for entry in content["annotations"]:
            entry["category_id"] = 9

    samples = judged(coco(tmp_path, {"test": 3}, names=["red"], test=renumber)).samples
    label = int(samples.target(0)["labels"][0])
    found = {0: [{"category_id": number, "bbox": list(BOX), "score": 0.5} for number in (label, 1)]}  # 1: green
    write_detections(tmp_path / "found.json", found, samples)
    assert [row["category_id"] for row in json.loads((tmp_path / "found.json").read_text())] == [9, 10]


def test_a_run_without_test_pictures_is_judged_by_its_validation(tmp_path: Path) -> None:
    """As COCO is: what it has learnt from is left out, and the reason is said."""
    root, lines = coco(tmp_path, {"train": 4, "val": 2}), list[str]()
    learnt = DataIdentity.of(load(root)).brief()
    loaded: Any = SimpleNamespace(classes=["red", "green"], data=learnt)
    found = open_judged_folder(find_task("detection"), root, loaded, None, 0, lines.append)
    assert sorted(found.samples.names) == ["val2017/val0.png", "val2017/val1.png"]
    assert lines == [
        f"{root}: the model's own data: their 2 validation samples, by which its best epoch was chosen, as there are no"
        " test samples"
    ]
    (root / "annotations" / "instances_val2017.json").unlink()
    with pytest.raises(ValueError, match="the model has learnt from all of it"):
        open_judged_folder(find_task("detection"), root, loaded, None, 0, lines.append)


@pytest.mark.parametrize(("task", "key"), [("detection", "boxes"), ("segmentation", "label")])
def test_pictures_without_answers_are_only_predicted(tmp_path: Path, task: str, key: str) -> None:
    found = judged(pictures(tmp_path), task)
    assert (len(found.samples), found.labelled) == (4, False)
    wanted = (0, 4) if key == "boxes" else (HEIGHT, WIDTH)
    assert tuple(found.samples.target(0)[key].shape) == wanted


# ------------------------------------------------------------------------------------------------- wrong values


def _set(content: Any, place: list[Any], value: Any) -> None:
    for step in place[:-1]:
        content = content[step]
    if value is None:
        del content[place[-1]]
    else:
        content[place[-1]] = value


LABELME = {"shapes": [{"label": "red", "points": CORNERS, "shape_type": "polygon"}] * 2, "imagePath": "0.jpg"}
VIA_BOX = {"name": "rect", "x": LEFT, "y": TOP, "width": BOX[2], "height": BOX[3]}
VIA = {"0": {"filename": "0.jpg", "regions": [{"shape_attributes": VIA_BOX, "region_attributes": {"class": "red"}}]}}
SUPERVISELY = {
    "size": {"width": WIDTH, "height": HEIGHT},
    "objects": [{"classTitle": "red", "geometryType": "polygon", "points": {"exterior": CORNERS, "interior": []}}],
}
RESULT = {
    "type": "rectanglelabels",
    "value": {"x": 10, "y": 10, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": ["red"]},
    "original_width": WIDTH,
    "original_height": HEIGHT,
}
STUDIO = [{"data": {"image": "0.jpg"}, "annotations": [{"result": [RESULT]}]}]


@pytest.mark.parametrize(
    ("file", "content", "place", "value", "words"),
    [
        ("0.json", LABELME, ["shapes", 1, "points", 2, 0], "x", "shapes[1], field 'points[2][0]': 'x' is no number"),
        ("0.json", LABELME, ["shapes", 1, "label"], None, "shapes[1] lacks 'label'"),
        ("0.json", LABELME, ["shapes", 0, "points"], 7, "shapes[0], field 'points': it should be a valid list, not 7"),
        (
            "via.json",
            VIA,
            ["0", "regions", 0, "shape_attributes", "x"],
            [1],
            "0.jpg regions[0], field 'x': [1] is no number",
        ),
        ("via.json", VIA, ["0", "regions", 0, "shape_attributes", "name"], None, "0.jpg regions[0] lacks 'name'"),
        ("ann/0.jpg.json", SUPERVISELY, ["objects", 0, "classTitle"], None, "objects[0] lacks 'classTitle'"),
        (
            "ann/0.jpg.json",
            SUPERVISELY,
            ["objects", 0, "points", "exterior", 1, 1],
            "-",
            "objects[0].points, field 'exterior[1][1]': '-' is no number",
        ),
        (
            "project.json",
            STUDIO,
            [0, "annotations", 0, "result", 0, "value", "width"],
            "wide",
            "[0].annotations[0].result[0].value, field 'width': 'wide' is no number",
        ),
    ],
)
def test_a_wrong_value_is_told_with_its_entry_and_field(
    tmp_path: Path, file: str, content: Any, place: list[Any], value: Any, words: str
) -> None:
    content = json.loads(json.dumps(content))
    _set(content, place, value)
    path = pictures(tmp_path, "img" if "ann/" in file else ".") / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=re.escape(words)) as told:
        load(tmp_path)
    assert file in str(told.value)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (["images", 1, "id"], 1.5, "images[1], field 'id': 1.5 is no id"),
        (["images", 1, "file_name"], None, "images[1] lacks 'file_name'"),
        (["annotations", 2, "category_id"], None, "annotations[2] lacks 'category_id'"),
        (["categories", 0, "name"], ["red"], "categories[0], field 'name': it should be a valid string, not ['red']"),
        (["images", 1], 5, "images[1]: it should be a valid dictionary"),
    ],
)
def test_a_wrong_entry_of_coco_is_told_with_its_field(tmp_path: Path, place: list[Any], value: Any, words: str) -> None:
    root = coco(tmp_path, {"train": 4, "val": 2}, train=lambda content: _set(content, place, value))
    with pytest.raises(ValueError, match=r"instances_train2017\.json: " + re.escape(words)):
        load(root)


def test_a_wrong_value_of_cvat_is_told_with_its_entry(tmp_path: Path) -> None:
    entry = f'<box label="red" xtl="{LEFT}" ytl="" xbr="{RIGHT}" ybr="{BOTTOM}"/>'
    (pictures(tmp_path) / "annotations.xml").write_text(
        f'<annotations><image name="0.jpg">{entry}</image></annotations>'
    )
    with pytest.raises(ValueError, match=r"0\.jpg box\[0\], field 'ytl': '' is no number"):
        load(tmp_path)


@pytest.mark.parametrize(
    "content", [{"objects": ["x"], "size": {}}, {"shapes": [None]}, {"a": {"filename": "a.png", "regions": [7]}}]
)
def test_an_entry_that_is_none_is_told_in_the_files_own_words(tmp_path: Path, content: Any) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"a\.json: .*\[0\].*should be a valid dictionary, not"):
        load_data(tmp_path, task="detection", log=lambda line: None)
