"""The dynamic spectrum mixer (arXiv:2309.06721), reconstructed, in detectors and segmenters.

Of its dense results only one number could be had, and no recipe: these are those of its siblings (see ``source``). A
layer norm behind each level, mirrored images and the usual sizes are our choice.
"""

from __future__ import annotations

from typing import Any

from tokenmix.recipes.parts import Model, Optimizer, Run, Schedule
from tokenmix.recipes.recipe import Recipe
from tokenmix.recipes.tables import rows
from tokenmix.tasks.dense.options import DenseOptions, LabelAugment
from tokenmix.tasks.detection.options import DetectionOptions, InstancesOptions
from tokenmix.tasks.segmentation.options import Options as SegmentationOptions

# fmt: off
#             drop   UPerNet  RetinaNet  Mask R-CNN
#             path   EMACs    EMACs      EMACs
TABLE = {
    "dsm_ti": (0.05, 1.71,    0.896,     0.998),
    "dsm_t":  (0.1,  1.81,    1.12,      1.22),
    "dsm_s":  (0.3,  1.95,    1.46,      1.56),
    "dsm_b":  (0.5,  2.2,     2.02,      2.13),
}
# fmt: on


def _dense(model: str, head: str, expect: str, emacs: float, **parts: Any) -> Recipe:
    return Recipe(
        source="ours: the paper's recipe is unknown; the values are those of networks of its time and kind, "
        "ConvNeXt (arXiv:2201.03545, app. A.3) and ActiveMLP (arXiv:2203.06108) among them",
        expect=expect,
        cost=f"{emacs} EMACs",
        model=Model(
            name=model,
            args={"level_norm": "layer"},
            weights=f"runs/{model}",
            head=head,
            drop_path_rate=TABLE[model][0],
        ),
        **parts,
    )


def _upernet(model: str, emacs: float) -> Recipe:
    return _dense(
        model,
        "upernet",
        "unknown: the abstract says 49.9 % mIoU on ADE20K for a variant and a head that it does not name",
        emacs,
        optimizer=Optimizer(lr=6e-5, weight_decay=0.01),
        schedule=Schedule(name="poly", steps=160_000, warmup_steps=1500, warmup_lr=6e-11),
        run=Run(data="ade20k", batch_size=16, sync_batchnorm=True),
        task=SegmentationOptions(image_size=(512, 2048), preprocess="model", aux_weight=0.4),
        augment=LabelAugment(name="standard", crop_size=(512, 512)),
    )


def _coco(model: str, head: str, options: DenseOptions, emacs: float) -> Recipe:
    return _dense(
        model,
        head,
        "unknown",
        emacs,
        optimizer=Optimizer(lr=1e-4, weight_decay=0.05),
        schedule=Schedule(name="step", epochs=12, milestones=(8, 11), warmup_steps=500, warmup_lr=1e-7),
        run=Run(data="coco", batch_size=16),
        task=options,
    )


def _retinanet(model: str, emacs: float) -> Recipe:
    return _coco(model, "retinanet", DetectionOptions(image_size=(800, 1333), preprocess="model"), emacs)


def _mask_rcnn(model: str, emacs: float) -> Recipe:
    return _coco(model, "mask_rcnn", InstancesOptions(image_size=(800, 1333), preprocess="model"), emacs)


RECIPES = {
    "detection": rows(TABLE, "{}_retinanet", "{} with RetinaNet, 12 epochs.", _retinanet, 2),
    "instances": rows(TABLE, "{}_mask_rcnn", "{} with Mask R-CNN, 12 epochs.", _mask_rcnn, 3),
    "segmentation": rows(TABLE, "{}_upernet", "{} with UPerNet on ADE20K, 160,000 steps.", _upernet, 1),
}
