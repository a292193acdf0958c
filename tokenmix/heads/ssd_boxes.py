"""SSD's boxes (arXiv:1512.02325) as CVNets has them: anchors, their match with objects, the coding of boxes, the loss.

Boxes are fractions of the image, anchors ``(cx, cy, w, h)``, all others corners ``(x1, y1, x2, y2)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_convert, box_iou

SCALES = (0.1, 1.05)  # of the anchors: of the first level, and of one behind the last
VARIANCES = (0.1, 0.2)  # of centres and of sizes


def anchors(sizes: Sequence[tuple[int, int]], ratios: Sequence[Sequence[float]], device=None) -> Tensor:
    """``(N, 4)`` anchors of all levels, float32.

    For each level its cells row by row; for each cell a square, a larger square, and for each ratio, ascending, a wide
    and a tall box.

    Args:
        sizes: Height and width of every level's map.
        ratios: Aspect ratios above 1 of every level.
        device: Where to make them.
    """
    low, high = SCALES
    scales = [low + (high - low) * i / len(sizes) for i in range(len(sizes) + 1)]
    levels = []
    for (height, width), own, scale, following in zip(sizes, ratios, scales, scales[1:], strict=False):
        middle = math.sqrt(scale * following)
        shapes = [(scale, scale), (middle, middle)]
        for root in (math.sqrt(ratio) for ratio in sorted(own)):
            shapes += [(scale * root, scale / root), (scale / root, scale * root)]
        y = (torch.arange(height, device=device) + 0.5) / height
        x = (torch.arange(width, device=device) + 0.5) / width
        centres = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 1, 2)
        wh = torch.tensor(shapes, device=device)[None].expand(len(centres), -1, -1)
        levels.append(torch.cat([centres.expand(-1, len(shapes), -1), wh], -1).reshape(-1, 4))
    return torch.cat(levels).clamp(0.0, 1.0)


def decode(locations: Tensor, anchors: Tensor) -> Tensor:
    """``(..., N, 4)`` predicted locations and ``(N, 4)`` anchors -> ``(..., N, 4)`` corners."""
    centre = locations[..., :2] * VARIANCES[0] * anchors[:, 2:] + anchors[:, :2]
    size = (locations[..., 2:] * VARIANCES[1]).exp() * anchors[:, 2:]
    return box_convert(torch.cat([centre, size], -1), "cxcywh", "xyxy")


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """``(N, 4)`` corners and anchors -> the ``(N, 4)`` locations that `decode` makes these boxes of."""
    wanted = box_convert(boxes, "xyxy", "cxcywh")
    centre = (wanted[:, :2] - anchors[:, :2]) / anchors[:, 2:] / VARIANCES[0]
    return torch.cat([centre, (wanted[:, 2:] / anchors[:, 2:]).log() / VARIANCES[1]], -1)


def match(boxes: Tensor, labels: Tensor, anchors: Tensor, threshold: float = 0.5) -> tuple[Tensor, Tensor]:
    """Which object every anchor stands for: labels ``(N,)``, 0 for none, and corners ``(N, 4)``.

    An anchor takes the object that it overlaps most, if that is at least ``threshold`` (intersection over union); and
    every object gets the anchor that overlaps it most, whatever that is.
    """
    if len(boxes) == 0:
        return labels.new_zeros(len(anchors)), anchors.new_zeros(len(anchors), 4)
    overlaps = box_iou(boxes, box_convert(anchors, "cxcywh", "xyxy"))
    best, chosen = overlaps.max(0)
    own = overlaps.argmax(1)
    chosen[own] = torch.arange(len(boxes), device=boxes.device)
    best[own] = 1.0
    return labels[chosen].where(best >= threshold, 0), boxes[chosen]


def losses(scores: Tensor, locations: Tensor, labels: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Cross-entropy and smooth L1, each summed and divided by the number of positive anchors.

    Of the negative anchors of an image only the hardest count, three for every positive one.

    Args:
        scores: ``(B, N, 1 + K)`` logits, background first.
        locations: ``(B, N, 4)``.
        labels: ``(B, N)``, 0 for the background.
        targets: ``(B, N, 4)``, what ``locations`` should be where there is an object.
    """
    positive = labels > 0
    entropy = F.cross_entropy(scores.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
    hardness = entropy.detach().masked_fill(positive, -torch.inf)
    rank = hardness.argsort(1, descending=True).argsort(1)
    counted = positive | (rank < 3 * positive.sum(1, keepdim=True))
    total = positive.sum().clamp(min=1)
    boxes = F.smooth_l1_loss(locations[positive], targets[positive], reduction="sum")
    return {"loss_classifier": (entropy * counted).sum() / total, "loss_box": boxes / total}
