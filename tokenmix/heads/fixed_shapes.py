"""Two-stage detectors with shapes that do not depend on the picture, for runtimes that lay out memory beforehand.

What is left out elsewhere is kept here as boxes without area or with a score of zero: always so many proposals, always
so many detections. Suppression is a matrix of overlaps and a few products with it, pooling one bilinear sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from tokenmix.heads.in_graph import DetectInstances, Found, at_least

ROUNDS = 24
"""Of suppression. A box's fate is settled one round after that of the better boxes that it overlaps: chains of overlaps
up to this length are exact, and an even number keeps what a longer one leaves open. A thousand random boxes of one size
took at most 13 rounds, Mask R-CNN with random weights on photographs 9."""
CANDIDATES = 1000
"""How many of the second stage's boxes, the best of all classes, compete for being detections."""


class FixedInstances(DetectInstances):
    """``(1, C, H, W)`` -> boxes ``(M, 4)``, scores ``(M,)``, labels ``(M,)`` and masks ``(M, 1, 28, 28)``, best first.

    M is the detector's largest number of detections. The last rows have score, box and label 0 where there are fewer.
    """

    def proposals(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
        """See `DetectInstances`; the last ones are zeros if fewer remain."""
        rpn = self.model.rpn
        boxes, scores, counts = self.candidates(maps, size)
        alive = torch.logical_and(at_least(boxes, rpn.min_size), scores >= rpn.score_thresh)
        levels = zip(boxes.split(counts), alive.split(counts), strict=True)
        scores = scores * torch.cat([suppress(*level, rpn.nms_thresh) for level in levels])
        best, rows = scores.topk(min(len(scores), rpn.post_nms_top_n()))
        return boxes[rows] * (best > 0)[:, None]

    def regions(self, maps: list[Tensor], boxes: Tensor, pool: Any) -> Tensor:
        """RoiAlign as one bilinear sampling of a canvas that holds all maps, one below the other."""
        heights, widths = ([y.shape[axis] for y in maps] for axis in (2, 3))
        # One column of zeros or more on the right, for what lies outside of a map.
        canvas = torch.cat([F.pad(y, (0, widths[0] + 1 - y.shape[3], 0, 0)) for y in maps], 2)
        level = self.levels(boxes, pool, len(maps))

        def of_level(numbers: Sequence[float]) -> Tensor:
            return torch.tensor(numbers, dtype=boxes.dtype)[level, None]

        scale = of_level([1 / stride for stride in self.strides[: len(maps)]])
        points = []
        for axis, cells in ((0, pool.output_size[1]), (1, pool.output_size[0])):
            start, end = boxes[:, axis, None] * scale, boxes[:, axis + 2, None] * scale
            samples = cells * pool.sampling_ratio
            steps = (torch.arange(samples, dtype=boxes.dtype) + 0.5) / samples
            points.append(start + (end - start).clamp(min=1) * steps)
        x, y = points  # (N, samples) each
        width, height = of_level(widths), of_level(heights)
        above = of_level([sum(heights[:i]) for i in range(len(maps))])
        outside = torch.logical_or((x > width)[:, None, :], (y > height)[:, :, None])
        x = torch.minimum(x, width - 1)[:, None, :].expand(outside.shape)
        y = (torch.minimum(y, height - 1) + above)[:, :, None].expand(outside.shape)
        x = torch.where(outside, float(widths[0]), x)
        grid = torch.stack([2 * x / widths[0] - 1, 2 * y / (canvas.shape[2] - 1) - 1], -1)
        sampled = F.grid_sample(canvas, grid.flatten(0, 1)[None], align_corners=True, padding_mode="border")
        pooled = F.avg_pool2d(sampled, pool.sampling_ratio)[0].unflatten(1, (-1, pool.output_size[0]))
        return pooled.transpose(0, 1)

    def detections(self, logits: Tensor, boxes: Tensor, stage: Any, size: tuple[int, int]) -> Found:
        """See `DetectInstances`; the last ones are zeros if fewer remain."""
        classes = logits.shape[1] - 1
        flat = boxes[:, 1:].flatten(0, 1)
        scores = logits.softmax(-1)[:, 1:].flatten() * at_least(flat, 1e-2)
        scores, best = scores.topk(min(len(scores), CANDIDATES))
        labels, flat = best % classes + 1, flat[best]
        apart = flat + (labels * (max(size) + 1))[:, None]  # different classes do not compete
        scores = scores * suppress(apart, scores > stage.score_thresh, stage.nms_thresh)
        scores, rows = scores.topk(min(len(scores), stage.detections_per_img))
        found = scores > 0
        return flat[rows] * found[:, None], scores, labels[rows] * found


def suppress(boxes: Tensor, alive: Tensor, threshold: float) -> Tensor:
    """Which boxes remain, 1 or 0 of the boxes' type: greedy suppression as the fixed point of a matrix product.

    Args:
        boxes: ``(N, 4)`` corners, best first.
        alive: ``(N,)``: whether they take part at all.
        threshold: Overlap above which the lesser one goes.
    """
    better = torch.ones(1, len(boxes), len(boxes), dtype=boxes.dtype).triu(1)
    beats = better * (box_iou(boxes, boxes) > threshold)
    kept = alive = alive.to(boxes.dtype)[None, None]
    for _ in range(min(ROUNDS, len(boxes))):
        kept = F.relu(alive - torch.bmm(kept, beats))  # all of which XNNPACK has
    return kept[0, 0]
