"""The cascade's three stages against plain loops over boxes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou, generalized_box_iou

from tests.scramble import scramble
from tokenmix.heads.cascade import CascadeHeads

SHAPES = [(64, 96), (96, 64)]
OVERLAPS, SPREADS, WEIGHTS = (0.5, 0.6, 0.7), ((0.1, 0.2), (0.05, 0.1), (1 / 30, 1 / 15)), (1.0, 0.5, 0.25)


@pytest.fixture(scope="module")
def heads() -> Any:
    """All boxes are sampled: no chance is left."""
    model = scramble(CascadeHeads(8, 4)).double().eval()
    for stage in model.stages:
        stage.fg_bg_sampler.positive_fraction = 1.0
        stage.detections_per_img = 4
        stage.box_predictor.bbox_pred.weight.data *= 0.1
    return model


def scene() -> tuple[dict[str, Tensor], list[Tensor], list[dict[str, Tensor]]]:
    """Pyramid maps, proposals around three objects and elsewhere, and the objects; none on the second image."""
    generator = torch.Generator().manual_seed(0)
    maps = {
        str(i): torch.randn(2, 8, 96 >> (2 + i), 96 >> (2 + i), generator=generator, dtype=torch.float64)
        for i in range(4)
    }
    objects = torch.tensor([[8.0, 8, 40, 50], [30, 20, 90, 60], [50, 5, 70, 25]], dtype=torch.float64)
    near = objects.repeat(4, 1) + 3 * torch.randn(12, 4, generator=generator, dtype=torch.float64)
    corner = 50 * torch.rand(5, 2, generator=generator, dtype=torch.float64)
    far = torch.cat([corner, corner + 12], 1)
    masks = torch.zeros(3, *SHAPES[0], dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, objects.long().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    targets = [
        {"boxes": objects, "labels": torch.tensor([1, 3, 2]), "masks": masks},
        {
            "boxes": objects[:0],
            "labels": torch.zeros(0, dtype=torch.int64),
            "masks": torch.zeros(0, *SHAPES[1], dtype=torch.uint8),
        },
    ]
    return maps, [torch.cat([near, far]), far], targets


def moved(box: list[float], offsets: list[float], stage: int) -> list[float]:
    """A box moved by a stage's offsets: centre by a part of its size, size by a factor."""
    x1, y1, x2, y2 = box
    (spread, stretch), width, height = SPREADS[stage], x2 - x1, y2 - y1
    x, y = (x1 + x2) / 2 + offsets[0] * spread * width, (y1 + y2) / 2 + offsets[1] * spread * height
    width, height = width * math.exp(offsets[2] * stretch), height * math.exp(offsets[3] * stretch)
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def plain(heads: Any, maps: dict[str, Tensor], proposals: list[Tensor], targets: list[dict[str, Tensor]] | None) -> Any:
    """The cascade box by box: losses with targets; otherwise mean logits and the last stage's offsets and proposals."""
    losses, votes = {}, []
    for i, stage in enumerate(heads.stages):
        truth: list[tuple[int, Tensor | None]] = []  # label and object of every box
        if targets is not None:
            proposals = [torch.cat([p, t["boxes"]]) for p, t in zip(proposals, targets, strict=True)]
            for boxes, target in zip(proposals, targets, strict=True):
                for box in boxes:
                    overlaps = [float(box_iou(box[None], one[None])) for one in target["boxes"]]
                    best = max(range(len(overlaps)), key=overlaps.__getitem__, default=None)
                    hit = best is not None and overlaps[best] >= OVERLAPS[i]
                    truth.append((int(target["labels"][best]), target["boxes"][best]) if hit else (0, None))
        logits, offsets = stage.box_predictor(stage.box_head(stage.box_roi_pool(maps, proposals, SHAPES)))
        votes.append(logits)
        if targets is not None:
            entropy, distance = 0.0, 0.0
            flat = torch.cat(proposals).tolist()
            for row, move, box, (label, one) in zip(logits, offsets, flat, truth, strict=True):
                entropy -= float(F.log_softmax(row, 0)[label]) / len(truth)
                if one is not None:
                    own = torch.tensor([moved(box, move[4 * label : 4 * label + 4].tolist(), i)], dtype=torch.float64)
                    distance += (1 - float(generalized_box_iou(own, one[None]))) / len(truth)
            losses |= {f"loss_classifier_{i}": WEIGHTS[i] * entropy, f"loss_box_{i}": WEIGHTS[i] * 10 * distance}
        if i == 2:
            break
        following, row = [], 0
        for index, (boxes, (height, width)) in enumerate(zip(proposals, SHAPES, strict=True)):
            kept = []
            for box in boxes.tolist():
                label = truth[row][0] if truth else 0
                label = label or int(logits[row, 1:].argmax()) + 1
                x1, y1, x2, y2 = moved(box, offsets[row, 4 * label : 4 * label + 4].tolist(), i)
                row += 1
                if targets is None or box not in targets[index]["boxes"].tolist():
                    kept.append(
                        [min(max(v, 0), top) for v, top in zip((x1, y1, x2, y2), (width, height) * 2, strict=True)]
                    )
            following.append(torch.tensor(kept, dtype=torch.float64).view(-1, 4))
        proposals = following
    return losses if targets is not None else (torch.stack(votes).mean(0), offsets, proposals)


@torch.no_grad()
def test_losses_are_those_of_plain_loops(heads: Any) -> None:
    maps, proposals, targets = scene()
    expected = plain(heads, maps, proposals, targets)
    for module in heads.modules():  # training mode, but for the batch norms of the box heads
        module.training = not isinstance(module, torch.nn.BatchNorm2d)
    found = heads(maps, proposals, SHAPES, targets)[1]
    heads.eval()
    assert {name for name in found if "mask" not in name} == set(expected)
    for name, value in expected.items():
        assert value > 0
        assert float(found[name]) == pytest.approx(value, rel=1e-6), name
    assert all(float(found[f"loss_mask_{i}"]) > 0 for i in range(3))


@torch.no_grad()
def test_detections_come_from_the_mean_logits_and_the_last_boxes(heads: Any) -> None:
    maps, proposals, _ = scene()
    boxes, scores, labels = heads.stages[2].postprocess_detections(*plain(heads, maps, proposals, None), SHAPES)
    found, losses = heads(maps, proposals, SHAPES)
    assert losses == {}
    for i, one in enumerate(found):
        assert len(one["boxes"]) > 0
        assert torch.allclose(one["boxes"], boxes[i], rtol=0, atol=1e-9)
        assert torch.allclose(one["scores"], scores[i], rtol=0, atol=1e-12)
        assert torch.equal(one["labels"], labels[i])
        assert one["masks"].shape == (len(one["boxes"]), 1, 28, 28)
        logits = [
            stage.mask_predictor(stage.mask_head(stage.mask_roi_pool(maps, boxes, SHAPES))).sigmoid()
            for stage in heads.stages
        ]
        start = sum(len(b) for b in boxes[:i])
        rows = torch.arange(start, start + len(one["boxes"]))
        assert torch.allclose(one["masks"][:, 0], (sum(logits) / 3)[rows, labels[i]], rtol=0, atol=1e-12)
