"""Detectors from one picture to its detections, in a form that can be exported: decoding and suppression in the graph.

The results are those of the models themselves, whose code in torchvision cannot be traced.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image, nms, roi_align

from tokenmix.heads import ssd_boxes
from tokenmix.heads.ssdlite import RATIOS

Found = tuple[Tensor, Tensor, Tensor]


class Padded(nn.Module):
    """``(B, C, H, W)`` -> what a module makes of it with zeros on the right and below, sides rounded up.

    Args:
        module: The module.
        multiple: Of which both sides are then multiples.
    """

    def __init__(self, module: nn.Module, multiple: int) -> None:
        super().__init__()
        self.module, self.multiple = module, multiple

    def forward(self, x: Tensor) -> Any:
        below, right = -x.shape[-2] % self.multiple, -x.shape[-1] % self.multiple
        return self.module(F.pad(x, (0, right, 0, below)))


class DetectSSDLite(nn.Module):
    """``(1, C, H, W)`` -> boxes ``(M, 4)`` in pixels, scores ``(M,)``, labels ``(M,)`` from 1, best first.

    Args:
        model: An `SSDLite`.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Found:
        model = self.model
        maps = model.features(x)
        scores, locations = model.predict(maps)
        anchors = ssd_boxes.anchors([(y.shape[2], y.shape[3]) for y in maps], RATIOS, x.device)
        boxes = ssd_boxes.decode(locations[0], anchors)
        shares = scores[0].softmax(-1)[:, 1:]
        best, rows = shares.topk(min(len(shares), model.candidates), 0)  # (candidates, classes)
        labels = (torch.arange(model.num_classes) + 1).expand_as(best)
        (above,) = torch.where(best.flatten() > model.score_threshold)
        boxes, best, labels = boxes[rows.flatten()[above]], best.flatten()[above], labels.flatten()[above]
        order = _suppress(boxes, best, labels, model.nms_threshold, model.max_detections, 4.0)
        height, width = x.shape[-2:]
        pixels = torch.tensor([width, height, width, height], dtype=boxes.dtype)
        return clip_boxes_to_image(boxes[order] * pixels, (height, width)), best[order], labels[order]


class _Anchored(nn.Module):
    """What the detectors of torchvision's kind share: padding and anchors.

    Args:
        model: The detector.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.strides = map_strides(model)

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """The maps of the padded image."""
        return list(Padded(self.model.backbone, self.model.transform.size_divisible)(x).values())

    def anchors(self, y: Tensor, level: int, generator: Any) -> Tensor:
        """``(h * w * A, 4)``: those of a map, its cells row by row."""
        stride, cells = self.strides[level], generator.cell_anchors[level].to(y)
        rows, columns = torch.arange(y.shape[-2]) * stride, torch.arange(y.shape[-1]) * stride
        top, left = torch.meshgrid(rows, columns, indexing="ij")
        shifts = torch.stack([left, top, left, top], -1).reshape(-1, 1, 4)
        return (shifts + cells).reshape(-1, 4)


class DetectRetinaNet(_Anchored):
    """``(1, C, H, W)`` -> boxes ``(M, 4)`` in pixels, scores ``(M,)``, labels ``(M,)`` from 1, best first."""

    def forward(self, x: Tensor) -> Found:
        model, size = self.model, (x.shape[-2], x.shape[-1])
        maps = self.pyramid(x)
        found = []
        for level, y in enumerate(maps):
            outputs = model.head([y])
            logits, offsets = outputs["cls_logits"][0], outputs["bbox_regression"][0]
            scores, best = logits.sigmoid().flatten().topk(min(logits.numel(), model.topk_candidates))
            rows = best // logits.shape[-1]
            anchors = self.anchors(y, level, model.anchor_generator)[rows]
            boxes = clip_boxes_to_image(model.box_coder.decode_single(offsets[rows], anchors), size)
            found.append((boxes, scores, best % logits.shape[-1]))
        boxes, scores, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
        (above,) = torch.where(scores > model.score_thresh)
        boxes, scores, labels = boxes[above], scores[above], labels[above]
        order = _suppress(boxes, scores, labels, model.nms_thresh, model.detections_per_img, max(size))
        return boxes[order], scores[order], labels[order] + 1


class DetectInstances(_Anchored):
    """``(1, C, H, W)`` -> boxes ``(M, 4)``, scores ``(M,)``, labels ``(M,)`` and masks ``(M, 1, 28, 28)``, best first.

    Of Mask R-CNN and of Cascade Mask R-CNN, of which the first is the case of one stage. Masks are probabilities over
    their boxes; torchvision's ``paste_masks_in_image`` puts them into the image.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        size = (x.shape[-2], x.shape[-1])
        maps = self.pyramid(x)
        boxes = self.proposals(maps, size)
        maps = maps[:4]  # the coarsest one only proposes
        stages = list(getattr(self.model.roi_heads, "stages", [self.model.roi_heads]))
        votes = []
        for i, stage in enumerate(stages):
            logits, deltas = stage.box_predictor(stage.box_head(self.regions(maps, boxes, stage.box_roi_pool)))
            moved = stage.box_coder.decode_single(deltas, boxes).unflatten(1, (-1, 4))  # (N, classes, 4)
            moved = clip_boxes_to_image(moved, size)
            votes.append(logits)
            if i + 1 < len(stages):
                chosen = logits[:, 1:].argmax(1) + 1
                boxes = moved.gather(1, chosen[:, None, None].expand(-1, 1, 4)).squeeze(1)
        boxes, scores, labels = self.detections(torch.stack(votes).mean(0), moved, stages[-1], size)
        masks = []
        for stage in stages:
            logits = stage.mask_predictor(stage.mask_head(self.regions(maps, boxes, stage.mask_roi_pool)))
            own = labels[:, None, None, None].expand(-1, 1, logits.shape[2], logits.shape[3])
            masks.append(logits.sigmoid().gather(1, own))
        return boxes, scores, labels, torch.stack(masks).mean(0)

    def proposals(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
        """``(N, 4)``: the boxes that may hold an object, of the first stage."""
        rpn = self.model.rpn
        boxes, scores, counts = self.candidates(maps, size)
        levels = torch.cat([torch.full((count,), level) for level, count in enumerate(counts)])
        (kept,) = torch.where(at_least(boxes, rpn.min_size) & (scores >= rpn.score_thresh))
        boxes, scores, levels = boxes[kept], scores[kept], levels[kept]
        return boxes[_suppress(boxes, scores, levels, rpn.nms_thresh, rpn.post_nms_top_n(), max(size))]

    def candidates(self, maps: list[Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor, list[int]]:
        """Boxes ``(N, 4)`` and scores ``(N,)`` of the best anchors, best first in each map; how many are each map's."""
        rpn = self.model.rpn
        found = []
        for level, (y, objectness, deltas) in enumerate(zip(maps, *rpn.head(maps), strict=True)):
            objectness = objectness[0].permute(1, 2, 0).flatten()
            deltas = deltas[0].unflatten(0, (-1, 4)).permute(2, 3, 0, 1).reshape(-1, 4)
            best, rows = objectness.topk(min(len(objectness), rpn.pre_nms_top_n()))
            found.append((deltas[rows], self.anchors(y, level, rpn.anchor_generator)[rows], best))
        deltas, anchors, best = (torch.cat(parts) for parts in zip(*found, strict=True))
        boxes = clip_boxes_to_image(rpn.box_coder.decode_single(deltas, anchors), size)
        return boxes, best.sigmoid(), [len(part[2]) for part in found]

    def regions(self, maps: list[Tensor], boxes: Tensor, pool: Any) -> Tensor:
        """``(N, C, h, w)``: what the maps hold in the boxes, each from the map that fits its size."""
        rois = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], 1)
        level = self.levels(boxes, pool, len(maps))
        pooled = maps[0].new_zeros(boxes.shape[0], maps[0].shape[1], *pool.output_size)
        for i, (y, stride) in enumerate(zip(maps, self.strides, strict=False)):
            (rows,) = torch.where(level == i)
            part = roi_align(y, rois[rows], pool.output_size, 1 / stride, pool.sampling_ratio)
            pooled = pooled.index_put((rows,), part)
        return pooled

    def levels(self, boxes: Tensor, pool: Any, maps: int) -> Tensor:
        """``(N,)``: the number of the map that fits the size of a box, among so many."""
        side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
        level = torch.floor(pool.canonical_level + torch.log2(side / pool.canonical_scale) + 1e-6)
        finest = int(math.log2(self.strides[0]))
        level = torch.where(side > 0, level, torch.full_like(level, finest))  # NaN would point beyond all maps
        return level.clamp(finest, finest + maps - 1).long() - finest

    def detections(self, logits: Tensor, boxes: Tensor, stage: Any, size: tuple[int, int]) -> Found:
        """Suppression among the boxes ``(N, classes, 4)`` of all classes but the background."""
        scores = logits.softmax(-1)[:, 1:]
        labels = (torch.arange(scores.shape[1]) + 1).expand_as(scores).flatten()
        boxes, scores = boxes[:, 1:].flatten(0, 1), scores.flatten()
        (kept,) = torch.where((scores > stage.score_thresh) & at_least(boxes, 1e-2))
        boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        order = _suppress(boxes, scores, labels, stage.nms_thresh, stage.detections_per_img, max(size))
        return boxes[order], scores[order], labels[order]


@torch.no_grad()
def map_strides(model: Any) -> list[int]:
    """The strides in pixels of a detector's maps, from fine to coarse."""
    multiple = model.transform.size_divisible
    first = next(parameter for parameter in model.parameters() if parameter.ndim == 4)
    image = first.new_zeros(1, first.shape[1], multiple, multiple)
    return [multiple // y.shape[-2] for y in model.backbone(image).values()]


def at_least(boxes: Tensor, side: float) -> Tensor:
    """Which boxes have at least that height and width."""
    return torch.logical_and(boxes[:, 2] - boxes[:, 0] >= side, boxes[:, 3] - boxes[:, 1] >= side)


def _suppress(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float, most: int, span: float) -> Tensor:
    """Indices of the boxes that remain, best first: those of a label compete, those of different ones are moved apart.

    Args:
        boxes: ``(N, 4)`` corners.
        scores: ``(N,)``.
        labels: ``(N,)``.
        threshold: Overlap above which the lesser one goes.
        most: How many remain.
        span: No box reaches further from the origin.
    """
    moved = boxes + (labels.to(boxes.dtype) * (span + 1))[:, None]
    return nms(moved, scores, threshold)[:most]
