"""SSD's boxes against torchvision's parts and plain loops."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder, SSDMatcher
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_convert, box_iou

from tests.backbone_cases import images
from tests.dense_cases import SIZES, dense, objects, pictures
from tokenmix.heads import ssd_boxes
from tokenmix.heads.ssdlite import RATIOS

MAPS = ((5, 7), (3, 4), (2, 2), (1, 1), (1, 1), (1, 1))


def random_boxes(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner, size = torch.rand(2, count, 2, generator=generator, dtype=torch.float64)
    return torch.cat([corner * 0.7, corner * 0.7 + 0.02 + size * 0.3], 1)


def all_anchors() -> Tensor:
    return ssd_boxes.anchors(MAPS, RATIOS).double()


def test_anchors_are_those_of_plain_loops() -> None:
    scales = [0.1 + 0.95 * i / 6 for i in range(7)]
    expected = []
    for level, (height, width) in enumerate(MAPS):
        scale, middle = scales[level], (scales[level] * scales[level + 1]) ** 0.5
        for y in range(height):
            for x in range(width):
                shapes = [(scale, scale), (middle, middle)]
                for ratio in RATIOS[level]:
                    shapes += [(scale * ratio**0.5, scale / ratio**0.5), (scale / ratio**0.5, scale * ratio**0.5)]
                expected += [((x + 0.5) / width, (y + 0.5) / height, *shape) for shape in shapes]
    anchors = ssd_boxes.anchors(MAPS, RATIOS)
    assert anchors.dtype == torch.float32
    assert (anchors.double() - torch.tensor(expected, dtype=torch.float64).clamp(0, 1)).abs().max() < 1e-7


def test_coding_is_torchvisions() -> None:
    anchors = all_anchors()
    boxes = random_boxes(len(anchors))
    coder, corners = BoxCoder((10.0, 10.0, 5.0, 5.0)), box_convert(anchors, "cxcywh", "xyxy")
    locations = ssd_boxes.encode(boxes, anchors)
    assert torch.allclose(locations, coder.encode_single(boxes, corners), rtol=0, atol=1e-12)
    assert torch.allclose(ssd_boxes.decode(locations, anchors), boxes, rtol=0, atol=1e-12)
    several = torch.stack([locations, locations.flip(0)])
    assert torch.allclose(
        ssd_boxes.decode(several, anchors)[1], coder.decode_single(several[1], corners), rtol=0, atol=1e-12
    )


@given(count=st.integers(0, 12), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_matching_is_torchvisions(count: int, seed: int) -> None:
    anchors, boxes = all_anchors(), random_boxes(count, seed)
    labels = torch.arange(1, count + 1)
    found, targets = ssd_boxes.match(boxes, labels, anchors)
    if count == 0:
        assert not found.any()
        return
    indices = SSDMatcher(0.5)(box_iou(boxes, box_convert(anchors, "cxcywh", "xyxy")))
    assert torch.equal(found, torch.where(indices >= 0, labels[indices.clamp(min=0)], 0))
    assert torch.equal(targets[found > 0], boxes[indices[indices >= 0]])


@pytest.mark.parametrize("counts", [(3, 1), (2, 0), (0, 0)])
def test_loss_is_torchvisions(counts: tuple[int, int]) -> None:
    anchors = all_anchors()
    corners = box_convert(anchors, "cxcywh", "xyxy")
    generator = torch.Generator().manual_seed(4)
    scores = torch.randn(2, len(anchors), 6, generator=generator, dtype=torch.float64, requires_grad=True)
    locations = torch.randn(2, len(anchors), 4, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = [
        {"boxes": random_boxes(n, i), "labels": torch.randint(1, 6, (n,), generator=generator)}
        for i, n in enumerate(counts)
    ]
    pairs = [ssd_boxes.match(t["boxes"], t["labels"], anchors) for t in targets]
    wanted = torch.stack([ssd_boxes.encode(boxes, anchors) for _, boxes in pairs])
    ours = ssd_boxes.losses(scores, locations, torch.stack([label for label, _ in pairs]), wanted)
    indices = [
        SSDMatcher(0.5)(box_iou(t["boxes"], corners)) if len(t["boxes"]) else torch.full((len(anchors),), -1)
        for t in targets
    ]
    reference = SSD.compute_loss(
        SimpleNamespace(box_coder=BoxCoder((10.0, 10.0, 5.0, 5.0)), neg_to_pos_ratio=3),
        targets,
        {"cls_logits": scores, "bbox_regression": locations},
        [corners, corners],
        indices,
    )
    assert torch.allclose(ours["loss_classifier"], reference["classification"], rtol=1e-10, atol=0)
    assert torch.allclose(ours["loss_box"], reference["bbox_regression"], rtol=1e-10, atol=0)
    gradients = [
        torch.autograd.grad(sum(losses.values()), [scores, locations], retain_graph=True)
        for losses in (ours, reference)
    ]
    assert all(torch.allclose(*pair, rtol=0, atol=1e-12) for pair in zip(*gradients, strict=True))


def plain_detections(scores: Tensor, boxes: Tensor) -> list[tuple[float, int, int]]:
    """Greedy suppression, one class after the other: score, label and anchor of the best 200."""
    found = []
    probabilities = scores.softmax(1)
    for label in range(1, scores.shape[1]):
        order = sorted(range(len(boxes)), key=lambda i, c=label: -float(probabilities[i, c]))
        left = [i for i in order if probabilities[i, label] > 0.01][:400]
        while left:
            best, *left = left
            found.append((float(probabilities[best, label]), label, best))
            left = [i for i in left if float(box_iou(boxes[best : best + 1], boxes[i : i + 1])) <= 0.5]
    return sorted(found, reverse=True)[:200]


def test_suppression_is_that_of_plain_loops() -> None:
    model = dense("ssdlite", "mixernet_pico")
    model.score_threshold = 0.01
    boxes = random_boxes(60)
    scores = torch.randn(60, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 2
    found, expected = model.detect(scores, boxes), plain_detections(scores, boxes)
    assert 0 < len(expected) < 180
    assert found["labels"].tolist() == [label for _, label, _ in expected]
    assert torch.equal(found["boxes"], boxes[[anchor for _, _, anchor in expected]])
    assert found["scores"].tolist() == [score for score, _, _ in expected]
    nothing = model.detect(torch.tensor([[50.0, 0.0, 0.0, 0.0]], dtype=torch.float64), boxes[:1])
    assert [len(value) for value in nothing.values()] == [0, 0, 0]


@torch.no_grad()
def test_detections_are_in_the_pixels_of_each_image() -> None:
    model = dense("ssdlite", "mixernet_pico")
    for one, (height, width) in zip(model(pictures()), SIZES, strict=True):
        assert len(one["boxes"]) > 0
        x1, y1, x2, y2 = one["boxes"].unbind(1)
        assert bool(((x1 >= 0) & (x1 <= x2) & (x2 <= width) & (y1 >= 0) & (y1 <= y2) & (y2 <= height)).all())
    canvas = torch.zeros(1, 3, 75, 110, dtype=torch.float64)
    canvas[0, :, :75, :93] = pictures()[0]
    scores, locations = model.raw(canvas)
    maps = [(y.shape[2], y.shape[3]) for y in model.features(canvas)]
    whole = model.detect(scores[0], ssd_boxes.decode(locations[0], ssd_boxes.anchors(maps, RATIOS).double()))
    pixels = whole["boxes"] * torch.tensor([110.0, 75.0, 110.0, 75.0], dtype=torch.float64)
    pixels[:, 0::2].clamp_(0, 93)
    pixels[:, 1::2].clamp_(0, 75)
    assert torch.allclose(pixels, model(pictures())[0]["boxes"], rtol=0, atol=1e-9)


def test_training_needs_targets() -> None:
    model = dense("ssdlite", "mixernet_pico").train()
    with pytest.raises(ValueError, match="needs targets"):
        model(list(images(64, 64, dtype=torch.float64)))
    losses = model(pictures(), objects())
    assert set(losses) == {"loss_classifier", "loss_box"}
