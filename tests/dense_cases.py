"""What the dense heads' tests share: every head on small and on real backbones, images, objects, fewer regions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.backbone_cases import TOYS, images
from tests.scramble import scramble, settle
from tokenmix.heads import HEADS, make_dense

SEGMENTERS = tuple(name for name, info in HEADS.items() if info.task == "segmentation")
DETECTORS = tuple(name for name in HEADS if name not in SEGMENTERS)
# Heads that stay narrow: what they compute is the same. The deep strides of most backbones cannot be undone.
NARROW: dict[str, dict[str, Any]] = {
    "deeplabv3": {"channels": 16, "output_stride": 32, "aux": True},
    "semantic_fpn": {"channels": 16},
    "upernet": {"channels": 16},
    "ffnet_seg": {"head_dim": 16, "channels": 24, "head_depth": 2},
}
# Of two sizes, neither a multiple of a stride.
SIZES = ((75, 93), (64, 110))


def dense(head: str, backbone: str, *, num_classes: int = 3, narrow: bool = True, **options: Any) -> Any:
    """A dense model with weights that matter and few regions, float64, in eval mode."""
    small = {**NARROW.get(head, {}), **TOYS.get(backbone, {})} if narrow else {}
    model = make_dense(head, backbone, num_classes, **{**small, **options})
    settle(scramble(model).eval().backbone, images(64, 64, batch=4, chans=options.get("in_chans", 3)))
    return few_regions(model).double()


def few_regions(model: Any) -> Any:
    """Let a detector with proposals look at 12 of them instead of 1000, and any keep all scores, in place."""
    for part in model.modules():
        for name in ("score_thresh", "score_threshold"):
            if name in vars(part):
                setattr(part, name, 0.0)
    if hasattr(model, "rpn"):
        model.rpn.head.bbox_pred.weight.data *= 0.01
        model.rpn._pre_nms_top_n = model.rpn._post_nms_top_n = {"training": 12, "testing": 12}
        for stage in getattr(model.roi_heads, "stages", [model.roi_heads]):
            # Boxes stay where the proposals are: random weights would throw them out of the picture.
            stage.box_predictor.bbox_pred.weight.data *= 0.01
            stage.fg_bg_sampler.batch_size_per_image = 16
            stage.detections_per_img = 5
    return model


def pictures(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Images of several odd sizes."""
    return [images(*size, batch=1, dtype=dtype)[0] for size in SIZES]


def objects(dtype: torch.dtype = torch.float64) -> list[dict[str, Tensor]]:
    """Two objects on the first picture, none on the second."""
    boxes = torch.tensor([[8.0, 12.0, 50.0, 60.0], [30.0, 5.0, 90.0, 40.0]], dtype=dtype)
    masks = torch.zeros(2, *SIZES[0], dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.long().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    return [
        {"boxes": boxes, "labels": torch.tensor([1, 3]), "masks": masks},
        {
            "boxes": boxes[:0],
            "labels": torch.zeros(0, dtype=torch.int64),
            "masks": torch.zeros(0, *SIZES[1], dtype=torch.uint8),
        },
    ]
