"""An exported file and a picture become an answer: for every task, equal to PyTorch's."""

from __future__ import annotations

import copy
import json
import os
import pickle
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models.detection.roi_heads import paste_masks_in_image

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from tests.dense_cases import dense
from tests.runtime_files import MEAN, STD, constant_file, manifest, model_file
from tests.scramble import scramble
from tokenmix.data.prepare import normalise, preprocess, preprocess_file
from tokenmix.tasks.detection.objective import DetectionObjective
from tokenmix_runtime import Classification, Detections, ImageError, Predictor, SegmentMap
from tokenmix_runtime.__main__ import main
from tokenmix_runtime.preprocess import fit, resize_and_crop

ROOT = Path(__file__).parents[1]
KIND: dict[str, Any] = {"crop_pct": 0.9, "interpolation": "bicubic", "crop_mode": "center"}


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> tuple[nn.Module, Path]:
    body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.GELU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4))
    model = scramble(body).eval()
    path = tmp_path_factory.mktemp("classifier") / "model.onnx"
    return model, model_file(path, model, None, (24, 24), list("abcd"), preprocess=KIND)


@torch.no_grad()
def test_classification_is_pytorchs(classifier, tmp_path) -> None:
    model, path = classifier
    predict = Predictor(path, task="classification", threads=1)
    files = []
    for index, size in enumerate([(30, 50), (80, 24), (24, 24), (300, 260)]):
        files.append(tmp_path / f"{index}.jpg")
        noise(*size, seed=index).save(files[-1])
    answers = predict(files)
    for file, answer in zip(files, answers, strict=True):
        wanted = model(preprocess_file(file, 24, MEAN, STD, **KIND)[None])[0].softmax(0)
        assert isinstance(answer, Classification)
        assert np.abs(answer.probabilities - wanted.numpy()).max() < 1e-6
        assert answer.label == "abcd"[int(wanted.argmax())]
        assert [share for _, share in answer.top(2)] == sorted(answer.probabilities.tolist(), reverse=True)[:2]
        assert np.abs(predict(str(file)).probabilities - answer.probabilities).max() < 1e-6
    assert len(predict(files * 9)) == 36  # more than a batch
    assert predict([]) == []


ELSEWHERE = """
import pickle, sys

with open(sys.argv[1], "rb") as file:
    predict, picture = pickle.load(file)
print(predict(picture).label, *predict(picture).probabilities)
"""


def in_a_child(predict: Predictor, picture: Path) -> str:
    """What a forked process says, which has left within a minute."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, str(predict(picture).label).encode())
        finally:
            os._exit(0)
    os.close(write)
    try:
        ready, _, _ = select.select([read], [], [], 60)
        return os.read(read, 100).decode() if ready else "nothing"
    finally:
        os.close(read)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_predictor_answers_in_other_processes_too(classifier, tmp_path) -> None:
    """Copied, sent to a fresh process as joblib, Ray and Spark do, and forked as gunicorn does."""
    predict = Predictor(classifier[1], threads=2)
    noise(40, 30).save(tmp_path / "x.png")
    here = predict(tmp_path / "x.png")
    assert (copy.deepcopy(predict)(tmp_path / "x.png").probabilities == here.probabilities).all()
    (tmp_path / "sent").write_bytes(pickle.dumps((predict, tmp_path / "x.png")))
    words = [sys.executable, "-c", ELSEWHERE, str(tmp_path / "sent")]
    label, *shares = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert label == here.label
    assert np.array(shares, np.float32) == pytest.approx(here.probabilities, abs=1e-6)
    if hasattr(os, "fork"):
        assert in_a_child(predict, tmp_path / "x.png") == here.label


@torch.no_grad()
def test_pictures_come_as_paths_images_and_arrays(classifier, tmp_path) -> None:
    model, path = classifier
    predict, image = Predictor(path), noise(40, 30)
    wanted = model(preprocess(image, 24, MEAN, STD, **KIND)[None])[0].softmax(0).numpy()
    image.save(tmp_path / "image.png")
    for picture in (image, np.asarray(image), tmp_path / "image.png"):
        assert np.abs(predict(picture).probabilities - wanted).max() < 1e-6
    grey = np.asarray(image.convert("L"))
    as_rgb = np.repeat(grey[:, :, None], 3, 2)
    assert np.array_equal(predict(grey).probabilities, predict(as_rgb).probabilities)


@pytest.mark.parametrize("head", ["deeplabv3", "ssdlite", pytest.param("retinanet", marks=pytest.mark.slow)])
@torch.no_grad()
def test_dense_models_answer_as_in_evaluation(head: str, tmp_path) -> None:
    options = {"output_stride": 32} if head == "deeplabv3" else {}
    model = dense(head, "mixernet_pico", **options).float()
    if head == "retinanet":
        model.head.regression_head.bbox_reg.weight.data *= 0.1  # boxes stay near their anchors
        model.score_thresh = 0.6
    size = (64, 64) if head == "ssdlite" else (128, 128)
    path = model_file(tmp_path / "model.onnx", model, head, size, ["red", "green", "blue"])
    predict, image = Predictor(path), noise(150, 100)
    answer = predict(image)

    if head == "ssdlite":
        seen = resize_and_crop(image, size, crop_pct=1.0, interpolation="bilinear", crop_mode="squash")
    else:
        seen = fit(image, size, within=size)
    tensor = normalise(torch.from_numpy(np.asarray(seen).copy()).permute(2, 0, 1), MEAN, STD)
    if head == "deeplabv3":  # a fixed size is padded, and the answer cut
        padded = nn.functional.pad(tensor, (0, size[1] - tensor.shape[2], 0, size[0] - tensor.shape[1]))
        logits = model(padded[None])[:, :, : tensor.shape[1], : tensor.shape[2]]
        enlarged = nn.functional.interpolate(logits, (100, 150), mode="bilinear")[0]
        best = enlarged.topk(2, 0).values
        clear = (best[0] - best[1] > 1e-4 * enlarged.abs().max()).numpy()
        assert isinstance(answer, SegmentMap)
        assert clear.mean() > 0.9
        assert np.array_equal(answer.classes[clear], enlarged.argmax(0).numpy()[clear])
        assert answer.labels == ("red", "green", "blue")
        assert sum(answer.shares().values()) == pytest.approx(1)
        return
    objective = DetectionObjective(model, num_classes=3)
    (wanted,) = objective.predict({"image": [tensor], "size": torch.tensor([[100, 150]])})
    assert isinstance(answer, Detections)
    assert 0 < len(answer.boxes) == len(wanted["boxes"])
    # Float32 sums in another order swap equals; each has its own in the other answer.
    distance = np.abs(answer.boxes[:, None] - wanted["boxes"].numpy()[None]).max(2)
    distance += 1e3 * (answer.labels[:, None] != wanted["labels"].numpy()[None])
    assert (distance.min(1) < 0.05).mean() > 0.97
    assert np.abs(answer.scores - wanted["scores"].numpy()).max() < 1e-3
    assert set(answer.names) <= {"red", "green", "blue"}
    assert answer.names[0] == ["red", "green", "blue"][int(answer.labels[0]) - 1]
    assert answer.size == (100, 150)


def test_masks_are_pasted_into_the_picture(tmp_path) -> None:
    rng = np.random.default_rng(0)
    found = {
        "boxes": np.array([[2, 3, 20, 30], [10.5, 5, 39, 31]], np.float32),
        "scores": np.array([0.9, 0.2], np.float32),
        "labels": np.array([2, 1]),
        "masks": rng.random((2, 1, 28, 28), dtype=np.float32),
    }
    content = manifest("instances", {"kind": "rcnn", "inside": True}, [1, 3, 32, 40], labels=["cat", "dog"])
    predict = Predictor(constant_file(tmp_path / "model.onnx", found, content), task="instances")
    answer = predict(noise(80, 64))  # twice the size
    assert answer.names == ("dog", "cat")
    assert np.array_equal(answer.boxes, 2 * found["boxes"])
    pasted = paste_masks_in_image(torch.from_numpy(found["masks"]), torch.from_numpy(answer.boxes), (64, 80))
    assert np.array_equal(answer.masks, (pasted[:, 0] > 0.5).numpy())
    assert np.array_equal(answer.mask(1), answer.masks[1])
    best = answer.above(0.5)
    assert (best.names, best.masks.shape) == (("dog",), (1, 64, 80))
    assert answer.as_dict()["objects"][0]["mask_pixels"] == int(answer.masks[0].sum())
    assert answer.above(1).masks.shape == (0, 64, 80)

    nothing = {name: value[:0] for name, value in found.items()}
    empty = Predictor(constant_file(tmp_path / "empty.onnx", nothing, content))(noise(80, 64))
    assert (empty.names, empty.boxes.shape, empty.masks.shape) == ((), (0, 4), (0, 64, 80))


def test_detectors_without_masks_have_none(tmp_path) -> None:
    found = {
        "boxes": np.array([[0, 0, 90, 16]], np.float32),
        "scores": np.ones(1, np.float32),
        "labels": np.array([3]),
    }
    content = manifest("detection", {"kind": "ssdlite", "inside": True}, [1, 3, 32, 32])
    answer = Predictor(constant_file(tmp_path / "model.onnx", found, content))(noise(64, 32))
    assert answer.boxes.tolist() == [[0, 0, 64, 32]]  # the picture's half of the input, cut at its border
    assert answer.names == ("class 3",)
    assert answer.masks is None
    with pytest.raises(ValueError, match="boxes, not masks"):
        answer.mask(0)


def test_classes_inside_are_cut_and_enlarged(tmp_path) -> None:
    classes = np.zeros((1, 8, 8), np.int32)
    classes[0, :4, 4:] = 2
    content = manifest("segmentation", {"kind": "argmax", "inside": True}, [1, 3, 8, 8], labels=["a", "b", "c"])
    predict = Predictor(constant_file(tmp_path / "model.onnx", {"classes": classes}, content))
    answer = predict(noise(32, 16))  # covers the upper half of the input
    assert answer.classes.dtype == np.uint8
    assert answer.classes.shape == (16, 32)
    assert (answer.classes[:, :16] == 0).all()
    assert (answer.classes[:, 16:] == 2).all()
    assert answer.shares() == {"a": 0.5, "c": 0.5}


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_pixels_go_in_as_they_are_where_the_graph_normalises(tmp_path, monkeypatch, dtype: str) -> None:
    source = {"name": "image", "dtype": dtype, "shape": [1, 3, 8, 8]}
    content = manifest(
        "segmentation",
        {"kind": "argmax", "inside": True},
        [1, 3, 8, 8],
        input=source,
        preprocess={"inside": ["normalize"]},
    )
    path = constant_file(tmp_path / "model.onnx", {"classes": np.zeros((1, 8, 8), np.int32)}, content)
    predict, seen = Predictor(path), []
    session = predict._session
    monkeypatch.setattr(
        predict,
        "_session",
        type("Recorder", (), {"run": lambda _, feed: (seen.append(feed), session.run(feed))[1]})(),
    )
    image = noise(8, 4)
    predict(image)
    (batch,) = seen[0]["image"]
    assert batch.dtype == dtype
    assert np.array_equal(batch[:, :4], np.asarray(image).transpose(2, 0, 1))
    mean = 255 * np.array(MEAN)  # the colour that becomes zero: to the bit where the input can hold it
    fill = mean.astype(np.float32) if dtype == "float32" else mean.round()
    assert batch[:, 4:].reshape(3, -1).T.tolist() == [fill.tolist()] * 32


def test_a_graph_that_resizes_gets_the_whole_picture(tmp_path) -> None:
    shape = ["batch", 3, "height", "width"]
    before = {"inside": ["resize", "normalize"], "image_size": [8, 8]}
    content = manifest("classification", {"kind": "softmax", "inside": True}, shape, preprocess=before)
    path = constant_file(tmp_path / "model.onnx", {"probabilities": np.array([[0.25, 0.75]], np.float32)}, content)
    answers = Predictor(path)([noise(9, 5), noise(40, 70)])
    assert [answer.top(1) for answer in answers] == [[("class 1", 0.75)]] * 2


def test_command_prints_answers(classifier, tmp_path, capsys) -> None:
    _, path = classifier
    noise(40, 30).save(tmp_path / "image.png")
    image = str(tmp_path / "image.png")
    assert main([str(path), image, "--top", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == image
    assert [line.split()[1] for line in lines[1:]] == ["%", "%"]
    assert main([str(path), image, image, "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first == second
    assert first["image"] == image
    assert first["top"] == [list(pair) for pair in Predictor(path)(image).top()]


def test_command_prints_objects_and_classes(tmp_path, capsys) -> None:
    found = {
        "boxes": np.array([[1, 2, 30, 31], [0, 0, 9, 9]], np.float32),
        "scores": np.array([0.9, 0.1], np.float32),
        "labels": np.array([1, 1]),
    }
    content = manifest("detection", {"kind": "retinanet", "inside": True}, [1, 3, 32, 32], labels=["cat"])
    path = str(constant_file(tmp_path / "detector.onnx", found, content))
    image = str(tmp_path / "image.png")
    noise(32, 32).save(image)
    assert main([path, image]) == 0
    assert capsys.readouterr().out == f"{image}\n   90.0 %  (1, 2, 30, 31)  cat\n"
    assert main([path, image, "--score", "0.95"]) == 0
    assert "nothing above a score of 0.95" in capsys.readouterr().out
    assert main([path, image, "--json"]) == 0
    assert [entry["name"] for entry in json.loads(capsys.readouterr().out)[0]["objects"]] == ["cat", "cat"]
    content = manifest("segmentation", {"kind": "argmax", "inside": True}, [1, 3, 32, 32], labels=["sky"])
    path = str(constant_file(tmp_path / "segmenter.onnx", {"classes": np.zeros((1, 32, 32), np.int32)}, content))
    assert main([path, image]) == 0
    assert capsys.readouterr().out == f"{image}\n  100.0 %  sky\n"


def test_arrays_of_other_kinds_are_refused(classifier) -> None:
    predict = Predictor(classifier[1])
    for array in (
        np.zeros((3, 8, 8), np.uint8),
        np.zeros((8, 8, 3)),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
    ):
        with pytest.raises(ImageError, match=r"a uint8 array \(H, W, 3\) or \(H, W\), not ndarray"):
            predict(array)
    with pytest.raises(ImageError, match="not int"):
        predict(3)
