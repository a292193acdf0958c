"""Further spellings of layouts that people have: each was once wrong in silence, or refused for no reason."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.folders_of_people import BOX, HEIGHT, WIDTH, classes, coco, picture, yolo_line
from tokenmix.data.inventory import take_inventory
from tokenmix.sources import load_data
from tokenmix.tasks.dense.class_maps import read_class_map

LEFT, TOP, RIGHT, BOTTOM = BOX[0], BOX[1], BOX[0] + BOX[2], BOX[1] + BOX[3]
CORNERS = [LEFT, TOP, RIGHT, BOTTOM]


def load(root: Path, task: str = "detection", log: Callable[[str], None] = lambda line: None) -> Any:
    return load_data(root, task=task, log=log)


def boxes(data: Any) -> list[list[int]]:
    """Those of all pictures, rounded."""
    parts = [data.train, data.val] + ([data.test] if data.test is not data.val else [])
    return [
        [round(value) for value in box]
        for part in parts
        for row in range(len(part))
        for box in part.target(row)["boxes"].tolist()
    ]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def yolo(root: Path, pictures: str, labels: str, count: int = 6, *, name: str = "{}", begin: int = 0) -> Path:
    for number in range(begin, begin + count):
        file = name.format(number)
        picture(root / pictures / f"{file}.jpg", seed=number)
        write(root / labels / f"{file}.txt", yolo_line(number % 2))
    return root


def masks(root: Path, folder: str = "masks", end: str = "", *, values: tuple[int, ...] = (0, 1, 2)) -> Path:
    """Pictures in ``images`` and masks of these values."""
    for number in range(6):
        picture(root / "images" / f"{number}.jpg", seed=number)
        label = np.full((HEIGHT, WIDTH), values[0], np.uint8)
        for place, value in enumerate(values[1:]):
            label[TOP + 4 * place : BOTTOM, LEFT:RIGHT] = value
        (root / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(label).save(root / folder / f"{number}{end}.png")
    return root


# ---------------------------------------------------------------------------------- names in two forms of Unicode


def apart(root: Path) -> None:
    """Give the pictures below a folder names whose accents are characters of their own, as macOS does."""
    for path in [path for path in root.rglob("*") if path.suffix in (".jpg", ".png")]:
        path.rename(path.with_name(unicodedata.normalize("NFD", path.name)))


def test_names_in_lists_are_found_in_either_form(tmp_path: Path) -> None:
    def composed(content: dict[str, Any]) -> None:
        for entry in content["images"]:
            entry["file_name"] = f"é{entry['file_name']}"

    root = coco(tmp_path / "coco", {"train": 4, "val": 2}, train=composed)
    for path in list((root / "train2017").iterdir()):
        path.rename(path.with_name(f"é{path.name}"))
    apart(root)
    assert boxes(load(root)) == [CORNERS] * 6
    root = yolo(tmp_path / "yolo", "images", "labels", name="é{}")
    write(root / "classes.txt", "red\ngreen\n")
    for part, numbers in (("train", range(4)), ("val", range(4, 6))):
        write(root / f"{part}.txt", "".join(f"images/é{number}.jpg\n" for number in numbers))
    apart(root)
    assert boxes(load(root)) == [CORNERS] * 6
    root = tmp_path / "labelme"
    for number in range(4):
        picture(root / "set" / f"é{number}.jpg", seed=number)
        shape = {"label": "red", "points": [[LEFT, TOP], [RIGHT, BOTTOM]], "shape_type": "rectangle"}
        write(root / "set" / f"{number}.json", json.dumps({"shapes": [shape], "imagePath": f"é{number}.jpg"}))
    apart(root)
    assert boxes(load(root)) == [CORNERS] * 4


# -------------------------------------------------------------------------------------- where things are said to be


@pytest.mark.parametrize("place", ["/content/drive/MyDrive/set", "C:\\Users\\me\\set"])
def test_paths_of_another_machine_are_read_by_their_ends(tmp_path: Path, place: str) -> None:
    lines: list[str] = []
    root = yolo(yolo(tmp_path, "images/train", "labels/train"), "images/val", "labels/val", 2, begin=6)
    sign = "\\" if "\\" in place else "/"
    parts = "".join(f"{part}: {place}{sign}images{sign}{part}\n" for part in ("train", "val"))
    write(root / "data.yaml", f"path: {place}\n{parts}names: [red, green]\n")
    data = load(root, log=lines.append)
    assert (len(data.train), len(data.val)) == (6, 2)
    assert any("2 x path of data.yaml from another machine: its end is read here" in line for line in lines)
    write(root / "data.yaml", f"train: {place}{sign}pictures\nnames: [red, green]\n")
    with pytest.raises(ValueError, match="there is no such folder or list"):
        load(root)


def test_one_folder_around_everything_is_looked_through(tmp_path: Path) -> None:
    inner = yolo(tmp_path / "yolo" / "my set", "images/train", "labels/train")
    write(inner / "data.yaml", "train: images/train\nnames: [red, green]\n")
    assert len(load(tmp_path / "yolo").train) == 4
    write(tmp_path / "yolo" / "my set.zip", "PK")  # with what it was unpacked from
    data = load(tmp_path / "yolo")
    assert (data.name, len(data.train), sum(map(len, data.unused.values()))) == ("yolo", 4, 1)
    ade = tmp_path / "ade" / "ADEChallengeData2016"
    for part, numbers in (("training", range(4)), ("validation", range(4, 6))):
        for number in numbers:
            picture(ade / "images" / part / f"{number}.jpg", seed=number)
            (ade / "annotations" / part).mkdir(parents=True, exist_ok=True)
            label = np.zeros((HEIGHT, WIDTH), np.uint8)
            label[TOP:BOTTOM, LEFT:RIGHT] = 1
            Image.fromarray(label).save(ade / "annotations" / part / f"{number}.png")
    data = load(tmp_path / "ade", "segmentation")
    assert (len(data.classes), len(data.train), len(data.val)) == (150, 4, 2)
    assert data.train.target(0)["label"].unique().tolist() == [0, 255]


def test_parts_inside_of_the_folders_of_classes(tmp_path: Path) -> None:
    """What lies in ``cat/test`` is not learnt from."""
    data = load(classes(tmp_path, ("cat/train", "cat/test", "dog/train", "dog/test")), "classification")
    assert data.classes == ["cat", "dog"]
    assert {name.split("/")[1] for name in (*data.train.names, *data.val.names)} == {"train"}
    assert {name.split("/")[1] for name in data.test.names} == {"test"}


# ------------------------------------------------------------------------------------------------------- what is meant


def test_numbers_of_classes_from_1_on_are_refused(tmp_path: Path) -> None:
    root = yolo(tmp_path, "images", "labels")
    write(root / "classes.txt", "red\ngreen\n")
    for path in (root / "labels").iterdir():
        write(path, yolo_line(int(path.stem) % 2 + 1))
    with pytest.raises(ValueError, match=r"numbered 1 to 2; of the 2 names the first, 'red', is 0: subtract 1"):
        load(root)


def test_boxes_in_shares_where_pixels_are_meant_are_refused(tmp_path: Path) -> None:
    def shares(content: dict[str, Any]) -> None:
        for entry in content["annotations"]:
            entry["bbox"] = [0.1, 0.2, 0.5, 0.6]

    with pytest.raises(ValueError, match=r"all 4 boxes .* look like shares of the sides, and COCO has pixels"):
        load(coco(tmp_path, {"train": 4, "val": 2}, train=shares))


def test_masks_of_two_kinds_are_refused(tmp_path: Path) -> None:
    root = masks(tmp_path, values=(0, 1))
    label = np.asarray(Image.open(root / "masks" / "3.png"))
    Image.fromarray(label * np.uint8(255)).save(root / "masks" / "3.png")
    with pytest.raises(ValueError, match=r"0 and 1 alone, such as masks/0.png, others 0 and 255, such as masks/3.png"):
        load(root, "segmentation")
    edge = label.copy()
    edge[0] = 255
    Image.fromarray(edge).save(root / "masks" / "2.png")  # here 255 is an edge: it is no class
    assert load(root, "segmentation").classes == ["0", "1"]


def test_names_of_masks_classes_keep_their_lines(tmp_path: Path) -> None:
    root = masks(tmp_path)
    write(root / "classes.txt", "nothing\n\nroad\nlane\n")
    with pytest.raises(ValueError, match=r"classes\.txt: line 2 is empty: which number has the class below it"):
        load(root, "segmentation")
    write(root / "classes.txt", "nothing\nroad\nlane\n\n")
    assert load(root, "segmentation").classes == ["nothing", "road", "lane"]
    write(root / "classes.txt", '["nothing", "road"')
    with pytest.raises(ValueError, match=r"classes\.txt: begins as a list in JSON"):
        load(root, "segmentation")


def test_class_maps_of_parts_say_the_same(tmp_path: Path) -> None:
    """Roboflow writes one beside the pictures of each part."""
    for part, numbers in (("train", range(4)), ("valid", range(4, 6))):
        for number in numbers:
            picture(tmp_path / part / f"{number}.jpg", seed=number)
            label = np.zeros((HEIGHT, WIDTH), np.uint8)
            label[TOP:BOTTOM, LEFT:RIGHT] = 1
            Image.fromarray(label).save(tmp_path / part / f"{number}_mask.png")
        write(tmp_path / part / "_classes.csv", "Pixel Value, Class\n0, background\n1, road\n")
    data = load(tmp_path, "segmentation")
    assert (data.classes, data.unused) == (["background", "road"], {})
    write(tmp_path / "valid" / "_classes.csv", "Pixel Value, Class\n0, background\n1, lane\n")
    with pytest.raises(ValueError, match=r"train/_classes\.csv and valid/_classes\.csv say different things"):
        load(tmp_path, "segmentation")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("_classes.csv", "Pixel Value, Class\n0, road\n1, lane\n1, kerb\n", r"'lane' and 'kerb' are both 1"),
        ("_classes.csv", "Pixel Value, Class\n0, road\n65536, lane\n", r"line 3: the value of 'lane' is 65536, not"),
        ("_classes.csv", "Pixel Value, Class\n-1, road\n1, lane\n", r"line 2: the value of 'road' is -1, not"),
        ("class_dict.csv", "name,r,g,b\nroad,9,9,9\nlane,9,9,9\n", r"'road' and 'lane' are both \(9, 9, 9\)"),
        ("class_dict.csv", "name,r,g,b\nroad,-9,9,9\nlane,9,9,9\n", r"line 2: a colour is three numbers from 0 to 255"),
        ("labelmap.txt", "road:9,9,9::\nlane:9,9,9::\n", r"'road' and 'lane' are both \(9, 9, 9\)"),
    ],
)
def test_class_maps_that_cannot_be_meant_are_refused(tmp_path: Path, name: str, text: str, words: str) -> None:
    write(tmp_path / name, text)
    with pytest.raises(ValueError, match=words):
        read_class_map(take_inventory(tmp_path))


def test_masks_by_camvids_ending(tmp_path: Path) -> None:
    assert len(load(masks(tmp_path, "labels", "_L"), "segmentation").train) == 4


# -------------------------------------------------------------------------------------------------------- Label Studio


@pytest.mark.parametrize("folder", ["images", "left"])
@pytest.mark.parametrize("end", ["_l", "_seg", "_label"])
def test_pictures_may_be_called_as_masks_are(tmp_path: Path, folder: str, end: str) -> None:
    root = masks(tmp_path, end=end)
    (root / "images").rename(root / "pictures")
    (root / folder).mkdir()
    for path in (root / "pictures").iterdir():
        path.rename(root / folder / f"{path.stem}{end}.jpg")
    picture(root / folder / "0.jpg", seed=7)
    Image.new("L", (WIDTH, HEIGHT), 2).save(root / "masks" / "0.png")
    data = load(root, "segmentation")
    assert not data.problems
    pairs = [
        pair for part in (data.train, data.val, data.test) for pair in zip(part.files, part.label_files, strict=True)
    ]
    names = ["0", *(f"{number}{end}" for number in range(6))]
    assert sorted(pairs) == [(f"{folder}/{name}.jpg", f"masks/{name}.png") for name in names]


def test_label_studios_unfinished_tasks_are_no_empty_pictures(tmp_path: Path) -> None:
    """And its ways to write a picture's name: as an address, and with a code before that of an uploaded file."""
    percent = {"x": 100 * LEFT / WIDTH, "y": 100 * TOP / HEIGHT}
    percent |= {"width": 100 * BOX[2] / WIDTH, "height": 100 * BOX[3] / HEIGHT}
    result = {"type": "rectanglelabels", "value": {**percent, "rectanglelabels": ["red"]}}
    made = [{"result": [result | {"original_width": WIDTH, "original_height": HEIGHT}]}]
    skipped = [{"result": [], "was_cancelled": True}]
    names = [f"my photo {number}" for number in range(6)]
    places = [f"/data/local-files/?d=images/my%20photo%20{number}.jpg" for number in range(3)]
    places += [f"/data/upload/7/0a1b2c3d-my photo {number}.jpg" for number in range(3, 6)]
    answers = [[], skipped, skipped + made, made, made, made]
    for number, name in enumerate(names):
        picture(tmp_path / "images" / f"{name}.jpg", seed=number)
    tasks = [{"data": {"image": place}, "annotations": answer} for place, answer in zip(places, answers, strict=True)]
    write(tmp_path / "project.json", json.dumps(tasks))
    data = load(tmp_path)
    assert boxes(data) == [CORNERS] * 4
    assert len(data.problems.found["picture that nobody has annotated: left out"]) == 2
