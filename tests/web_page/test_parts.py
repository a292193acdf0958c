"""The page's modules, each in the browser, against Pillow, PyTorch and the run-time without PyTorch."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests import web_models
from tests.web_page.page import Open, call, photo
from tokenmix.data.prepare import preprocess
from tokenmix.heads import HEADS
from tokenmix_runtime.maps import paste


def test_resizing_is_pillows_to_the_bit(show: Open) -> None:
    driver = show("toy")
    resized_data = "Array.from(m.resize({data: Uint8ClampedArray.from(a[0]), width: a[1], height: a[2]}, ...a[3]).data)"
    for number, (size, target) in enumerate(
        [((37, 23), (48, 48)), ((110, 70), (34, 23)), ((60, 101), (13, 47)), ((16, 16), (16, 5)), ((3, 1), (9, 9))]
    ):
        image = photo(*size, seed=number)
        rgba = np.asarray(image.convert("RGBA")).ravel().tolist()
        for name in ("bilinear", "bicubic"):
            resized = image.resize(target, Image.Resampling[name.upper()])
            got = call(driver, "resample.js", resized_data, rgba, *size, [*target[::-1], name])
            pixels = np.reshape(got, (*target[::-1], 4))[..., :3]
            assert np.array_equal(pixels, np.asarray(resized)), (size, name)


def test_nearest_pixels_are_pytorchs(show: Open) -> None:
    pairs = [[old, new] for old in range(1, 60, 3) for new in range(1, 60, 2)] + [[14, 23], [1912, 1750]]
    found = call(show("toy"), "maps.js", "a[0].map(([from, to]) => m.nearest(from, to))", pairs)
    for (old, new), places in zip(pairs, found, strict=True):
        wanted = torch.nn.functional.interpolate(torch.arange(float(old))[None, None], new, mode="nearest-exact")
        assert places == wanted[0, 0].int().tolist(), (old, new)


@pytest.mark.parametrize(("mode", "share"), [("center", 0.9), ("squash", 0.9), ("center", 1.0)])
def test_inputs_are_those_of_evaluation(show: Open, mode: str, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = show("toy")
    # From Pillow 13 on the order of the two passes depends on the shape; the page resizes along the rows first.
    monkeypatch.setattr(
        "tokenmix_runtime.preprocess._resize",
        lambda image, height, width, name: image.resize((width, image.height), Image.Resampling[name.upper()]).resize(
            (width, height), Image.Resampling[name.upper()]
        ),
    )
    manifest = {
        "input": {"shape": [1, 3, 40, 48], "dtype": "float32"},
        "postprocess": {"kind": "softmax", "multiple": 1},
    }
    settings = {"crop_pct": share, "crop_mode": mode, "interpolation": "bicubic"}
    manifest["preprocess"] = {"image_size": [40, 48], "mean": web_models.MEAN, "std": web_models.STD, **settings}
    for size in ((90, 61), (31, 83), (400, 20), (48, 40)):
        image = photo(*size)
        got = call(
            driver,
            "prepare.js",
            "Array.from(m.prepare({data: Uint8ClampedArray.from(a[0]), width: a[1], height: a[2]}, a[3]).data)",
            *(np.asarray(image.convert("RGBA")).ravel().tolist(), *size, manifest),
        )
        expected = preprocess(image, (40, 48), web_models.MEAN, web_models.STD, **settings)
        np.testing.assert_allclose(np.reshape(got, expected.shape), expected, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("name", ["ssdlite", "retinanet"])
def test_boxes_are_decoded_as_pytorch_does(show: Open, models: dict[str, Any], name: str) -> None:
    driver = show("toy")
    model, size = models[name], (128, 256)  # of the input; RetinaNet's picture fills only a part of it
    frame = size if name == "ssdlite" else (110, 200)
    x = torch.zeros(3, *size)
    x[:, : frame[0], : frame[1]] = torch.randn(3, *frame, generator=torch.Generator().manual_seed(1))
    scores, boxes = model.raw(x[None])
    (found,) = model([x[:, : frame[0], : frame[1]]])
    manifest = {"postprocess": HEADS[name].decoding(model) | {"inside": False}}
    place = {"height": frame[0], "width": frame[1], "left": 3, "top": 5, "scaleX": 2, "scaleY": 0.5}
    tensors = [{"dims": list(t.shape), "data": t.flatten().tolist()} for t in (scores, boxes)]
    typed = "t => ({dims: t.dims, data: Float32Array.from(t.data)})"
    got = call(
        driver,
        "decode.js",
        f"m.answer({{scores: ({typed})(a[0][0]), boxes: ({typed})(a[0][1])}}, a[1], a[2], a[3]).objects",
        *(
            tensors,
            manifest,
            {"dims": [1, 3, *size], "frame": place},
            {"height": 5 + frame[0] / 2, "width": 3 + 2 * frame[1]},
        ),
    )
    assert len(got) == len(found["scores"]) > 20
    np.testing.assert_allclose([one["score"] for one in got], found["scores"], atol=1e-5)
    pixels = (found["boxes"] * torch.tensor([2, 0.5, 2, 0.5]) + torch.tensor([3, 5, 3, 5])).tolist()
    pairs = [(one["label"], pytest.approx(one["box"], abs=1e-2)) for one in got]
    # Sorted by scores that are equal in float32, either may come first.
    assert [pair for pair in zip(found["labels"].tolist(), pixels, strict=True) if pair not in pairs] == []


@torch.no_grad()
@pytest.mark.parametrize("align_corners", [False, True])
def test_segments_are_decoded_as_pytorch_does(show: Open, align_corners: bool) -> None:
    driver = show("toy")
    resize = functools.partial(torch.nn.functional.interpolate, mode="bilinear")
    logits = torch.randn(1, 5, 9, 13, generator=torch.Generator().manual_seed(0))
    inner = resize(logits, (36, 52), align_corners=align_corners)[..., :30, :47]
    classes = resize(inner, (71, 60)).argmax(1).flatten()
    post = {"kind": "argmax", "inside": False, "align_corners": align_corners}
    got = call(
        driver,
        "decode.js",
        "Array.from(m.answer({logits: {dims: [1, 5, 9, 13], data: Float32Array.from(a[0])}}, {postprocess: a[1]}, a[2],"
        "{height: 71, width: 60}).map)",
        *(logits.flatten().tolist(), post, {"dims": [1, 3, 36, 52], "frame": {"height": 30, "width": 47}}),
    )
    assert (torch.tensor(got) == classes).float().mean() > 0.999  # equal logits may round to either side


def test_histogram_counts_every_run(show: Open) -> None:
    driver = show("toy")
    times = [10.0] * 30 + [20.0] * 15 + [90.0, 1000.0]
    got = call(driver, "latency.js", "m.summary(a[0])", times)
    assert got == pytest.approx({"n": 47, "least": 10, "median": 10, "p90": np.quantile(times, 0.9), "most": 1000})
    bars = "Array.from(m.histogram(a[0]).querySelectorAll('rect'), r => +r.getAttribute('height'))"
    heights = call(driver, "latency.js", bars, times)
    assert sum(heights) / max(heights) * 30 == pytest.approx(47)


def test_masks_are_pasted_as_the_runtime_does(show: Open) -> None:
    driver = show("toy")
    generator = np.random.default_rng(0)
    height, width = 47, 61
    corners = np.sort(generator.uniform(-20, 80, (30, 2, 2)), 1).reshape(30, 4)  # inside, across the border, outside
    corners[:4] = [[0, 0, 61, 47], [10, 5, 10, 30], [3, 4, 31, 32], [59.5, 46, 60, 47]]
    for box in corners.astype(np.float32):
        patch = generator.random((28, 28), dtype=np.float32)
        got = call(
            driver,
            "maps.js",
            "(p => ({...p, own: Array.from(p.own)}))"
            "(m.paste({data: Float32Array.from(a[0]), height: 28, width: 28}, a[1], {height: a[2], width: a[3]}))",
            *(patch.ravel().tolist(), box.tolist(), height, width),
        )
        whole = np.zeros((height, width), bool)
        rows, columns = slice(got["top"], got["top"] + got["height"]), slice(got["left"], got["left"] + got["width"])
        whole[rows, columns] = np.reshape(got["own"], (got["height"], got["width"]))
        assert np.mean(whole == paste(patch, box, (height, width))) > 0.999  # a half may be rounded to either side
