"""Dense models as files: raw outputs and detections at odd sizes, and two stages in one file."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops import nms

from tests.backbone_cases import SMALLEST, images
from tests.dense_cases import DETECTORS, SEGMENTERS, SIZES
from tests.export_cases import opened_dense
from tokenmix.export import export, prepare
from tokenmix.export.onnx_file import run_onnx
from tokenmix.heads import HEADS
from tokenmix.heads.fixed_shapes import FixedInstances, suppress
from tokenmix.heads.in_graph import DetectInstances
from tokenmix.heads.upernet import MeanCells
from tokenmix.tasks import find_task

SMALL = {
    "deeplabv3": "affnet_et",
    "semantic_fpn": "casvit_xs",
    "upernet": "dsm_s",
    "ffnet_seg": "ffnet_1",
    "ssdlite": "affnet_et",
    "retinanet": "casvit_xs",
    "mask_rcnn": "ffnet_1",
    "cascade_mask_rcnn": "mixernet_pico",
}
ODD = SIZES[0]
PARTS: dict[str, tuple[str, ...]] = {"segmentation": ("normalize", "argmax"), "detection": ("normalize", "nms")}


@pytest.fixture(autouse=True)
def packages() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")


@pytest.mark.parametrize("head", DETECTORS)
@torch.no_grad()
def test_detections_are_the_models_own(head: str) -> None:
    """On an odd size, where torchvision's own code runs beside ours, after the same suppression."""
    model: Any = opened_dense(head, SMALL[head], ODD).model.double()
    x = images(*ODD, batch=1, dtype=torch.float64)
    (expected,) = model([x[0]])
    found = HEADS[head].in_graph(model)(x)
    assert len(expected["scores"]) >= 5
    for name, one in zip(("boxes", "scores", "labels"), found, strict=False):
        torch.testing.assert_close(one, expected[name], rtol=0, atol=1e-6)
    if head in ("mask_rcnn", "cascade_mask_rcnn"):
        torch.testing.assert_close(paste_masks_in_image(found[3], found[0], ODD), expected["masks"])


def many_regions(head: str) -> Any:
    """More regions than `opened_dense` leaves, fewer detections of the needed score than there is room for."""
    model: Any = opened_dense(head, SMALL[head], ODD).model.double()
    model.rpn._pre_nms_top_n = model.rpn._post_nms_top_n = {"testing": 150}
    for stage in getattr(model.roi_heads, "stages", [model.roi_heads]):
        stage.score_thresh, stage.detections_per_img = 0.3, 60
    return model


@pytest.mark.parametrize("head", ["mask_rcnn", pytest.param("cascade_mask_rcnn", marks=pytest.mark.slow)])
@torch.no_grad()
def test_fixed_shapes_hold_the_same_detections(head: str) -> None:
    model, x = many_regions(head), images(*ODD, batch=1, dtype=torch.float64)
    expected, found = HEADS[head].in_graph(model)(x), FixedInstances(model)(x)
    count = len(expected[1])
    assert 5 <= count < 60
    for one, other in zip(found, expected, strict=True):
        assert len(one) == 60
        torch.testing.assert_close(one[:count], other, rtol=0, atol=1e-9)
    assert not any(one[count:].any() for one in found[:3])


@torch.no_grad()
def test_one_sampling_is_roi_align() -> None:
    """Boxes of all sizes, on the borders, and without area; in torchvision samples outside of a map are zero."""
    model = many_regions("mask_rcnn")
    generator = torch.Generator().manual_seed(0)
    height, width = ODD
    maps = DetectInstances(model).pyramid(images(*ODD, batch=1, dtype=torch.float64))[:4]
    corner = torch.rand(200, 2, generator=generator, dtype=torch.float64) * torch.tensor([width, height])
    side = torch.rand(200, 1, generator=generator, dtype=torch.float64) ** 4 * 150
    corners = torch.cat([corner, corner + side], 1)
    corners[:20, 2:] = corners[:20, :2]
    multiple = model.transform.size_divisible
    padded = [-(-side // multiple) * multiple for side in ODD]
    corners[20:40] += torch.tensor([padded[1], padded[0]]).repeat(2) - corners[20:40, 2:].repeat(1, 2)
    for pool in (model.roi_heads.box_roi_pool, model.roi_heads.mask_roi_pool):
        expected = DetectInstances(model).regions(maps, corners, pool)
        assert (expected == 0).any()
        torch.testing.assert_close(FixedInstances(model).regions(maps, corners, pool), expected, rtol=0, atol=1e-9)


@torch.no_grad()
def test_what_is_no_number_stays_harmless() -> None:
    """Maps that overflow make boxes of NaN, and these no index out of range."""
    model = many_regions("mask_rcnn")
    found = FixedInstances(model)(torch.full((1, 3, *ODD), torch.nan, dtype=torch.float64))
    assert len(found[0]) == 60


@given(st.integers(1, 120), st.sampled_from([0.3, 0.5, 0.7]), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_suppression_by_products_is_greedy(count: int, threshold: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 60
    boxes = torch.cat([corner, corner + 10 + 40 * torch.rand(count, 2, generator=generator)], 1)
    alive = torch.rand(count, generator=generator) < 0.8
    (rows,) = torch.where(alive)
    expected = rows[nms(boxes[rows], -rows.float(), threshold)].sort().values
    assert torch.equal(torch.where(suppress(boxes, alive, threshold) > 0)[0], expected)


@pytest.mark.parametrize("n", [1, 2, 3, 6])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (7, 6), (13, 12)])
def test_cells_as_products_are_adaptive_pooling(n: int, size: tuple[int, int]) -> None:
    x = images(*size, dtype=torch.float64)
    exported = torch.export.export(MeanCells(n), (x,)).module()
    torch.testing.assert_close(exported(x), F.adaptive_avg_pool2d(x, n))


def test_raw_outputs_of_odd_sizes(tmp_path) -> None:
    manifest = export(opened_dense("ssdlite", "mixernet_pico", ODD), out=tmp_path / "m", tolerance=1e-4)
    assert manifest["input"]["shape"] == ["batch", 3, *ODD]
    assert [one["name"] for one in manifest["outputs"]] == ["scores", "boxes"]
    assert manifest["postprocess"]["kind"] == "ssdlite"
    assert manifest["postprocess"]["inside"] is False


def test_what_cannot_go_together_is_said(tmp_path) -> None:
    detector = opened_dense("ssdlite", "mixernet_pico", ODD)
    for arguments, message in (
        ({"inside": ("nms",), "dynamic_size": True}, "takes one size"),
        ({"inside": ("nms",), "dynamic_batch": True}, "one sample at a time"),
        ({"inside": ("argmax",)}, "'argmax' cannot be inside a file for detection"),
        ({"inside": ("resize",)}, "'resize' cannot be inside a file for detection"),
    ):
        with pytest.raises(ValueError, match=message):
            export(detector, out=tmp_path / "m", **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_dynamic_sizes(head: str, tmp_path) -> None:
    if HEADS[head].task == "instances":
        pytest.skip("two stages are one file of one size")
    model = opened_dense(head, SMALL[head], (289, 320))  # so large that the coarsest map has more than one cell
    export(model, out=tmp_path / "m", dynamic_size=True, tolerance=1e-4)
    with torch.no_grad():
        whole = prepare(find_task(model.task).file_form(model, ODD).module())
        for size in (ODD, (97, 130), (300, 223)):
            x = images(*size, batch=1)
            right = whole(x)
            right = [right] if isinstance(right, torch.Tensor) else right
            for one, other in zip(run_onnx(tmp_path / "m.onnx", x), right, strict=True):
                assert (torch.from_numpy(one) - other).abs().max() <= 1e-4 * other.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("family", SMALLEST)
@pytest.mark.parametrize("head", HEADS)
def test_every_head_with_every_family_at_an_odd_size(head: str, family: str, tmp_path) -> None:
    """Backbone, neck and raw heads in one file; of two stages all, with suppression and masks."""
    options = {"output_stride": 16 if family == "affnet" else 32, "aux": True} if head == "deeplabv3" else {}
    model = opened_dense(head, SMALLEST[family], ODD, narrow=False, **options)
    manifest = export(model, out=tmp_path / "m", tolerance=1e-4)
    assert manifest["files"]["onnx"]["errors"]["verified"]


@pytest.mark.slow
@pytest.mark.parametrize("head", [*SEGMENTERS, "ssdlite", "retinanet"])
def test_outputs_read_inside(head: str, tmp_path) -> None:
    model = opened_dense(head, SMALL[head], ODD)
    manifest = export(model, out=tmp_path / "m", inside=PARTS[model.task])
    assert manifest["preprocess"]["inside"] == ["normalize"]
    assert manifest["postprocess"]["inside"]


@pytest.mark.slow
def test_a_picture_without_objects(tmp_path) -> None:
    """Every step of two stages also works on nothing."""
    model = opened_dense("mask_rcnn", SMALL["mask_rcnn"], ODD)
    heads: Any = model.model.roi_heads
    heads.score_thresh = 1.0
    export(model, out=tmp_path / "m")
    found = run_onnx(tmp_path / "m.onnx", images(*ODD, batch=1))
    assert [one.shape for one in found] == [(0, 4), (0,), (0,), (0, 1, 28, 28)]
