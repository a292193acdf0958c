"""The dynamic spectrum mixer (arXiv:2309.06721), reconstructed, in detectors and segmenters.

Of its dense results only one number could be had, and no recipe: these are those of its siblings (see ``source``). A
layer norm behind each level, mirrored images and the usual sizes are our choice.
"""

from __future__ import annotations

from typing import Any

from tokenmix.recipes.recipe import Recipe

_DROP_PATHS = {"dsm_ti": 0.05, "dsm_t": 0.1, "dsm_s": 0.3, "dsm_b": 0.5}


def _dense(model: str, emacs: str, **values: Any) -> Recipe:
    return Recipe(
        source="ours: the paper's recipe is unknown; the values are those of networks of its time and kind, "
        "ConvNeXt (arXiv:2201.03545, app. A.3) and ActiveMLP (arXiv:2203.06108) among them",
        cost=f"{emacs} EMACs",
        model=model,
        model_args={"level_norm": "layer"},
        weights=f"runs/{model}",
        preprocess="model",
        batch_size=16,
        drop_path_rate=_DROP_PATHS[model],
        **values,
    )


def _upernet(model: str, emacs: str) -> Recipe:
    return _dense(
        model,
        emacs,
        expect="unknown: the abstract says 49.9 % mIoU on ADE20K for a variant and a head that it does not name",
        head="upernet",
        task="segmentation",
        task_args={"aux_weight": 0.4},
        data="ade20k",
        image_size=(512, 2048),
        augment="standard",
        augment_args={"crop_size": [512, 512]},
        sync_batchnorm=True,
        steps=160_000,
        schedule="poly",
        warmup_steps=1500,
        warmup_lr=6e-11,
        lr=6e-5,
        weight_decay=0.01,
    )


def dsm_ti_upernet() -> Recipe:
    """DSM-Ti with UPerNet on ADE20K, 160,000 steps."""
    return _upernet("dsm_ti", "1.71")


def dsm_t_upernet() -> Recipe:
    """DSM-T with UPerNet on ADE20K, 160,000 steps."""
    return _upernet("dsm_t", "1.81")


def dsm_s_upernet() -> Recipe:
    """DSM-S with UPerNet on ADE20K, 160,000 steps."""
    return _upernet("dsm_s", "1.95")


def dsm_b_upernet() -> Recipe:
    """DSM-B with UPerNet on ADE20K, 160,000 steps."""
    return _upernet("dsm_b", "2.2")


def _coco(model: str, head: str, task: str, emacs: str) -> Recipe:
    return _dense(
        model,
        emacs,
        expect="unknown",
        head=head,
        task=task,
        data="coco",
        image_size=(800, 1333),
        augment="light",
        epochs=12,
        schedule="step",
        milestones=(8, 11),
        warmup_steps=500,
        warmup_lr=1e-7,
        lr=1e-4,
        weight_decay=0.05,
    )


def dsm_ti_retinanet() -> Recipe:
    """DSM-Ti with RetinaNet, 12 epochs."""
    return _coco("dsm_ti", "retinanet", "detection", "0.896")


def dsm_t_retinanet() -> Recipe:
    """DSM-T with RetinaNet, 12 epochs."""
    return _coco("dsm_t", "retinanet", "detection", "1.12")


def dsm_s_retinanet() -> Recipe:
    """DSM-S with RetinaNet, 12 epochs."""
    return _coco("dsm_s", "retinanet", "detection", "1.46")


def dsm_b_retinanet() -> Recipe:
    """DSM-B with RetinaNet, 12 epochs."""
    return _coco("dsm_b", "retinanet", "detection", "2.02")


def dsm_ti_mask_rcnn() -> Recipe:
    """DSM-Ti with Mask R-CNN, 12 epochs."""
    return _coco("dsm_ti", "mask_rcnn", "instances", "0.998")


def dsm_t_mask_rcnn() -> Recipe:
    """DSM-T with Mask R-CNN, 12 epochs."""
    return _coco("dsm_t", "mask_rcnn", "instances", "1.22")


def dsm_s_mask_rcnn() -> Recipe:
    """DSM-S with Mask R-CNN, 12 epochs."""
    return _coco("dsm_s", "mask_rcnn", "instances", "1.56")


def dsm_b_mask_rcnn() -> Recipe:
    """DSM-B with Mask R-CNN, 12 epochs."""
    return _coco("dsm_b", "mask_rcnn", "instances", "2.13")
