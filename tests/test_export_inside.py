"""What a file does itself: preparing the picture and reading the outputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional as VF

from tests.export_cases import MEAN, STD, conv_net, opened
from tokenmix.data.prepare import preprocess
from tokenmix.export import export
from tokenmix.export.onnx_file import run_onnx
from tokenmix.tasks.preparation_layers import Normalize, Resize
from tokenmix_runtime.images import open_image
from tokenmix_runtime.preprocess import resize_and_crop

SIZES = st.integers(1, 70)


@given(SIZES, SIZES, st.tuples(st.integers(1, 40), st.integers(1, 40)), st.data())
@settings(max_examples=60, deadline=None)
def test_resize_is_evaluations(height, width, size, data):
    """To the grey levels that Pillow rounds to, twice; pictures that are cut before resizing are longer still."""
    kind = {
        "crop_pct": data.draw(st.sampled_from([1.0, 0.95, 0.875])),
        "interpolation": data.draw(st.sampled_from(["bicubic", "bilinear"])),
        "crop_mode": data.draw(st.sampled_from(["center", "squash"])),
    }
    if max(height, width) > 16 * min(height, width):
        height = width
    # Smooth, as bicubic kernels overshoot at edges, where Pillow clips.
    rows, columns = np.linspace(40, 200, height)[:, None], np.linspace(-30, 30, width)
    pixels = np.repeat((rows + columns)[..., None], 3, 2).round().astype(np.uint8)
    expected = VF.pil_to_tensor(resize_and_crop(Image.fromarray(pixels), size, **kind))
    found = Resize(size, **kind)(torch.from_numpy(pixels).permute(2, 0, 1)[None].double())[0]
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1.5


def test_normalize_is_the_data_rooms():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    expected = preprocess(Image.fromarray(pixels), (9, 7), MEAN, STD, crop_pct=1.0)
    found = Normalize(MEAN, STD)(torch.from_numpy(pixels).permute(2, 0, 1)[None].float())[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_file_takes_any_picture_and_returns_probabilities(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = conv_net().eval()
    manifest = export(opened(model), out=tmp_path / "m", inside=("softmax", "resize"))
    assert manifest["preprocess"]["inside"] == ["resize", "normalize"]
    assert manifest["postprocess"]["inside"]
    assert manifest["input"]["shape"] == ["batch", 3, "height", "width"]
    assert manifest["outputs"][0]["name"] == "probabilities"
    Image.effect_mandelbrot((90, 61), (-2, -1, 1, 1), 40).convert("RGB").save(tmp_path / "picture.png")
    image = open_image(tmp_path / "picture.png")
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    (found,) = run_onnx(tmp_path / "m.onnx", x)
    with torch.no_grad():
        expected = model(preprocess(image, (16, 16), MEAN, STD)[None]).softmax(1)
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=0.01)  # Pillow's rounding
