"""Files of data from strangers: each is read or named in one line; nothing waits, grows, or acts on a terminal."""

from __future__ import annotations

import csv
import json
import os
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.bad_pictures import bomb
from tests.dense_toys import HEIGHT, WIDTH, polygon, write_coco, write_plain, write_voc, write_yolo
from tokenmix.cli import main
from tokenmix.data.tars import read_contents
from tokenmix.files import csv_cell, short_name, write_csv
from tokenmix.pictures.drawing import draw_labels, draw_objects
from tokenmix.sources import load_data
from tokenmix.tasks.classification.results import add_result, read_results
from tokenmix.tasks.dense.augment import dense_augment
from tokenmix.tasks.dense.loader import DenseLoader
from tokenmix.tasks.dense.sets import draw, mask_problem
from tokenmix.tasks.example_pictures import labels_of, pictures_of, readable
from tokenmix.tasks.segmentation.predictions import LabelMaps
from tokenmix_runtime.images import FORMATS, ImageError, formats, open_image, read_file
from tokenmix_runtime.terminal import say, shown
from tokenmix_runtime.untrusted import regular_file

needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
ESCAPE = "\x1b]0;title\x07\x1b[2J"


def silent(line: str) -> None:
    pass


def load(root: Path, task: str = "detection") -> Any:
    return load_data(root, task=task, log=silent)


def annotation(**changes: Any) -> dict[str, Any]:
    box = [4, 4, 10, 10]
    entry = {"image_id": 500, "category_id": 7, "id": 999, "bbox": box, "iscrowd": 0, "area": 100}
    return entry | {"segmentation": [polygon((4, 4, 14, 14))]} | changes


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.sampled_from(["size", "counts", "a"]), inner),
    max_leaves=12,
)


# Masks and boxes


FAR = {
    "3e8": [[4, 4, 3e8, 4, 3e8, 14]],
    "2e9": [[2e9, 2e9, 2e9 + 9, 2e9, 2e9, 2e9 + 9]],
    "1e200": [[4, 4, 1e200, 4, 4, 14]],
    "an integer beyond floats": [[4, 4, 10**400, 4, 4, 14]],
    "NaN": [[4, 4, float("nan"), 4, 4, 14]],
    "infinity": [[4, 4, float("inf"), 4, 4, 14]],
    "a long way within bounds": [[0, 0, 9e6, 9e6] * 50],
    "negative": [[-3e8, -3e8, 4, 4, 4, 14]],
}


@pytest.mark.parametrize("kind", FAR)
def test_polygons_far_outside_never_reach_cocos_tools(tmp_path, kind) -> None:
    data = load(write_coco(tmp_path, more={"annotations": [annotation(segmentation=FAR[kind])]}), "instances")
    (problem,) = data.problems.found
    assert "polygon" in problem
    assert "left out" in problem
    assert data.problems.found[problem] == ["train2017/000.png annotation 999"]
    assert len(data.train.target(0)["masks"]) == 2


RUNS = {
    "negative": [-5, HEIGHT * WIDTH + 5],
    "too many": [0, 10**9],
    "too few": [3],
    "none": [],
    "a fraction": [0.5, HEIGHT * WIDTH - 0.5],
    "an integer beyond floats": [10**400],
    "truth": [True, HEIGHT * WIDTH - 1],
    "words": ["a"],
    "a text of another code": "not a code",
    "letters that are none of it": "\u732b",
    "cut within a number": "P",
    "a number without end": "o" * 10_000,
}


@pytest.mark.parametrize("kind", RUNS)
def test_run_length_codes_must_fill_the_picture(tmp_path, kind) -> None:
    shape = {"size": [HEIGHT, WIDTH], "counts": RUNS[kind]}
    data = load(write_coco(tmp_path, more={"annotations": [annotation(segmentation=shape)]}), "instances")
    (problem,) = data.problems.found
    assert problem in ("mask that does not fill its size: left out", "mask that cannot be read: left out")
    with pytest.raises(ValueError, match="mask that"):
        draw(shape, HEIGHT, WIDTH)


@pytest.mark.parametrize("size", [[HEIGHT, WIDTH + 1], [10**9, 10**9], [True, 1], None, "ab"])
def test_run_length_codes_have_the_pictures_size(tmp_path, size) -> None:
    shape = {"size": size, "counts": [HEIGHT * WIDTH]}
    data = load(write_coco(tmp_path, more={"annotations": [annotation(segmentation=shape)]}), "instances")
    assert list(data.problems.found) == ["mask of another size: left out"]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_whole_masks_are_read_as_cocos_tools_wrote_them(height: int, width: int, seed: int) -> None:
    pycocotools = pytest.importorskip("pycocotools.mask")
    mask = np.random.default_rng(seed).integers(0, 2, (height, width), dtype=np.uint8)
    code = pycocotools.encode(np.asfortranarray(mask))
    for counts in (code["counts"], code["counts"].decode()):
        shape = {"size": [height, width], "counts": counts}
        assert mask_problem(shape, height, width) == ""
        assert (draw(shape, height, width) == mask).all()


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(st.text(max_size=40), st.text("0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmno", max_size=40))
)
def test_any_text_as_a_code_is_drawn_or_refused(text: str) -> None:
    shape = {"size": [6, 7], "counts": text}
    if mask_problem(shape, 6, 7):
        with pytest.raises(ValueError, match="mask that"):
            draw(shape, 6, 7)
    else:
        assert draw(shape, 6, 7).shape == (6, 7)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 10**400, 1e308, None, "4", [], {}])
@pytest.mark.parametrize("place", range(4))
def test_boxes_of_odd_numbers_are_named(tmp_path, value, place) -> None:
    box: list[Any] = [4, 4, 10, 10]
    box[place] = value
    root = write_coco(tmp_path, count=2, more={"annotations": [annotation(bbox=box)]})
    data = load(root)
    assert len(data.problems) == (value != "4")  # a number that is written as a text is one
    assert all(np.isfinite(found.boxes).all() for found in data.train.objects)


def test_odd_areas_are_not_believed(tmp_path) -> None:
    areas = [-5, float("nan"), float("inf"), 10**400, "wide"]
    data = load(write_coco(tmp_path, more={"annotations": [annotation(area=area) for area in areas]}))
    assert data.train.objects[0].area[2:].tolist() == [100] * 5


@settings(max_examples=40, deadline=None)
@given(VALUES)
def test_any_value_as_box_and_mask_is_used_or_named(tmp_path_factory, value) -> None:
    root = tmp_path_factory.mktemp("coco")
    changes: list[dict[str, Any]] = [{"bbox": value}, {"segmentation": value}, {"area": value, "iscrowd": value}]
    more = [annotation(id=900 + number, **change) for number, change in enumerate(changes)]
    data = load(write_coco(root, count=2, more={"annotations": more}), "instances")
    assert len(data.train.target(0)["masks"]) + len(data.problems) in (5, 6)  # a part of a polygon may be left out


# COCO's JSON


JSON_FILES = {
    "nested": ("[" * 100_000, "nested too deeply"),
    "nested objects": ('{"a":' * 100_000, "nested too deeply"),
    "a number without end": ("9" * 10_000, "cannot be read as JSON"),
    "null bytes": ("\0" * 100, "null bytes"),
    "another encoding": ('{"images": "é"}'.encode("latin-1"), "not|can't decode"),
    "UTF-16": ("{}".encode("utf-16"), "can't decode"),
    "empty": ("", "cannot be read as JSON"),
    "half": ('{"images": [', "cannot be read as JSON"),
}


@pytest.mark.parametrize("kind", JSON_FILES)
def test_json_that_is_none_is_one_message_with_the_file(tmp_path, capsys, kind) -> None:
    content, message = JSON_FILES[kind]
    path = tmp_path / "annotations" / "instances_train2017.json"
    path.parent.mkdir()
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as caught:
        load(tmp_path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_byte_order_mark_and_keys_twice_are_harmless(tmp_path) -> None:
    path = write_coco(tmp_path) / "annotations" / "instances_train2017.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b'"images":', b'"images": [], "images":', 1))
    assert len(load(tmp_path).train) == 6


def test_more_classes_than_any_model_has_are_refused(tmp_path) -> None:
    more = [{"id": 1000 + number, "name": str(number)} for number in range(100_000)]
    with pytest.raises(ValueError, match=r"100,002 classes; at most 100,000"):
        load(write_coco(tmp_path, count=1, more={"categories": more}))


@pytest.mark.parametrize("name", ["/etc/hostname", "../secret.png", "a/../../secret.png", "x" * 5000, "nul\0.png"])
def test_paths_that_lead_elsewhere_or_nowhere_are_not_followed(tmp_path, name) -> None:
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "secret.png")
    root = write_coco(tmp_path / "set", more={"images": [{"id": 1, "file_name": name}]})
    data = load(root)
    assert len(data.train) == 6
    (problem,) = data.problems.found
    assert problem in ("path that leads out of the data set's folder: left out", "picture missing: left out")


# YOLO's YAML and text


LETTERS = "abcdefgh", "bcdefghi"
LAUGHS = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip(*LETTERS, strict=True))
YAML_FILES = {
    "aliases that multiply": (LAUGHS + "names: *i\n", "more than 20 aliases"),
    "nested": ("names: " + "[" * 50_000, "nest"),
    "code": ("names: !!python/object/apply:os.system [echo]", "could not determine a constructor"),
    "a date that is none": ("names: [9999-99-99]", "must be in"),
    "an empty integer": ("names: [!!int '']", "cannot be read as YAML"),
    "null bytes": ("names: \0", "null bytes"),
    "another encoding": ("names: [caf\xe9]".encode("latin-1"), "save it as UTF-8"),
    "too large": ("names: [" + "a, " * 100_000 + "]", "at most 262,144"),
    "names in names": ("train: images/train\nnames: [[a], [b]]", "is a list of its own"),
    "mixed numbers": ("train: images/train\nnames: {0: a, b: c}", "must be a list, or numbered"),
}


@pytest.mark.parametrize("kind", YAML_FILES)
def test_yaml_that_is_odd_is_one_message_with_the_file(tmp_path, kind) -> None:
    content, message = YAML_FILES[kind]
    root = write_yolo(tmp_path)
    (root / "data.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    begin = time.monotonic()
    with pytest.raises(ValueError, match=message) as caught:
        load(root)
    assert str(root) in str(caught.value)
    assert time.monotonic() - begin < 10


def test_a_few_aliases_are_fine(tmp_path) -> None:
    root = write_yolo(tmp_path)
    (root / "data.yaml").write_text("train: &p images/train\nval: images/val\nother: [*p, *p]\nnames: [red, green]\n")
    assert load(root).classes == ["red", "green"]


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_as_labels_are_read_or_named(tmp_path_factory, content: bytes) -> None:
    root = write_yolo(tmp_path_factory.mktemp("yolo"), count=2)
    (root / "labels" / "train" / "000.txt").write_bytes(content + b"\n0 1e999 nan 1e308 -1e308\n0 0.5 0.5 0.1 0.1")
    data = load(root)
    assert len(data.train) == 2
    assert data.problems


def test_yolo_polygons_of_odd_numbers_are_named(tmp_path) -> None:
    root = write_yolo(tmp_path, polygons=True)
    lines = "0 0.1 0.1 1e300 0.1 0.1 0.5\n0 0.1 0.1 nan 0.1 0.1 0.5\n0 0.1 0.1 3e7 0.1 0.1 0.5\n"
    (root / "labels" / "train" / "000.txt").write_text(lines)
    data = load(root, "instances")
    assert len(data.train.target(0)["masks"]) == 0
    assert len(data.problems) == 3


# VOC's XML


ENTITIES = '<!ENTITY a "lol">' + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip(*LETTERS, strict=True))
XML_FILES = {
    "entities that multiply": f"<!DOCTYPE a [{ENTITIES}]><annotation><object><name>&i;</name></object></annotation>",
    "entities in UTF-16": f"<!DOCTYPE a [{ENTITIES}]><annotation>&i;</annotation>".encode("utf-16"),
    "an external entity": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><annotation>&x;</annotation>',
    "an external document type": '<!DOCTYPE a SYSTEM "http://localhost/x.dtd"><annotation/>',
    "null bytes": b"\0" * 100,
    "a character set that there is not": '<?xml version="1.0" encoding="nosuch"?><annotation/>',
    "half": "<annotation><object>",
    "nothing": "",
}


@pytest.mark.parametrize("kind", XML_FILES)
def test_xml_that_is_odd_is_named(tmp_path, kind) -> None:
    content = XML_FILES[kind]
    root = write_voc(tmp_path)
    (root / "Annotations" / "000.xml").write_bytes(content if isinstance(content, bytes) else content.encode())
    data = load(root)
    assert len(data.train) == 5
    (problem,) = data.problems.found
    assert problem.startswith("annotation file")
    assert ("DOCTYPE" in problem) == ("ent" in kind)


def test_deep_xml_is_read_without_harm(tmp_path) -> None:
    root = write_voc(tmp_path, count=3)
    (root / "Annotations" / "000.xml").write_text("<annotation>" + "<a>" * 50_000 + "</a>" * 50_000 + "</annotation>")
    assert len(load(root).train) == 3


def test_voc_lists_do_not_lead_out_of_the_set(tmp_path) -> None:
    root = write_voc(tmp_path / "set")
    Image.new("RGB", (9, 9)).save(tmp_path / "secret.jpg")
    (tmp_path / "secret.xml").write_text("<annotation/>")
    with (root / "ImageSets" / "Main" / "train.txt").open("a") as file:
        file.write("\n../../secret\n")
    data = load(root)
    assert len(data.train) == 6
    assert data.problems.found == {"picture missing: left out": ["../../secret"]}


# What is no file


def put(path: Path, kind: str) -> Path:
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    return path


@needs_pipes
@pytest.mark.parametrize(("kind", "word"), [("pipe", "fifo"), ("zero", "device")])
def test_what_is_no_file_is_not_read(tmp_path, kind, word) -> None:
    path = put(tmp_path / "x.png", kind)
    for read in (regular_file, open_image, read_file, read_contents):
        with pytest.raises(ValueError, match=word) as caught:
            read(path)
        assert "x.png" in str(caught.value)
    with pytest.raises(ImageError, match="folder"):
        open_image(tmp_path)
    with pytest.raises(FileNotFoundError):
        regular_file(tmp_path / "missing")
    (tmp_path / "link.png").symlink_to(tmp_path / "real.png")
    Image.new("RGB", (2, 2)).save(tmp_path / "real.png")
    assert open_image(tmp_path / "link.png").size == (2, 2)


@needs_pipes
@pytest.mark.parametrize("kind", ["pipe", "zero"])
def test_what_is_no_file_in_a_data_set_is_named(tmp_path, kind) -> None:
    coco, voc, yolo, plain = (tmp_path / name for name in ("coco", "voc", "yolo", "plain"))
    for root, write, task, file in (
        (coco, write_coco, "detection", "train2017/000.png"),
        (voc, write_voc, "detection", "Annotations/000.xml"),
        (yolo, write_yolo, "detection", "labels/train/000.txt"),
        (plain, write_plain, "segmentation", "train/masks/000.png"),
    ):
        put(write(root) / file, kind)
        data = load(root, task)
        assert len(data.train) == 5, file
        assert len(data.problems) == 1
        assert "left out" in next(iter(data.problems.found))
    (yolo / "data.yaml").unlink()
    for root, file, message in (
        (coco, "annotations/instances_train2017.json", "instances_train2017.json: .* not a file"),
        (yolo, "classes.txt", "no names of the classes|not a file"),
    ):
        put(root / file, kind)
        with pytest.raises(ValueError, match=message):
            load(root)


@needs_pipes
def test_what_is_no_file_in_a_folder_is_skipped(tmp_path) -> None:
    photos(tmp_path)
    put(tmp_path / "cat" / "pipe.png", "pipe")
    put(tmp_path / "dog" / "zero.png", "zero")
    data = load_data(tmp_path, log=silent)
    assert {skipped.name: skipped.reason for skipped in data.skipped} == {
        "cat/pipe.png": "a fifo, not a file",
        "dog/zero.png": "a device, not a file",
    }


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="the system has no links")
def test_a_link_to_itself_is_named_and_the_others_are_used(tmp_path) -> None:
    photos(tmp_path)
    (tmp_path / "cat" / "loop.png").symlink_to("loop.png")
    lines: list[str] = []
    assert len(load_data(tmp_path, log=lines.append).train) > 0
    assert any("loop.png" in line and "cannot be followed" in line for line in lines)


@pytest.mark.parametrize("content", ["{", "[" * 100_000])
def test_a_broken_json_with_a_parts_name_is_named(tmp_path, content) -> None:
    folder = write_coco(tmp_path) / "annotations"
    for split in ("train", "val"):
        (folder / f"instances_{split}2017.json").rename(folder / f"{split}.json")
    assert len(load(tmp_path).train) == 6
    (folder / "train.json").write_text(content)
    with pytest.raises(ValueError, match=r"train\.json"):
        load(tmp_path)


# Formats and sizes


def photos(folder: Path, count: int = 6) -> Path:
    for label, colour in (("cat", 90), ("dog", 190)):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.new("RGB", (40, 30), (colour, 9 * number, 0)).save(folder / label / f"{number}.png")
    return folder


def test_only_formats_of_the_list_are_opened(tmp_path) -> None:
    Image.init()
    assert set(formats()) == set(FORMATS) & set(Image.OPEN)
    assert {"JPEG", "PNG", "TIFF", "WEBP"} <= set(formats())
    assert not {"EPS", "PSD", "FITS", "WMF", "MPEG", "SPIDER", "IM"} & set(formats())
    picture = Image.new("RGB", (16, 16), "red")  # the smallest that Pillow 12 saves as ICO
    for kind in ("EPS", "PCX", "SGI"):
        path = tmp_path / f"{kind}.png"
        picture.save(path, kind)
        with pytest.raises(ImageError, match=rf"{kind}.png: not a picture of a known format"):
            open_image(path)
    for kind in ("JPEG", "MPO", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "TGA", "ICO"):
        path = tmp_path / f"{kind}.any"
        picture.save(path, kind)
        assert open_image(path).size == (16, 16), kind


def test_no_file_is_opened_by_pillows_whole_list() -> None:
    files = [
        path for name in ("tokenmix", "tokenmix_runtime") for path in (Path(__file__).parents[1] / name).rglob("*.py")
    ]
    opens = [path.name for path in files if "Image.open(" in path.read_text(encoding="utf-8")]
    assert opens == ["images.py"]


def test_pictures_that_are_too_much_are_one_line(tmp_path, capsys) -> None:
    photos(tmp_path)
    bomb(tmp_path / "cat" / "bomb.png", 65_500)
    with (tmp_path / "dog" / "sparse.png").open("wb") as file:
        file.truncate(3 * 10**9)
    assert main(["data", "check", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "cat/bomb.png (over the limit of 179 megapixels)" in out.replace("\n", " ")
    assert "dog/sparse.png (of 3.2 GB" in out or "dog/sparse.png (of 3.0 GB" in out
    assert "Traceback" not in out + err


SHAPES = [(1, 1), (1, 20_000), (20_000, 1), (2, 3)]


@pytest.mark.parametrize("size", SHAPES)
def test_odd_shapes_are_trained_on(tmp_path, size) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "images").mkdir(parents=True)
        (tmp_path / split / "masks").mkdir()
        for number in range(2):
            Image.new("RGB", size, "red").save(tmp_path / split / "images" / f"{number}.png")
            Image.new("L", size, number).save(tmp_path / split / "masks" / f"{number}.png")
    sets = [load(tmp_path, "segmentation")]
    boxes = [annotation(image_id=1, bbox=[0, 0, *size], segmentation=[polygon((0, 0, *size))])]
    root = write_coco(tmp_path / "coco", count=1)
    Image.new("RGB", size, "red").save(root / "train2017" / "odd.png")
    path = root / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content["images"] = [{"id": 1, "file_name": "odd.png"}]
    path.write_text(json.dumps(content | {"annotations": boxes}))
    sets += [load(root, "instances")]
    for data, names in zip(sets, (("none", "standard"), ("none", "standard", "detr", "ssd")), strict=True):
        for name in names:
            for train in (True, False):
                augment = dense_augment(name, data.task if data.task == "segmentation" else "detection")
                options: dict[str, Any] = {"batch_size": 1, "image_size": 32, "mean": data.mean, "std": data.std}
                loader = DenseLoader(data.train, train=train, augment=augment, **options)
                assert all(
                    np.isfinite(np.asarray(image)).all() for batch in loader.batches(0) for image in batch["image"]
                )
    drawn = draw_objects(Image.new("RGB", size), [[0, 0, *size]], [1], ["cat"], scores=[0.5])
    assert max(drawn.size) == max(640, *size)
    drawn = draw_labels(Image.new("RGB", size), np.zeros((4, 4), np.uint8), ["cat"])
    assert drawn.width * drawn.height < 5_000_000


def test_drawings_of_large_pictures_are_reduced() -> None:
    drawn = draw_objects(Image.new("RGB", (10_000, 4_000)), [[0, 0, 9, 9]], [1], ["cat"])
    assert 15_000_000 < drawn.width * drawn.height < 16_100_000


# What is printed and written


def test_nothing_in_a_text_acts_on_a_terminal(capsys) -> None:
    assert shown("cat/1 é 猫 👩‍🔬") == "cat/1 é 猫 👩‍🔬"
    assert shown("\x1b[2J\x9b1m\r\n\t\x7f") == r"\x1b[2J\x9b1m\r\n\t\x7f"
    assert shown("gpj.\u202eexe\u2066\u2028") == r"gpj.\u202eexe\u2066\u2028"
    assert shown("caf\udce9.jpg") == "caf?.jpg"
    assert shown("a\n\tb\x1b", lines=True) == "a\n\tb\\x1b"
    say(f"a\n{ESCAPE}\udce9")
    assert capsys.readouterr().out == "a\n\\x1b]0;title\\x07\\x1b[2J?\n"


@given(st.text())
def test_shown_texts_can_be_written_and_stay(text: str) -> None:
    once = shown(text)
    once.encode()
    assert once.isprintable() or all(character not in once for character in "\x1b\n\r\x9b\u202e")
    assert shown(once) == once


@needs_pipes
def test_names_in_a_folder_are_shown_escaped(weights, tmp_path, capsys) -> None:
    photos(tmp_path)
    hostile = tmp_path / "dog" / f"{ESCAPE.replace('/', '')}\nerror: all is lost.png"
    hostile.write_bytes(b"no picture")
    assert main(["data", "check", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert "\nerror: all is lost" not in out + err
    assert r"\x1b]0;title\x07\x1b[2J\nerror: all is lost.png" in out
    assert main(["predict", str(hostile), "--model", weights]) == 2
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert len(err.splitlines()) == 1
    assert main(["predict", f"--{ESCAPE}", "x.png", "--model", weights]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_names_in_annotations_are_shown_escaped(tmp_path) -> None:
    more = [{"id": 1, "file_name": f"{ESCAPE}.png"}]
    root = write_coco(tmp_path, more={"images": more, "categories": [{"id": 99, "name": f"evil{ESCAPE}"}]})
    lines: list[str] = []
    data = load_data(root, task="detection", log=lines.append)
    assert "\x1b" not in "\n".join(lines)
    assert data.classes[-1] == r"evil\x1b]0;title\x07\x1b[2J"
    assert [skipped.name for skipped in data.skipped] == [r"train2017/\x1b]0;title\x07\x1b[2J.png"]


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "-", "-cat/1.png", "+"])
def test_cells_that_spreadsheets_would_compute_get_an_apostrophe(tmp_path, text) -> None:
    assert csv_cell(text) == f"'{text}"
    write_csv(tmp_path / "x.csv", ["name", "=2"], [[text, -0.5], ["\t=1", None]])
    with (tmp_path / "x.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["name", "'=2"], [f"'{text}", "-0.5"], [r"\t=1", ""]]


@pytest.mark.parametrize("text", ["-0.5", "+1", "-1e-05", "-.5", "-3.", "-inf", "0.5", "", "cat", "a=b", "1-2"])
def test_numbers_and_names_stay_in_csv(text) -> None:
    assert csv_cell(text) == text


# One of many


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    """A classifier of two classes, by the command line."""
    folder = tmp_path_factory.mktemp("weights")
    words = ["model=mixernet_pico", "image_size=32", "batch_size=8", "epochs=1", "warmup_epochs=0", "--device", "cpu"]
    words += ["model_args.mixers=pool", "--data", str(photos(folder / "photos")), "--out", str(folder / "run")]
    assert main(["train", "basic", *words]) == 0
    return str(folder / "run")


def test_broken_and_hidden_files_of_a_calibration_folder_are_left_out(tmp_path) -> None:
    photos(tmp_path, 2)
    (tmp_path / "cat" / "cut.png").write_bytes((tmp_path / "cat" / "0.png").read_bytes()[:40])
    (tmp_path / "dog" / "._0.png").write_bytes(b"\0\5\x16\7")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "0.png").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"cut.png: .*: left out") as told:
        kept = readable(tmp_path)
    assert len(told) == 1
    assert [Path(path).name for path in kept] == ["0.png", "1.png", "0.png", "1.png"]
    assert labels_of(kept, ["cat", "dog"]) == [0, 0, 1, 1]
    assert len(pictures_of(tmp_path)) == 5
    with pytest.raises(ValueError, match=r"none of the 1 pictures can be used; the first: cannot read .*cut.png"):
        readable([tmp_path / "cat" / "cut.png"])


@pytest.mark.slow
def test_the_command_calibrates_with_the_others(weights, tmp_path, capsys) -> None:
    pytest.importorskip("onnxruntime")
    photos(tmp_path / "in", 2)
    (tmp_path / "in" / "cat" / "cut.png").write_bytes((tmp_path / "in" / "cat" / "0.png").read_bytes()[:40])
    words = ["export", weights, "--image-size", "32", "--precision", "int8", "--tolerance", "10"]
    folder = str(tmp_path / "in")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main([*words, "--calibration", folder, "--images", folder, "--out", str(tmp_path / "x.onnx")]) == 0
    assert "cut.png: not a picture of a known format (JPEG, PNG, WebP, TIFF, ...): left out" in capsys.readouterr().err
    assert (tmp_path / "x.onnx").is_file()


def test_predict_answers_the_others_under_any_name(weights, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = [b"caf\xe9.png", b"good.png", b"b\xe9d.png"]
    try:
        for name in names[:2]:
            Image.new("RGB", (40, 30), "red").save(Path(os.fsdecode(name)))
        Path(os.fsdecode(names[2])).write_bytes(b"no picture")
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    words = [os.fsdecode(name) for name in names]
    assert main(["predict", *words, "--model", weights, "--top", "1"]) == 2
    out, err = capsys.readouterr()
    assert [line for line in out.splitlines() if line.endswith(".png")] == ["caf?.png", "good.png"]
    assert "b?d.png: not a picture" in err
    assert main(["predict", *words, "--model", weights, "--json"]) == 2
    answers = json.loads(capsys.readouterr().out)
    assert [answer["image"] for answer in answers] == words
    assert ["error" in answer for answer in answers] == [False, False, True]


def test_maps_of_pictures_with_long_names_are_written(tmp_path) -> None:
    names = ["photo.png", f"{'x' * 240}a.png", f"{'x' * 240}b.png"]
    maps = LabelMaps(tmp_path, names)
    batch = {"index": torch.arange(3), "mask": torch.ones(3, dtype=torch.bool)}
    maps.update([torch.zeros(2, 3, dtype=torch.int64)] * 3, batch)
    written = sorted(path.name for path in tmp_path.iterdir())
    assert len(written) == 3
    assert "photo.png" in written


def test_a_table_of_results_replaces_a_row_whose_name_was_changed(tmp_path) -> None:
    numbers, preparation = {"top1": 50.0, "top5": 90.0}, {"crop_pct": 0.9, "interpolation": "bicubic"}
    for _ in range(2):
        add_result(tmp_path / "r.csv", "=model", numbers, 10**6, (32, 32), preparation)
    assert [row["model"] for row in read_results(tmp_path / "r.csv")] == ["'=model"]


def test_long_names_are_shortened() -> None:
    assert short_name("photo", "-boxes.png") == "photo-boxes.png"
    long = [short_name("猫" * 80 + end, "-boxes.png") for end in ("a", "b")]
    assert len({*long}) == 2
    for name in long:
        assert name.endswith("-boxes.png")
        assert len(name.encode()) <= 200
        assert "\ufffd" not in name
    assert os.fsencode(short_name("caf\udce9", ".png")) == b"caf\xe9.png"
