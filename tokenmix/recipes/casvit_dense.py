"""CAS-ViT (arXiv:2408.03703) with RetinaNet and Mask R-CNN (1x) on COCO, and with Semantic FPN (40k) on ADE20K.

In all of them the backbone's batch norms, the ones behind its levels among them, keep their statistics. mmdetection and
mmsegmentation decay all parameters by 1e-4, here norms and biases are left out, as everywhere in this package.
"""

from __future__ import annotations

from typing import Any

from tokenmix.recipes.recipe import Recipe

_SOURCE = (
    "github.com/Tianfang-Zhang/CAS-ViT, commit 041d2d6: {}; MODEL_ZOO.md; mmdetection 2.24 and mmsegmentation 0.24"
)
_HARDWARE = "EMACs, on 8 GPUs (kind and hours unknown)"
_DROP_PATHS = {"casvit_xs": 0.0, "casvit_s": 0.0, "casvit_m": 0.1, "casvit_t": 0.1}


def _dense(model: str, emacs: str, **values: Any) -> Recipe:
    return Recipe(
        cost=f"{emacs} {_HARDWARE}",
        model=model,
        model_args={"level_norm": "batch"},
        weights=f"runs/{model}",
        preprocess="model",
        batch_size=32,  # 4 on each of 8 GPUs
        lr=2e-4,
        weight_decay=1e-4,
        drop_path_rate=_DROP_PATHS[model],
        freeze_norms=True,
        **values,
    )


def _coco(model: str, head: str, task: str, expect: str, emacs: str) -> Recipe:
    return _dense(
        model,
        emacs,
        source=_SOURCE.format("detection/configs/RCViT"),
        expect=f"{expect} AP",
        head=head,
        task=task,
        data="coco",
        image_size=(800, 1333),
        augment="light",
        epochs=12,
        schedule="step",
        milestones=(8, 11),
        warmup_steps=500,
        warmup_lr=2e-10,
    )


def casvit_xs_retinanet() -> Recipe:
    """CAS-ViT-XS with RetinaNet, 12 epochs."""
    return _coco("casvit_xs", "retinanet", "detection", "36.5 box", "0.721")


def casvit_s_retinanet() -> Recipe:
    """CAS-ViT-S with RetinaNet, 12 epochs."""
    return _coco("casvit_s", "retinanet", "detection", "38.6 box", "0.754")


def casvit_m_retinanet() -> Recipe:
    """CAS-ViT-M with RetinaNet, 12 epochs."""
    return _coco("casvit_m", "retinanet", "detection", "40.9 box", "0.842")


def casvit_t_retinanet() -> Recipe:
    """CAS-ViT-T with RetinaNet, 12 epochs."""
    return _coco("casvit_t", "retinanet", "detection", "41.9 box", "0.998")


def casvit_xs_mask_rcnn() -> Recipe:
    """CAS-ViT-XS with Mask R-CNN, 12 epochs."""
    return _coco("casvit_xs", "mask_rcnn", "instances", "37.4 box, 34.9 mask", "0.823")


def casvit_s_mask_rcnn() -> Recipe:
    """CAS-ViT-S with Mask R-CNN, 12 epochs."""
    return _coco("casvit_s", "mask_rcnn", "instances", "39.8 box, 36.7 mask", "0.856")


def casvit_m_mask_rcnn() -> Recipe:
    """CAS-ViT-M with Mask R-CNN, 12 epochs."""
    return _coco("casvit_m", "mask_rcnn", "instances", "42.3 box, 38.9 mask", "0.945")


def casvit_t_mask_rcnn() -> Recipe:
    """CAS-ViT-T with Mask R-CNN, 12 epochs."""
    return _coco("casvit_t", "mask_rcnn", "instances", "43.5 box, 39.6 mask", "1.1")


def _ade20k(model: str, expect: str, emacs: str) -> Recipe:
    return _dense(
        model,
        emacs,
        source=_SOURCE.format("segmentation/configs/RCViT"),
        expect=f"{expect} % mIoU",
        head="semantic_fpn",
        task="segmentation",
        data="ade20k",
        image_size=(512, 2048),
        augment="standard",
        augment_args={"crop_size": [512, 512]},
        sync_batchnorm=True,  # those of the head
        steps=40_000,
        schedule="poly",
        power=0.9,
    )


def casvit_xs_semantic_fpn() -> Recipe:
    """CAS-ViT-XS with Semantic FPN, 40,000 steps."""
    return _ade20k("casvit_xs", "37.1", "0.0925")


def casvit_s_semantic_fpn() -> Recipe:
    """CAS-ViT-S with Semantic FPN, 40,000 steps."""
    return _ade20k("casvit_s", "41.3", "0.0999")


def casvit_m_semantic_fpn() -> Recipe:
    """CAS-ViT-M with Semantic FPN, 40,000 steps."""
    return _ade20k("casvit_m", "43.6", "0.119")


def casvit_t_semantic_fpn() -> Recipe:
    """CAS-ViT-T with Semantic FPN, 40,000 steps."""
    return _ade20k("casvit_t", "45.0", "0.154")
