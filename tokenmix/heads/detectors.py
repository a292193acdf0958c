"""RetinaNet, Mask R-CNN and Cascade Mask R-CNN: torchvision's parts on a pyramid of a backbone's levels."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7
from torchvision.ops.poolers import initLevelMapper

from tokenmix.heads.canvas import Canvas
from tokenmix.heads.cascade import CascadeHeads, Targets
from tokenmix.heads.fpn import DIM, Pyramid
from tokenmix.heads.levels import feature_levels


class RetinaNet(detection.RetinaNet):
    """Torchvision's, with labels from 1 as every detector here has them, though it has no class for the background."""

    classifiers = ("head.classification_head.cls_logits",)

    def raw(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, in_chans, H, W)`` -> logits ``(B, N, num_classes)`` and offsets ``(B, N, 4)`` of all anchors."""
        outputs = self.head(list(self.backbone(x).values()))
        return outputs["cls_logits"], outputs["bbox_regression"]

    def forward(self, images: list[Tensor], targets: Targets | None = None) -> Any:
        if targets is not None:
            targets = [{**target, "labels": target["labels"] - 1} for target in targets]
        results = super().forward(images, targets)
        return results if self.training else [{**one, "labels": one["labels"] + 1} for one in results]


class _TwoStage(GeneralizedRCNN):
    """What both detectors with proposals share."""

    def raw(self, x: Tensor) -> tuple[Tensor, ...]:
        """``(B, in_chans, H, W)`` -> the five maps of the pyramid, their objectness and their box offsets.

        The second stage works on regions cut from these maps; its heads are ``roi_heads``.
        """
        maps = list(self.backbone(x).values())
        objectness, offsets = self.rpn.head(maps)
        return (*maps, *objectness, *offsets)


class MaskRCNN(_TwoStage, detection.MaskRCNN):
    """Torchvision's."""

    classifiers = tuple(
        f"roi_heads.{name}"
        for name in ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_predictor.mask_fcn_logits")
    )


class CascadeMaskRCNN(_TwoStage):
    """Torchvision's proposals, and `CascadeHeads` on them."""

    classifiers = tuple(
        f"roi_heads.stages.{i}.{name}"
        for i in range(3)
        for name in ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_predictor.mask_fcn_logits")
    )


def retinanet(backbone: str | nn.Module, num_classes: int, **backbone_args: Any) -> RetinaNet:
    """RetinaNet (arXiv:1708.02002) as CAS-ViT's configuration has it: strides 8 to 128, nine anchors per cell.

    Args:
        backbone: See `tokenmix.heads.levels.feature_levels`; the last three levels are taken.
        num_classes: Kinds of objects.
        **backbone_args: See `tokenmix.heads.levels.feature_levels`.
    """
    levels = feature_levels(backbone, (-3, -2, -1), **backbone_args)
    extra = LastLevelP6P7(levels.num_chs[-1], DIM)
    extra.use_P5 = False  # torchvision takes the pyramid's map where the backbone's happens to have 256 channels
    last = levels.reductions[-1]
    strides = (*levels.reductions, 2 * last, 4 * last)
    sizes = tuple(tuple(4 * stride * 2 ** (i / 3) for i in range(3)) for stride in strides)
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes))
    model = RetinaNet(Pyramid(levels, extra), num_classes, anchor_generator=anchors, detections_per_img=100)
    # On multiples of the coarsest stride torchvision's anchors have exactly the strides that are meant.
    model.transform = Canvas(strides[-1])
    return model


def mask_rcnn(backbone: str | nn.Module, num_classes: int, **backbone_args: Any) -> MaskRCNN:
    """Mask R-CNN (arXiv:1703.06870) with a pyramid of strides 4 to 64.

    Args:
        backbone: See `tokenmix.heads.levels.feature_levels`; the last four levels are taken.
        num_classes: Kinds of objects, without the background.
        **backbone_args: See `tokenmix.heads.levels.feature_levels`.
    """
    pyramid, anchors, coarsest = _pyramid(backbone, **backbone_args)
    model = MaskRCNN(pyramid, num_classes + 1, rpn_anchor_generator=anchors, rpn_post_nms_top_n_train=1000)
    model.transform = Canvas(coarsest)
    return _with_scales(model)


def cascade_mask_rcnn(backbone: str | nn.Module, num_classes: int, **backbone_args: Any) -> CascadeMaskRCNN:
    """Cascade Mask R-CNN (arXiv:1906.09756) as FFNet's configuration has it.

    Args:
        backbone: See `tokenmix.heads.levels.feature_levels`; the last four levels are taken.
        num_classes: Kinds of objects, without the background.
        **backbone_args: See `tokenmix.heads.levels.feature_levels`.
    """
    pyramid, anchors, coarsest = _pyramid(backbone, **backbone_args)
    rpn = RegionProposalNetwork(
        anchors,
        RPNHead(DIM, anchors.num_anchors_per_location()[0]),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n={"training": 2000, "testing": 1000},
        post_nms_top_n={"training": 2000, "testing": 1000},
        nms_thresh=0.7,
    )
    return _with_scales(CascadeMaskRCNN(pyramid, rpn, CascadeHeads(DIM, num_classes + 1), Canvas(coarsest)))


def _with_scales(model: Any) -> Any:
    """Tell the poolings of regions the maps' strides, which they would guess from the first image, padding and all."""
    strides = model.backbone.levels.reductions
    for part in model.modules():
        if isinstance(part, MultiScaleRoIAlign):
            part.scales = [1 / stride for stride in strides]
            finest, coarsest = (stride.bit_length() - 1 for stride in (strides[0], strides[-1]))
            part.map_levels = initLevelMapper(finest, coarsest, part.canonical_scale, part.canonical_level)
    return model


def _pyramid(backbone: str | nn.Module, **backbone_args: Any) -> tuple[Pyramid, AnchorGenerator, int]:
    """Five levels, anchors of eight times their strides, and the last one's stride."""
    levels = feature_levels(backbone, (-4, -3, -2, -1), **backbone_args)
    strides = (*levels.reductions, 2 * levels.reductions[-1])
    anchors = AnchorGenerator(tuple((8 * stride,) for stride in strides), ((0.5, 1.0, 2.0),) * len(strides))
    return Pyramid(levels, LastLevelMaxPool()), anchors, strides[-1]
