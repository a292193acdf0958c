"""The answers of whole pages are PyTorch's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests import web_models
from tests.backbone_cases import toy
from tests.export_cases import opened, opened_dense
from tests.scramble import scramble
from tests.web_page.page import Open, Serve, call, check_top, choose, photo, rows, text, wait, wanted
from tokenmix.export import export
from tokenmix.tasks.detection.export import compare_detections
from tokenmix.tasks.super_resolution.model import create_upscaler
from tokenmix.web import page_files
from tokenmix.web.samples import sample_pictures
from tokenmix.weight_files import weights_bytes
from tokenmix_runtime import Predictor


def test_answers_are_pytorchs(show: Open, models: dict[str, Any], tmp_path: Path) -> None:
    driver = show("toy")
    photo(90, 130).save(tmp_path / "plain.png")
    photo(640, 480, 1).save(tmp_path / "photo.jpg", quality=92)
    photo(120, 80, 2, chans=4).save(tmp_path / "clear.png")
    turned = photo(120, 80, 3)
    exif = turned.getexif()
    exif[274] = 6  # to be turned by 90 degrees
    turned.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    (tmp_path / "sample.png").write_bytes(sample_pictures()["sample-shapes.png"])
    for name in ("plain.png", "photo.jpg", "clear.png", "turned.jpg", "sample.png"):
        choose(driver, tmp_path / name)
        # Decoders of JPEG differ by a grey level here and there, and so do ways to lay a picture over white.
        check_top(driver, wanted(models["toy"], tmp_path / name), 1e-3 if name.endswith("n.png") else 5e-3)
    assert text(driver, "name") == "toy"
    assert text(driver, "status").startswith(rows(driver)[0][0])
    assert driver.execute_script("return document.querySelector('#facts').textContent.includes('WebAssembly SIMD')")


@pytest.mark.slow
@torch.no_grad()
def test_segment_maps_are_pytorchs(show: Open, models: dict[str, Any], tmp_path: Path) -> None:
    driver = show("semantic_fpn")
    image = photo(150, 110)
    image.save(tmp_path / "x.png")
    choose(driver, tmp_path / "x.png")
    factor = min(64 / 110, 96 / 150)
    small = image.resize((round(150 * factor), round(110 * factor)), Image.Resampling.BILINEAR)
    mean, std = (torch.tensor(v)[:, None, None] for v in (web_models.MEAN, web_models.STD))
    x = (torch.from_numpy(np.asarray(small) / 255).permute(2, 0, 1).float() - mean) / std
    logits = models["semantic_fpn"](x[None])
    classes = torch.nn.functional.interpolate(logits, (110, 150), mode="bilinear")[0].argmax(0)
    shares = {web_models.CLASSES[k]: (classes == k).float().mean().item() for k in classes.unique().tolist()}
    assert {name: value for name, value, _ in rows(driver)} == pytest.approx(shares, abs=1e-3)
    assert len(shares) > 1
    # The map lies on the picture with the opacity that the slider says.
    first = driver.execute_script("return document.getElementById('canvas').toDataURL()")
    driver.find_element("id", "tune").send_keys("\ue012")  # arrow to the left
    assert text(driver, "tune-value") == "50 %"
    assert driver.execute_script("return document.getElementById('canvas').toDataURL()") != first


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("name", ["ssdlite", "retinanet"])
def test_boxes_are_pytorchs(show: Open, models: dict[str, Any], tmp_path: Path, name: str) -> None:
    driver = show(name)
    image = photo(150, 110)
    image.save(tmp_path / "x.png")
    choose(driver, tmp_path / "x.png")
    driver.execute_script("const t = document.getElementById('tune'); t.value = 0; t.dispatchEvent(new Event('input'))")
    size = (96, 96) if name == "ssdlite" else (128, round(110 * 128 / 150))
    mean, std = (torch.tensor(v)[:, None, None] for v in (web_models.MEAN, web_models.STD))
    small = image.resize(size, Image.Resampling.BILINEAR)
    x = (torch.from_numpy(np.asarray(small) / 255).permute(2, 0, 1).float() - mean) / std
    (found,) = models[name]([x])
    scale = torch.tensor([150 / size[0], 110 / size[1]] * 2)
    got = rows(driver)
    assert len(got) == len(found["scores"]) > 20
    np.testing.assert_allclose([score for _, score, _ in got], found["scores"], atol=1e-3)
    boxes = np.array([re.findall(r"-?[\d.]+", title) for _, _, title in got], np.float64)
    labels = [web_models.CLASSES.index(name) + 1 for name, _, _ in got]
    expected = zip((found["boxes"] * scale).numpy(), found["labels"].tolist(), found["scores"], strict=True)
    for box, label, score in expected:
        near = np.abs(boxes - box).max(1) < 0.2  # pixels; the titles have one decimal
        same = [i for i in np.flatnonzero(near) if labels[i] == label and abs(got[i][1] - score) < 1e-3]
        assert same, (box, label)


def answer_of(driver: Any, path: Path, picture: Path, serve: Serve) -> Any:
    """What the page of a file says about a picture, every number of it."""
    driver.get(serve(page_files(path)))
    wait(driver, "document.body.dataset.ready")
    choose(driver, picture)
    plain = "(key, value) => ArrayBuffer.isView(value) ? Array.from(value) : value"
    return driver.execute_script(f"return JSON.parse(JSON.stringify(answer, {plain}))")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    photo(150, 110).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    (tmp_path / "calibration").mkdir()
    for seed in range(8):
        photo(96, 96, seed + 1).save(tmp_path / "calibration" / f"{seed}.png")
    return tmp_path / "calibration"


# Half precision has three decimals; of eight bits a value between two may be rounded to either, in every layer.
@pytest.mark.slow
@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", 2e-3), ("int8", 2e-2)])
@pytest.mark.parametrize("name", ["toy", "affnet_et", "casvit_xs", "dsm_s", "ffnet_1"])
def test_every_precision_answers_as_the_runtime_does(
    watched: Any,
    serve: Serve,
    tmp_path: Path,
    picture: Path,
    calibration: Path,
    name: str,
    precision: str,
    tolerance: float,
) -> None:
    model = web_models.toy() if name == "toy" else toy(name)
    whole = opened(model, web_models.SIZE if name == "toy" else (64, 64), name=name, classes=web_models.CLASSES)
    path = tmp_path / "model.onnx"
    # With random weights eight bits may change the answer, but in both places alike.
    export(whole, out=path, precision=precision, calibration=calibration, tolerance=1.0)
    got = answer_of(watched, path, picture, serve)
    np.testing.assert_allclose(got["probabilities"], Predictor(path)(picture).probabilities, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "agreement", "tolerance"), [("fp16", 98, 2e-3), ("int8", 90, 0.1)])
def test_detectors_of_every_precision_answer_as_the_runtime_does(
    watched: Any,
    serve: Serve,
    tmp_path: Path,
    picture: Path,
    calibration: Path,
    precision: str,
    agreement: float,
    tolerance: float,
) -> None:
    path = tmp_path / "model.onnx"
    detector = opened_dense("ssdlite", "affnet_et", (96, 96))
    export(detector, out=path, precision=precision, calibration=calibration, tolerance=1.0)
    objects = answer_of(watched, path, picture, serve)["objects"]
    names = ("boxes", "scores", "labels")
    found = [torch.tensor([one[name] for one in objects]) for name in ("box", "score", "label")]
    answer = Predictor(path)(picture)
    result = compare_detections(names, [found], [[torch.from_numpy(getattr(answer, name)) for name in names]])
    assert result["detections"] > 20
    assert result["detection_agreement"] >= agreement
    assert result["relative_error"] <= tolerance


@pytest.mark.slow
def test_masks_of_objects_are_the_runtimes(watched: Any, serve: Serve, tmp_path: Path, picture: Path) -> None:
    """And they are drawn where they are."""
    path = tmp_path / "model.onnx"
    export(opened_dense("mask_rcnn", "ffnet_1", (75, 93)), out=path)
    expected = Predictor(path)(picture)
    got = answer_of(watched, path, picture, serve)["objects"]
    assert len(got) == len(expected.boxes) > 0
    np.testing.assert_allclose([one["box"] for one in got], expected.boxes, atol=1e-2)
    np.testing.assert_allclose([one["score"] for one in got], expected.scores, atol=1e-4)
    assert [one["label"] for one in got] == expected.labels.tolist()
    pasted = call(
        watched,
        "maps.js",
        "answer.objects.map(one => m.paste(one.mask, one.box, {height: 110, width: 150}))"
        ".map(one => ({...one, own: Array.from(one.own)}))",
    )
    for index, mask in enumerate(pasted):
        whole = np.zeros((110, 150), bool)
        rows, columns = (slice(mask[a], mask[a] + mask[b]) for a, b in (("top", "height"), ("left", "width")))
        whole[rows, columns] = np.reshape(mask["own"], (mask["height"], mask["width"]))
        assert np.mean(whole == expected.mask(index)) > 0.999
    changed = _drawn(watched, 0) != _drawn(watched, 1)
    covered = expected.masks.any(0)
    assert covered.any()
    assert changed.any(2)[covered].mean() > 0.98  # where the colour is just the picture's, nothing changes


def _drawn(driver: Any, least: float) -> np.ndarray:
    """(H, W, 4) what is drawn of objects from a score on, at the picture's size."""
    driver.execute_script(
        "const t = document.getElementById('tune'); t.value = arguments[0]; t.dispatchEvent(new Event('input'))", least
    )
    pixels = driver.execute_script(
        "const c = document.getElementById('canvas'), s = Math.min(c.width / 150, c.height / 110);"
        "const o = new OffscreenCanvas(150, 110).getContext('2d'); o.imageSmoothingEnabled = false;"
        "o.drawImage(c, (c.width - 150 * s) / 2, (c.height - 110 * s) / 2, 150 * s, 110 * s, 0, 0, 150, 110);"
        "return Array.from(o.getImageData(0, 0, 150, 110).data)"
    )
    return np.reshape(pixels, (110, 150, 4))


@torch.no_grad()
def test_pictures_become_larger_and_are_saved(watched: Any, serve: Serve, tmp_path: Path) -> None:
    """As the run-time makes them, in windows; beside smooth scaling; and what is too large is said."""
    model = scramble(create_upscaler("ffnet_sr_tiny", dim=8, depth=1)).eval()
    info = {"model": "ffnet_sr_tiny", "model_args": {"dim": 8, "depth": 1}, "task": "super_resolution"}
    content = weights_bytes(model.state_dict(), {**info, "image_size": [24, 24]})
    (tmp_path / "model.safetensors").write_bytes(content)
    export(tmp_path / "model.safetensors", out=tmp_path / "model.onnx", dynamic_size=True)
    wide = tmp_path / "wide.png"
    photo(300, 210).save(wide)  # two windows beside and above each other
    got = answer_of(watched, tmp_path / "model.onnx", wide, serve)
    assert (got["kind"], got["width"], got["height"], got["scale"]) == ("enlarged", 600, 420, 2)
    wanted = np.asarray(Predictor(tmp_path / "model.onnx")(wide).picture).astype(int)
    pixels = np.reshape(got["pixels"], (420, 600, 4))
    assert np.abs(pixels[..., :3] - wanted).max() <= 1  # values at a half may be rounded to either side
    assert (pixels[..., :3] != wanted).mean() < 1e-3
    assert text(watched, "status") == "2 times as large: 600 × 420 pixels"
    shown = (
        "const c = document.getElementById('larger-canvas');"
        "const o = new OffscreenCanvas(1, 1).getContext('2d'); o.drawImage(c, -arguments[0], -200);"
        "return [c.width, c.height, ...o.getImageData(0, 0, 1, 1).data]"
    )
    assert watched.execute_script(shown, 500) == [600, 420, *pixels[200, 500].tolist()]
    smooth = watched.execute_script(shown, 100)
    watched.find_element("id", "tune").send_keys("\ue011")  # Home: all of it the network's
    assert text(watched, "tune-value") == "0 %"
    assert watched.execute_script(shown, 100) == [600, 420, *pixels[200, 100].tolist()] != smooth
    saved = watched.execute_async_script(
        "const done = arguments[0], click = HTMLAnchorElement.prototype.click;"
        "HTMLAnchorElement.prototype.click = async function () {"
        "  HTMLAnchorElement.prototype.click = click;"
        "  const image = new Image(); image.src = this.href; await image.decode();"
        "  done([this.download, image.width, image.height]); };"
        "document.getElementById('download').click();"
    )
    assert saved == ["wide-x2.png", 600, 420]
    photo(1100, 1000).save(wide)
    watched.find_element("id", "file").send_keys(str(wide))
    wait(watched, "document.getElementById('problem').textContent")
    assert "has 1.1 megapixels, and this page enlarges at most 1;" in text(watched, "problem")
