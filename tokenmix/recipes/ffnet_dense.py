"""FFNet (arXiv:2406.02021) with Cascade Mask R-CNN (3x) on COCO, with UPerNet on ADE20K, and FFNet-Seg."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tokenmix.recipes.recipe import Recipe

_SOURCE = "github.com/ysj9909/FFNet, commit f3c3e4c: {}; mmdetection 2.28 and mmsegmentation 0.27 for what it inherits"
_HARDWARE = "EMACs, on 8 GPUs (kind and hours unknown)"
_STARTS = {"ffnet_2": "ffnet_2.dist_in1k", "ffnet_3": "ffnet_3.dist_in1k", "ffnet_4": "ffnet_4.ft_in1k_384"}


def _dense(**values: Any) -> Recipe:
    return Recipe(preprocess="model", sync_batchnorm=True, batch_size=16, **values)  # 2 images on each of 8 GPUs


def _cascade(model: str, expect: str, emacs: str, drop_path_rate: float) -> Recipe:
    """The official grouping of layers does not know FFNet's stem and leaves it at the full rate; here it is the first.

    Proposals, sampling and tests are torchvision's. Batch norm in the box heads is synchronised as in the backbone.
    """
    return _dense(
        source=_SOURCE.format("detection/configs and detection/README.md"),
        expect=f"{expect} AP",
        cost=f"{emacs} {_HARDWARE}",
        model=_STARTS[model],
        model_args={"level_norm": "layer"},
        weights="pretrained",
        head="cascade_mask_rcnn",
        task="instances",
        data="coco",
        image_size=(800, 1333),
        augment="detr",
        epochs=36,
        schedule="step",
        milestones=(27, 33),
        lr=1e-4,
        warmup_steps=500,
        warmup_lr=1e-7,
        weight_decay=0.05,
        layer_decay=0.8,
        layer_decay_layers=12,
        drop_path_rate=drop_path_rate,
    )


def ffnet_2_cascade_mask_rcnn() -> Recipe:
    """FFNet-2 with Cascade Mask R-CNN, 36 epochs."""
    return _cascade("ffnet_2", "51.8 box, 44.9 mask", "7.78", 0.35)


def ffnet_3_cascade_mask_rcnn() -> Recipe:
    """FFNet-3 with Cascade Mask R-CNN, 36 epochs."""
    return _cascade("ffnet_3", "52.8 box, 45.6 mask", "8.65", 0.6)


def ffnet_4_cascade_mask_rcnn() -> Recipe:
    """FFNet-4 with Cascade Mask R-CNN, 36 epochs, averaged weights."""
    return replace(_cascade("ffnet_4", "53.4 box, 45.9 mask", "10.6", 0.6), ema_decay=0.9999)


def _steps_160k(**values: Any) -> Recipe:
    """What both segmenters share: AdamW for 160,000 steps, falling linearly after a rise."""
    return _dense(
        task="segmentation",
        augment="standard",
        steps=160_000,
        schedule="poly",
        warmup_steps=1500,
        **values,
    )


def _upernet(model: str, expect: str, cost: str, layer_decay: tuple[float, int], drop_path_rate: float) -> Recipe:
    """Tests are at a shorter side of 512; the official ones round the sides to multiples of 32."""
    return _steps_160k(
        source=_SOURCE.format("segmentation/configs and segmentation/README.md"),
        expect=f"{expect} with several scales and mirrored",
        cost=f"{cost} {_HARDWARE}",
        model=_STARTS[model],
        model_args={"level_norm": "layer"},
        weights="pretrained",
        head="upernet",
        task_args={"aux_weight": 0.4},
        data="ade20k",
        image_size=(512, 2048),
        augment_args={"crop_size": [512, 512]},
        lr=1e-4,
        warmup_lr=1e-10,
        weight_decay=0.05,
        layer_decay=layer_decay[0],
        layer_decay_layers=layer_decay[1],
        drop_path_rate=drop_path_rate,
    )


def ffnet_2_upernet() -> Recipe:
    """FFNet-2 with UPerNet on ADE20K, 160,000 steps."""
    return _upernet("ffnet_2", "47.1 % mIoU, 47.8", "1.81", (1.0, 9), 0.2)


def ffnet_3_upernet() -> Recipe:
    """FFNet-3 with UPerNet on ADE20K, 160,000 steps."""
    return _upernet("ffnet_3", "49.6 % mIoU, 50.2", "1.94", (0.9, 12), 0.3)


def ffnet_4_upernet() -> Recipe:
    """FFNet-4 with UPerNet on ADE20K, 160,000 steps."""
    return _upernet("ffnet_4", "50.7 % mIoU, 51.7", "2.23", (0.9, 12), 0.3)


def _seg(**values: Any) -> Recipe:
    """The number of GPUs is not said; 8 as for UPerNet. The head has no drop path here, the official one 0.1 on ADE20K.

    The ImageNet training of this backbone is not known: start from the published file or from a run of your own.
    """
    return _steps_160k(
        source=_SOURCE.format("segmentation/configs/*/ffnet_seg_*, run in SegNeXt's code"),
        model="ffnet_seg",
        weights="runs/ffnet_seg",
        head="ffnet_seg",
        lr=6e-5,
        warmup_lr=6e-11,
        head_lr=10.0,
        **values,
    )


def ffnet_seg_ade20k() -> Recipe:
    """FFNet-Seg on ADE20K, 160,000 steps."""
    return _seg(
        expect="50.1 % mIoU, 51.2 with several scales and mirrored",
        cost=f"0.573 {_HARDWARE}",
        data="ade20k",
        image_size=(512, 2048),
        augment_args={"crop_size": [512, 512]},
        weight_decay=0.05,
        drop_path_rate=0.3,
    )


def ffnet_seg_cityscapes() -> Recipe:
    """FFNet-Seg on Cityscapes, 160,000 steps, tested by windows that overlap."""
    return _seg(
        expect="83.2 % mIoU, 84.1 with several scales and mirrored",
        cost=f"2.2 {_HARDWARE}",
        model_args={"head_depth": 5, "head_ratio": 1.0},
        task_args={"window": 1024, "stride": 768},
        data="cityscapes",
        image_size=(1024, 2048),
        augment_args={"crop_size": [1024, 1024]},
        weight_decay=0.02,
        drop_path_rate=0.35,
    )
