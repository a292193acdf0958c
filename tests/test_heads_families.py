"""Every head on every family: odd and differing sizes, gradients, the fused form, and the form that is exported."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.backbone_cases import SMALLEST, distance, images
from tests.dense_cases import SEGMENTERS, SIZES, dense, objects, pictures
from tokenmix import reparameterize
from tokenmix.export import prepare
from tokenmix.heads import HEADS, Raw
from tokenmix.layers import ConvNorm, RepDepthwise

# Small versions, each head with one family and each family with a head; the published sizes in all combinations.
SMALL = [
    ("deeplabv3", "affnet"),
    ("semantic_fpn", "casvit"),
    ("upernet", "dsm"),
    ("ffnet_seg", "ffnet"),
    ("ssdlite", "affnet"),
    ("retinanet", "casvit"),
    ("mask_rcnn", "ffnet"),
    ("cascade_mask_rcnn", "mixernet"),
]
FULL = [pytest.param(head, family, False, marks=pytest.mark.slow) for head in HEADS for family in SMALLEST]
every_pair = pytest.mark.parametrize(("head", "family", "small"), [*((*pair, True) for pair in SMALL), *FULL])
TOY_OF = {**SMALLEST, "dsm": "dsm_s"}


def build(head: str, family: str, small: bool) -> Any:
    options: dict[str, Any] = {}
    if head == "deeplabv3":
        options = {"output_stride": 16 if family == "affnet" else 32, "aux": True}
    return dense(head, (TOY_OF if small else SMALLEST)[family], narrow=small, **options)


@torch.no_grad()
def results(model: nn.Module, head: str) -> list[Tensor]:
    """All that a model computes, as one list of tensors; images of one odd size, or of several."""
    if head in SEGMENTERS:
        return [model(images(*SIZES[0], dtype=torch.float64))]
    return [one[key] for one in model(pictures()) for key in sorted(one)]


@every_pair
def test_trains_on_odd_sizes(head: str, family: str, small: bool) -> None:
    model = build(head, family, small).float().train()
    if head in SEGMENTERS:
        losses = {name: y.square().mean() for name, y in model(images(*SIZES[0])).items()}
    else:
        losses = model(pictures(torch.float32), objects(torch.float32))
    total = sum(losses.values())
    total.backward()
    assert bool(torch.isfinite(total))
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert missing == []


@every_pair
def test_fused_form_is_equal(head: str, family: str, small: bool) -> None:
    model = build(head, family, small)
    fused = reparameterize(model)
    assert not any(isinstance(module, ConvNorm | RepDepthwise) for module in fused.modules())
    found, expected = results(fused, head), results(model, head)
    assert [one.shape for one in found] == [one.shape for one in expected]
    filled = [pair for pair in zip(found, expected, strict=True) if len(pair[1])]
    assert filled
    assert all(distance(one.double(), other.double()) < 1e-8 for one, other in filled)


@pytest.mark.parametrize(("head", "family", "small"), [("semantic_fpn", "casvit", True), *FULL])
def test_exported_form_is_equal(head: str, family: str, small: bool, tmp_path) -> None:
    """Backbone, neck and raw heads in one file; and the heads that work on regions, in files of their own."""
    model = build(head, family, small).float()
    x = images(64, 96, batch=1)
    assert_same_in_onnx_runtime(Raw(model), x, tmp_path / "raw.onnx")
    for i, stage in enumerate(getattr(getattr(model, "roi_heads", None), "stages", [])[:1]):
        boxes = nn.Sequential(stage.box_head, stage.box_predictor)
        masks = nn.Sequential(stage.mask_head, stage.mask_predictor)
        assert_same_in_onnx_runtime(boxes, torch.randn(3, 256, 7, 7), tmp_path / f"boxes{i}.onnx")
        assert_same_in_onnx_runtime(masks, torch.randn(3, 256, 14, 14), tmp_path / f"masks{i}.onnx")


def assert_same_in_onnx_runtime(model: nn.Module, x: Tensor, path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    with torch.no_grad():
        expected = model.eval()(x)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(prepare(model), (x,), path, dynamo=True, verbose=False, external_data=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    expected = [expected] if isinstance(expected, Tensor) else list(expected)
    for one, other in zip(found, expected, strict=True):
        assert distance(torch.from_numpy(one), other) < 1e-4
