"""``tokenmix export`` as a user types it: files, names, sizes, and mistakes as one clear message each."""

from __future__ import annotations

import json
import sys

import pytest
import timm
from PIL import Image

from tests.dense_cases import few_regions
from tests.scramble import scramble
from tokenmix.cli import main
from tokenmix.heads import make_dense
from tokenmix.weight_files import weights_bytes

TINY = {"depths": (1, 1), "dims": (8, 16), "mixers": "pool"}
SMALL = {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32), "mixers": "pool"}


@pytest.fixture(autouse=True)
def packages() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A file of a classifier that knows its classes."""
    model = scramble(timm.create_model("mixernet_pico", num_classes=2, **TINY))
    info = {"model": "mixernet_pico", "model_args": TINY, "classes": ["cat", "dog"], "image_size": [32, 32]}
    path = tmp_path_factory.mktemp("own") / "best.safetensors"
    path.write_bytes(weights_bytes(model.state_dict(), info))
    return path


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """A file of a detector."""
    model = few_regions(scramble(make_dense("ssdlite", "mixernet_pico", 2, **SMALL)))
    info = {"model": "mixernet_pico", "model_args": SMALL, "head": "ssdlite", "classes": ["cat", "dog"]}
    path = tmp_path_factory.mktemp("own") / "best.safetensors"
    path.write_bytes(weights_bytes(model.state_dict(), info))
    return path


def test_a_classifier_with_its_pictures(classifier, tmp_path, capsys):
    Image.effect_mandelbrot((60, 40), (-2, -1, 1, 1), 30).convert("RGB").save(tmp_path / "a.png")
    words = [str(classifier), "--to", "onnx,onnx", "--out", str(tmp_path / "pets.onnx"), "--image-size", "24,40"]
    words += ["--dynamic", "none", "--inside", "normalize", "softmax", "--images", str(tmp_path / "a.png"), "--json"]
    assert main(["export", *words]) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "pets.json").read_text()) == manifest
    assert manifest["labels"] == ["cat", "dog"]
    assert manifest["input"]["shape"] == [1, 3, 24, 40]
    assert manifest["preprocess"]["image_size"] == [24, 40]
    errors = manifest["files"]["onnx"]["errors"]
    assert (errors["images"], errors["source"]) == (1, "files")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "pets.json", "pets.onnx"]


@pytest.mark.slow
def test_a_detector_of_an_odd_size(detector, tmp_path, capsys):
    assert main(["export", str(detector), "--out", str(tmp_path / "m"), "--image-size", "75,93"]) == 0
    assert "input batch x 3 x 75 x 93" in capsys.readouterr().out
    manifest = json.loads((tmp_path / "m.json").read_text())
    assert (manifest["task"], manifest["head"]) == ("detection", "ssdlite")
    assert manifest["preprocess"]["crop_mode"] == "squash"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "onx"], "unknown format 'onx'; did you mean 'onnx'"),
        (["--image-size", "large"], "'large' is no size: give pixels, such as 512, or height,width"),
        (["--image-size", "1,2,3"], "is no size: give pixels"),
        (["--dynamic", "shape"], "--dynamic must be among batch, size, none"),
        (["--dynamic", "none,batch"], "goes with nothing else"),
        (["--precision", "int4"], "unknown precision 'int4'; did you mean 'int8'"),
        (["--precision", "int8"], "--calibration DIR"),
        (["--inside", "argmax"], "'argmax' cannot be inside a file for classification"),
        (["--images", "no.png"], "no.png"),
        (["--tolerance", "1e-30"], "above the tolerance 1e-30"),
    ],
)
def test_mistakes(words, message, classifier, tmp_path, capsys):
    assert main(["export", str(classifier), "--out", str(tmp_path / "m"), *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())


def test_mistakes_of_the_target_and_missing_packages(classifier, tmp_path, capsys, monkeypatch):
    (tmp_path / "folder").mkdir()
    assert main(["export", str(classifier), "--out", str(tmp_path / "folder")]) == 2
    assert "is a folder" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["export", str(classifier), "--out", str(tmp_path / "m")]) == 2
    assert "pip install 'tokenmix[onnx]'" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
