"""The cascade of box and mask heads (arXiv:1712.00726, 1906.09756) that torchvision lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, maskrcnn_inference, maskrcnn_loss
from torchvision.ops import MultiScaleRoIAlign, clip_boxes_to_image, generalized_box_iou_loss

from tokenmix.layers import ConvNorm

OVERLAPS = (0.5, 0.6, 0.7)  # what a box must have with an object to stand for it, per stage
CODER_WEIGHTS = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))  # 1 / standard deviation
STAGE_WEIGHTS = (1.0, 0.5, 0.25)
BOX_WEIGHT = 10.0
Targets = Sequence[Mapping[str, Tensor]]


class CascadeHeads(nn.Module):
    """Pyramid maps and proposals -> detections with masks, or in training losses: takes the place of `RoIHeads`.

    Each stage classifies the boxes of the one before and moves them, and has a mask head of its own. In eval mode the
    stages' logits are averaged, and so are their masks; the last stage's boxes count.

    Args:
        dim: Channels of the maps.
        num_classes: The background included.
    """

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        maps = ["0", "1", "2", "3"]
        # Torchvision's heads of one stage, for their parts: matching, sampling, coding, suppression.
        self.stages = nn.ModuleList(
            RoIHeads(
                MultiScaleRoIAlign(maps, output_size=7, sampling_ratio=2),
                _box_head(dim),
                FastRCNNPredictor(1024, num_classes),
                fg_iou_thresh=overlap,
                bg_iou_thresh=overlap,
                batch_size_per_image=512,
                positive_fraction=0.25,
                bbox_reg_weights=weights,
                score_thresh=0.05,
                nms_thresh=0.5,
                detections_per_img=100,
                mask_roi_pool=MultiScaleRoIAlign(maps, output_size=14, sampling_ratio=2),
                mask_head=MaskRCNNHeads(dim, (256, 256, 256, 256), 1),
                mask_predictor=MaskRCNNPredictor(256, 256, num_classes),
            )
            for overlap, weights in zip(OVERLAPS, CODER_WEIGHTS, strict=True)
        )

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: Targets | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        losses: dict[str, Tensor] = {}
        votes: list[Tensor] = []
        stage: Any
        for i, stage in enumerate(self.stages):
            if self.training:
                proposals, matched, labels, _ = stage.select_training_samples(proposals, targets)
            pooled = stage.box_roi_pool(features, proposals, image_shapes)
            logits, deltas = stage.box_predictor(stage.box_head(pooled))
            boxes = stage.box_coder.decode(deltas, proposals)
            chosen = logits[:, 1:].argmax(1) + 1
            votes.append(logits)
            if self.training:
                assert targets is not None
                flat = torch.cat(labels)
                chosen = flat.where(flat > 0, chosen)
                masks = self._mask_loss(stage, features, proposals, image_shapes, targets, matched, labels)
                truth = torch.cat([_boxes(t, boxes)[m] for t, m in zip(targets, matched, strict=True)])
                for name, loss in {**_box_losses(logits, boxes, flat, truth), "loss_mask": masks}.items():
                    losses[f"{name}_{i}"] = STAGE_WEIGHTS[i] * loss
            if i + 1 < len(self.stages):
                proposals = self._moved(boxes, chosen, proposals, image_shapes, targets)
        if self.training:
            return [], losses
        mean = torch.stack(votes).mean(0)
        found = stage.postprocess_detections(mean, deltas, proposals, image_shapes)
        result = [dict(zip(("boxes", "scores", "labels"), one, strict=True)) for one in zip(*found, strict=True)]
        for one, probabilities in zip(result, self._masks(features, result, image_shapes), strict=True):
            one["masks"] = probabilities
        return result, {}

    def _moved(
        self,
        boxes: Tensor,
        chosen: Tensor,
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: Targets | None,
    ) -> list[Tensor]:
        """The boxes of the chosen classes, inside the images, without those that were objects' own boxes."""
        own = boxes[torch.arange(len(boxes), device=boxes.device), chosen].detach()
        moved = own.split([len(before) for before in proposals])
        moved = [clip_boxes_to_image(one, size) for one, size in zip(moved, image_shapes, strict=True)]
        if not self.training or targets is None:
            return moved
        given = [_boxes(t, boxes) for t in targets]
        same = [(p[:, None] == g).all(2).any(1) for p, g in zip(proposals, given, strict=True)]
        return [one[~drop] for one, drop in zip(moved, same, strict=True)]

    def _mask_loss(
        self,
        stage: Any,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: Targets,
        matched: list[Tensor],
        labels: list[Tensor],
    ) -> Tensor:
        positive = [one > 0 for one in labels]
        inside = [p[keep] for p, keep in zip(proposals, positive, strict=True)]
        indices = [m[keep] for m, keep in zip(matched, positive, strict=True)]
        logits = _mask_logits(stage, features, inside, image_shapes)
        return maskrcnn_loss(logits, inside, [t["masks"] for t in targets], [t["labels"] for t in targets], indices)

    def _masks(
        self, features: dict[str, Tensor], found: list[dict[str, Tensor]], image_shapes: list[tuple[int, int]]
    ) -> list[Tensor]:
        """The mean of the stages' mask probabilities for the found boxes, ``(N, 1, 28, 28)`` per image."""
        boxes, labels = [one["boxes"] for one in found], [one["labels"] for one in found]
        votes = [
            torch.cat(maskrcnn_inference(_mask_logits(stage, features, boxes, image_shapes), labels))
            for stage in self.stages
        ]
        return list(torch.stack(votes).mean(0).split([len(one) for one in boxes]))


def _box_head(dim: int) -> nn.Sequential:
    """``(N, dim, 7, 7) -> (N, 1024)``: four convolutions and a linear layer."""
    convolutions = [ConvNorm(dim if i == 0 else 256, 256, 3, act=nn.ReLU) for i in range(4)]
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(256 * 7 * 7, 1024), nn.ReLU())


def _mask_logits(
    stage: Any, features: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]
) -> Tensor:
    return stage.mask_predictor(stage.mask_head(stage.mask_roi_pool(features, boxes, image_shapes)))


def _box_losses(logits: Tensor, boxes: Tensor, labels: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Cross-entropy, and the GIoU loss (arXiv:1902.09630) of the true class's box over the number of samples."""
    (positive,) = torch.where(labels > 0)
    own = boxes[positive, labels[positive]]
    loss = generalized_box_iou_loss(own, truth[positive], reduction="sum") / max(labels.numel(), 1)
    return {"loss_classifier": F.cross_entropy(logits, labels), "loss_box": BOX_WEIGHT * loss}


def _boxes(target: Mapping[str, Tensor], like: Tensor) -> Tensor:
    """An image's objects; one box of zeros if there are none, since matches then point to the first."""
    boxes = target["boxes"].to(like)
    return boxes if len(boxes) else like.new_zeros(1, 4)
