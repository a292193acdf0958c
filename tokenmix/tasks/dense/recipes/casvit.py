"""CAS-ViT (arXiv:2408.03703) with RetinaNet and Mask R-CNN (1x) on COCO, and with Semantic FPN (40k) on ADE20K.

In all of them the backbone's batch norms, the ones behind its levels among them, keep their statistics. mmdetection and
mmsegmentation decay all parameters by 1e-4, here norms and biases are left out, as everywhere in this package.
"""

from __future__ import annotations

from typing import Any

from tokenmix.recipes.parts import Model, Optimizer, Run, Schedule
from tokenmix.recipes.recipe import Recipe
from tokenmix.recipes.tables import rows
from tokenmix.tasks.dense.options import DenseOptions, LabelAugment
from tokenmix.tasks.detection.options import DetectionOptions, InstancesOptions
from tokenmix.tasks.segmentation.options import Options as SegmentationOptions

# Results as MODEL_ZOO.md has them.
# fmt: off
#                drop   RetinaNet        Mask R-CNN                 Semantic FPN
#                path   box AP  EMACs    box AP  mask AP  EMACs     mIoU    EMACs
TABLE = {
    "casvit_xs": (0.0, ("36.5", 0.721), ("37.4", "34.9", 0.823),   ("37.1", 0.0925)),
    "casvit_s":  (0.0, ("38.6", 0.754), ("39.8", "36.7", 0.856),   ("41.3", 0.0999)),
    "casvit_m":  (0.1, ("40.9", 0.842), ("42.3", "38.9", 0.945),   ("43.6", 0.119)),
    "casvit_t":  (0.1, ("41.9", 0.998), ("43.5", "39.6", 1.1),     ("45.0", 0.154)),
}
# fmt: on


def _dense(model: str, head: str, configs: str, expect: str, emacs: float, data: str, **parts: Any) -> Recipe:
    return Recipe(
        source=f"github.com/Tianfang-Zhang/CAS-ViT, commit 041d2d6: {configs}/configs/RCViT; MODEL_ZOO.md; mmdetection "
        "2.24 and mmsegmentation 0.24",
        expect=expect,
        cost=f"{emacs} EMACs, on 8 GPUs (kind and hours unknown)",
        model=Model(
            name=model,
            args={"level_norm": "batch"},
            weights=f"runs/{model}",
            head=head,
            drop_path_rate=TABLE[model][0],
        ),
        optimizer=Optimizer(lr=2e-4, weight_decay=1e-4),
        run=Run(data=data, batch_size=32, sync_batchnorm=head == "semantic_fpn"),  # 4 on each of 8 GPUs
        **parts,
    )


def _coco(model: str, head: str, options: type[DenseOptions], expect: str, emacs: float) -> Recipe:
    return _dense(
        model,
        head,
        "detection",
        f"{expect} AP",
        emacs,
        "coco",
        schedule=Schedule(name="step", epochs=12, milestones=(8, 11), warmup_steps=500, warmup_lr=2e-10),
        task=options(image_size=(800, 1333), preprocess="model", freeze_norms=True),
    )


def _retinanet(model: str, box: str, emacs: float) -> Recipe:
    return _coco(model, "retinanet", DetectionOptions, f"{box} box", emacs)


def _mask_rcnn(model: str, box: str, mask: str, emacs: float) -> Recipe:
    return _coco(model, "mask_rcnn", InstancesOptions, f"{box} box, {mask} mask", emacs)


def _semantic_fpn(model: str, miou: str, emacs: float) -> Recipe:
    """Only the head's batch norms are synchronised, since the others are frozen."""
    return _dense(
        model,
        "semantic_fpn",
        "segmentation",
        f"{miou} % mIoU",
        emacs,
        "ade20k",
        schedule=Schedule(name="poly", steps=40_000, power=0.9),
        task=SegmentationOptions(image_size=(512, 2048), preprocess="model", freeze_norms=True),
        augment=LabelAugment(name="standard", crop_size=(512, 512)),
    )


RECIPES = {
    "detection": rows(TABLE, "{}_retinanet", "{} with RetinaNet, 12 epochs.", _retinanet, 1),
    "instances": rows(TABLE, "{}_mask_rcnn", "{} with Mask R-CNN, 12 epochs.", _mask_rcnn, 2),
    "segmentation": rows(TABLE, "{}_semantic_fpn", "{} with Semantic FPN, 40,000 steps.", _semantic_fpn, 3),
}
