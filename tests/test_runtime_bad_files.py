"""Bad models and bad pictures: one clear error each, on the command line no traceback."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

pytest.importorskip("onnxruntime")

from tests.bad_pictures import bomb
from tests.runtime_files import KINDS, MISTAKEN, constant_file, embed, manifest, neighbour
from tokenmix_runtime import ImageError, ModelError, Predictor
from tokenmix_runtime.__main__ import main

LOGITS = {"logits": np.array([[1, 2, 3]], np.float32)}
SHAPE = [1, 3, 8, 8]


def content(**changes: Any) -> dict[str, Any]:
    return manifest("classification", {"kind": "softmax"}, SHAPE, **{"labels": ["a", "b", "c"], **changes})


@pytest.fixture
def good(tmp_path) -> Path:
    return constant_file(tmp_path / "good.onnx", LOGITS, content())


@pytest.fixture
def picture(tmp_path) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)).save(path)
    return path


def assert_refused(path: Path | str, picture: Path, message: str, capsys, *more: str) -> None:
    """By `Predictor`, and by the command, which prints the same."""
    with pytest.raises(ModelError, match=message) as caught:
        Predictor(path, **({"task": more[1]} if more else {}))(picture)
    assert main([str(path), str(picture), *more]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"tokenmix_runtime: error: {caught.value}\n"
    assert err.count("\n") == 1


def test_the_good_file_is_good(good, picture, capsys) -> None:
    assert Predictor(good)(picture).label == "c"
    neighbour(good, content())
    assert Predictor(good)(picture).label == "c"
    assert main([str(good), str(picture)]) == 0


def test_missing_and_folders(tmp_path, picture, capsys) -> None:
    assert_refused(tmp_path / "none.onnx", picture, "no such file: .*none.onnx", capsys)
    assert_refused(tmp_path, picture, "no such file", capsys)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_truncated(good, picture, share: float, capsys) -> None:
    data = good.read_bytes()
    good.write_bytes(data[: int(share * len(data))])
    assert_refused(good, picture, "good.onnx", capsys)


def test_no_onnx(tmp_path, picture, capsys) -> None:
    for name, data in {
        "text": b"hello",
        "random": np.random.default_rng(0).bytes(5000),
        "zip": b"PK\3\4" * 100,
    }.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(data)
        assert_refused(path, picture, "is no ONNX file", capsys)
    assert_refused(picture, picture, "is no ONNX file", capsys)


def test_a_foreign_file_has_no_manifest(tmp_path, picture, capsys) -> None:
    path = constant_file(tmp_path / "foreign.onnx", LOGITS, None)
    assert_refused(path, picture, "no manifest of tokenmix inside: write the file with tokenmix export", capsys)
    embed(path, {"schema": "somebody.else/2"})
    assert_refused(path, picture, "is damaged, or is not tokenmix's", capsys)


def test_a_newer_schema(good, picture, capsys) -> None:
    embed(good, content(schema="tokenmix.model/3"))
    assert_refused(good, picture, r"by a newer tokenmix \(tokenmix.model/3\): update this one", capsys)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preprocess": None}, "is wrong"),
        ({"labels": [1, 2, 3]}, "labels is [1, 2, 3]"),
        ({"task": "poetry"}, "task is 'poetry'"),
        ({"task": "detection"}, "postprocess.kind is 'softmax'"),
        ({"preprocess": {"std": [0, 1, 1]}}, "std is [0, 1, 1]"),
        ({"preprocess": {"crop_mode": "fold"}}, "crop_mode is 'fold'"),
        ({"preprocess": {"image_size": [8]}}, "is wrong"),
        ({"preprocess": {"image_size": "large"}}, "is wrong"),
        ({"preprocess": {"inside": ["shear"]}}, "preprocess.inside is ['shear']"),
        ({"preprocess": {"interpolation": "magic"}}, "interpolation is 'magic'"),
        ({"input": {"dtype": "float64"}}, "input.dtype is 'float64'"),
        ({"input": {"shape": [1, 1, 8, 8]}}, "shape [1, 1, 8, 8], and only RGB"),
        ({"input": {"shape": [2, 3, 8, 8]}}, "that of another graph"),
        ({"preprocess": {"image_size": [16, 16]}}, "would be [16, 16], and the input takes [8, 8]"),
        ({"preprocess": {"inside": ["resize", "normalize"]}}, "would be of any size, and the input takes [8, 8]"),
        ({"input": {"name": "pixels"}}, "that of another graph"),
        ({"labels": ["a", "b"]}, "classes 0 to 2, and 2 labels"),
        ({"postprocess": 5}, "is wrong"),
        ({"postprocess": {"multiple": 1.5}}, "postprocess.multiple is 1.5"),
    ],
)
def test_an_edited_manifest(good, picture, changes, message, capsys) -> None:
    embed(good, content(**changes))
    assert_refused(good, picture, re.escape(message), capsys)


@pytest.mark.parametrize("key", ["task", "labels", "input", "preprocess", "postprocess", "model"])
def test_a_manifest_that_lacks_something(good, picture, key: str, capsys) -> None:
    embed(good, {name: value for name, value in content().items() if name != key})
    assert_refused(good, picture, f"lacks '{key}'", capsys)


def test_a_manifest_of_another_models_outputs(tmp_path, picture, capsys) -> None:
    path = constant_file(tmp_path / "model.onnx", {"answer": LOGITS["logits"]}, content())
    assert_refused(path, picture, "the outputs of .* are not those of its manifest: lacks 'logits'", capsys)
    rules = {"kind": "ssdlite", "levels": []}
    wrong = manifest("detection", rules, SHAPE)
    outputs = {"scores": np.zeros((1, 5, 2), np.float32), "boxes": np.zeros((1, 5, 4), np.float32)}
    path = constant_file(tmp_path / "boxes.onnx", outputs, wrong)
    assert_refused(path, picture, "the outputs of .* are not those of its manifest", capsys)


@pytest.mark.parametrize(("own", "said"), MISTAKEN)
def test_a_manifest_of_another_task(tmp_path, picture, own: str, said: str, capsys) -> None:
    _, task, rules = KINDS[said]
    path = constant_file(tmp_path / "model.onnx", KINDS[own][0], manifest(task, rules, SHAPE, labels=["a", "b", "c"]))
    assert_refused(path, picture, "the outputs of .* are not those of its manifest", capsys)


@pytest.mark.parametrize("kind", KINDS)
def test_its_own_manifest_fits(tmp_path, picture, kind: str, capsys) -> None:
    outputs, task, rules = KINDS[kind]
    path = constant_file(tmp_path / "model.onnx", outputs, manifest(task, rules, SHAPE, labels=["a", "b", "c"]))
    assert main([str(path), str(picture), "--task", task]) == 0


@pytest.mark.parametrize("stride", [0, 5e-324, 1e-3, -8, True, "8"])
def test_strides_that_make_no_cells(tmp_path, picture, stride: Any, capsys) -> None:
    assert_detector_refused(tmp_path, picture, {"levels": [{"stride": stride, "anchors": [[-4, -4, 4, 4]]}]}, capsys)


@pytest.mark.parametrize(
    "changes",
    [
        *({name: value} for name in ("candidates", "max_detections") for value in (-1, 0, 2.5, None)),
        *({name: value} for name in ("score_threshold", "nms_threshold", "max_log_size") for value in ("0.5", None)),
        *({"weights": value} for value in ([0, 1, 1, 1], 1, ["1"] * 4)),
        {"levels": 5},
        {"levels": [5]},
    ],
)
def test_numbers_that_decode_no_boxes(tmp_path, picture, changes: dict[str, Any], capsys) -> None:
    assert_detector_refused(tmp_path, picture, changes, capsys)


def assert_detector_refused(folder: Path, picture: Path, changes: dict[str, Any], capsys) -> None:
    """Before anything is run."""
    outputs, task, rules = KINDS["retinanet"]
    path = constant_file(folder / "model.onnx", outputs, manifest(task, {**rules, **changes}, SHAPE))
    assert_refused(path, picture, "the manifest inside .* is wrong", capsys)
    with pytest.raises(ModelError, match="is wrong"):
        Predictor(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_number_is_no_answer(tmp_path, picture, kind: str, value: float, capsys) -> None:
    outputs, task, rules = KINDS[kind]
    outputs = {name: array.copy() for name, array in outputs.items()}
    for array in outputs.values():
        if array.dtype.kind == "f":
            array.flat[-1] = value
    path = constant_file(tmp_path / "model.onnx", outputs, manifest(task, rules, SHAPE))
    if kind == "classes":  # whole numbers
        assert main([str(path), str(picture)]) == 0
    else:
        assert_refused(path, picture, "computes no finite numbers for this picture", capsys)


def test_as_many_answers_as_pictures(tmp_path, picture, capsys) -> None:
    path = constant_file(tmp_path / "model.onnx", {"logits": np.zeros((2, 3), np.float32)}, content())
    assert_refused(path, picture, r"shape \(1 pictures, classes\), not \(2, 3\)", capsys)
    small = {"classes": np.zeros((1, 2, 2), np.int32)}
    path = constant_file(tmp_path / "map.onnx", small, manifest("segmentation", KINDS["classes"][2], SHAPE))
    assert_refused(path, picture, r"a map of \(2, 2\) for an input of \(8, 8\)", capsys)


@pytest.mark.parametrize("label", [0, 3])
def test_objects_of_unknown_classes(tmp_path, picture, label: int, capsys) -> None:
    wrong = manifest("detection", {"kind": "ssdlite", "inside": True}, SHAPE, labels=["cat", "dog"])
    outputs = {
        "boxes": np.zeros((1, 4), np.float32),
        "scores": np.ones(1, np.float32),
        "labels": np.array([label]),
    }
    path = constant_file(tmp_path / "model.onnx", outputs, wrong)
    assert_refused(path, picture, f"classes {min(label - 1, 0)} to {label - 1}, and 2 labels", capsys)


def test_another_file_than_the_manifest_beside_it_describes(good, picture, capsys) -> None:
    beside = neighbour(good, content())
    good.write_bytes(constant_file(good.with_name("b.onnx"), {"logits": -LOGITS["logits"]}, content()).read_bytes())
    assert_refused(good, picture, r"is not the file that good.json describes \(another SHA-256\)", capsys)
    beside.unlink()
    assert Predictor(good)(picture).label == "a"


def test_an_edited_manifest_beside_the_file(good, picture, capsys) -> None:
    neighbour(good, content(), labels=["x", "y", "z"])
    assert_refused(good, picture, "good.json and the manifest inside good.onnx differ in labels", capsys)
    neighbour(good, content(), labels=["x", "y", "z"], files={"coreml": {"file": "good.mlpackage"}})
    assert Predictor(good)(picture).label == "c"  # it describes another file
    good.with_suffix(".json").write_text("{")
    assert_refused(good, picture, "good.json, the manifest beside good.onnx, cannot be read", capsys)
    good.with_suffix(".json").write_text(json.dumps({"schema": "of somebody else"}))
    assert Predictor(good)(picture).label == "c"


def test_a_model_of_another_task(good, picture, capsys) -> None:
    message = "good.onnx is a model for classification, and one for segmentation is needed"
    assert_refused(good, picture, message, capsys, "--task", "segmentation")
    with pytest.raises(ValueError, match="unknown task 'segmentaton'; did you mean 'segmentation'"):
        Predictor(good, task="segmentaton")


def test_the_first_schema(good, picture, capsys) -> None:
    kind = {"mean": [0.5] * 3, "std": [0.2] * 3, "crop_pct": 0.9, "crop_mode": "center", "interpolation": "bicubic"}
    first = {key: value for key, value in content().items() if key not in ("task", "preprocess", "postprocess")}
    first |= {"schema": "tokenmix.model/1", **kind}
    predict = Predictor(embed(good, first))
    assert (predict.task, predict.manifest.image_size, predict(picture).label) == ("classification", (8, 8), "c")
    embed(good, {**first, "mean": None, "std": None})
    assert_refused(good, picture, "nothing is said about mean, std", capsys)


def test_wrong_options(good, picture, capsys) -> None:
    for score in ("nan", "7", "-0.1"):
        assert main([str(good), str(picture), "--score", score]) == 2
        assert "--score must be from 0 to 1" in capsys.readouterr().err
    with pytest.raises(ValueError, match="threads must be 1 or more, not 0"):
        Predictor(good, threads=0)


def test_bad_pictures_are_named_and_the_others_answered(good, picture, tmp_path, capsys) -> None:
    bad = {
        "missing.jpg": None,
        "empty.jpg": b"",
        "text.jpg": b"no picture",
        "cut.png": picture.read_bytes()[:4000],
        "model.jpg": good.read_bytes(),
    }
    for name, data in bad.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
    bomb(tmp_path / "bomb.png")
    names = [*bad, "bomb.png"]
    for name in names:
        with pytest.raises(ImageError, match=name):
            Predictor(good)(tmp_path / name)
    assert main([str(good), *(str(tmp_path / name) for name in names), str(picture), "--json"]) == 2
    out, err = capsys.readouterr()
    answers = json.loads(out)
    assert [entry["image"] for entry in answers if "error" not in entry] == [str(picture)]
    assert [entry["image"] for entry in answers if "error" in entry] == [str(tmp_path / name) for name in names]
    assert len(err.splitlines()) == len(names)
    assert "bomb.png: over the limit of 179 megapixels" in err


@pytest.mark.parametrize("mode", ["center", "squash"])
def test_a_picture_without_pixels(good, mode: str) -> None:
    embed(good, content(preprocess={"crop_mode": mode}))
    with pytest.raises(ImageError, match="the picture has no pixels"):
        Predictor(good)(Image.new("RGB", (0, 5)))


def test_a_graph_without_inputs(tmp_path, picture, capsys) -> None:
    path = constant_file(tmp_path / "model.onnx", LOGITS, content())
    proto = onnx.load(path)
    del proto.graph.input[:]
    onnx.save(proto, path)
    assert_refused(path, picture, r"that of another graph \(input none\)", capsys)


def test_images_that_pillow_has_not_read(good, picture, tmp_path, monkeypatch) -> None:
    path = tmp_path / "cut.png"
    path.write_bytes(picture.read_bytes()[:4000])
    with Image.open(path) as image, pytest.raises(ImageError, match="cannot read the image"):
        Predictor(good)(image)
    monkeypatch.setattr("tokenmix_runtime.predictor.MAX_PIXELS", 63)
    with pytest.raises(ImageError, match="8 x 8 pixels are over the limit"):
        Predictor(good)(Image.new("RGB", (8, 8)))


def test_command_in_a_process_of_its_own(good, picture, tmp_path) -> None:
    """No traceback from anywhere, ONNX Runtime's own log included."""
    good.write_bytes(good.read_bytes()[:100])
    command = [sys.executable, "-m", "tokenmix_runtime", str(good), str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("tokenmix_runtime: error: ")
    assert len(done.stderr.splitlines()) == 1
