"""FFNet (arXiv:2406.02021) with Cascade Mask R-CNN (3x) on COCO, with UPerNet on ADE20K, and FFNet-Seg."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tokenmix.recipes.parts import Model, Optimizer, Run, Schedule
from tokenmix.recipes.recipe import Recipe
from tokenmix.recipes.tables import rows
from tokenmix.tasks.dense.options import LabelAugment, ObjectAugment
from tokenmix.tasks.detection.options import InstancesOptions
from tokenmix.tasks.segmentation.options import Options

_STARTS = {"ffnet_2": "ffnet_2.dist_in1k", "ffnet_3": "ffnet_3.dist_in1k", "ffnet_4": "ffnet_4.ft_in1k_384"}

# fmt: off
# detection/README.md, Cascade Mask R-CNN on COCO
#              box AP  mask AP  EMACs  drop path  average
CASCADE = {
    "ffnet_2": ("51.8", "44.9", 7.78,  0.35,      None),
    "ffnet_3": ("52.8", "45.6", 8.65,  0.6,       None),
    "ffnet_4": ("53.4", "45.9", 10.6,  0.6,       0.9999),
}
# segmentation/README.md, UPerNet on ADE20K: mIoU, and with several scales and mirrored
#              mIoU    ms      EMACs  layer decay, in layers  drop path
UPERNET = {
    "ffnet_2": ("47.1", "47.8", 1.81,  1.0,         9,         0.2),
    "ffnet_3": ("49.6", "50.2", 1.94,  0.9,         12,        0.3),
    "ffnet_4": ("50.7", "51.7", 2.23,  0.9,         12,        0.3),
}
# segmentation/configs, FFNet-Seg; the number of GPUs is not said: 8 as for UPerNet
#                 mIoU    ms      EMACs  weight decay  drop path
SEG = {
    "ade20k":     ("50.1", "51.2", 0.573, 0.05,         0.3),
    "cityscapes": ("83.2", "84.1", 2.2,   0.02,         0.35),
}
# fmt: on


def _notes(configs: str, expect: str, emacs: float) -> dict[str, str]:
    return {
        "source": f"github.com/ysj9909/FFNet, commit f3c3e4c: {configs}; mmdetection 2.28 and mmsegmentation 0.27 for "
        "what it inherits",
        "expect": expect,
        "cost": f"{emacs} EMACs, on 8 GPUs (kind and hours unknown)",
    }


def _model(model: str, head: str, drop_path: float) -> Model:
    args = {"level_norm": "layer"}
    return Model(name=_STARTS[model], args=args, weights="pretrained", head=head, drop_path_rate=drop_path)


def _run(data: str) -> Run:
    return Run(data=data, batch_size=16, sync_batchnorm=True)  # 2 images on each of 8 GPUs


def _cascade(model: str, box: str, mask: str, emacs: float, drop_path: float, ema_decay: float | None) -> Recipe:
    """The official grouping of layers does not know FFNet's stem and leaves it at the full rate; here it is the first.

    Proposals, sampling and tests are torchvision's. Batch norm in the box heads is synchronised as in the backbone.
    """
    return Recipe(
        **_notes("detection/configs and detection/README.md", f"{box} box, {mask} mask AP", emacs),
        model=_model(model, "cascade_mask_rcnn", drop_path),
        optimizer=Optimizer(lr=1e-4, weight_decay=0.05, layer_decay=0.8, ema_decay=ema_decay),
        schedule=Schedule(name="step", epochs=36, milestones=(27, 33), warmup_steps=500, warmup_lr=1e-7),
        run=_run("coco"),
        task=InstancesOptions(image_size=(800, 1333), preprocess="model", layer_decay_layers=12),
        augment=ObjectAugment(name="detr"),
    )


def _segmenter(model: Model, optimizer: Optimizer, warmup_lr: float, data: str, crop: int, **others: Any) -> Recipe:
    """160,000 steps, falling linearly after a rise."""
    return Recipe(
        model=model,
        optimizer=optimizer,
        schedule=Schedule(name="poly", steps=160_000, warmup_steps=1500, warmup_lr=warmup_lr),
        run=_run(data),
        augment=LabelAugment(name="standard", crop_size=(crop, crop)),
        **others,
    )


def _upernet(model: str, miou: str, ms: str, emacs: float, decay: float, layers: int, drop_path: float) -> Recipe:
    """Tests are at a shorter side of 512; the official ones round the sides to multiples of 32."""
    expect = f"{miou} % mIoU, {ms} with several scales and mirrored"
    return _segmenter(
        _model(model, "upernet", drop_path),
        Optimizer(lr=1e-4, weight_decay=0.05, layer_decay=decay),
        1e-10,
        "ade20k",
        512,
        **_notes("segmentation/configs and segmentation/README.md", expect, emacs),
        task=Options(image_size=(512, 2048), preprocess="model", layer_decay_layers=layers, aux_weight=0.4),
    )


def _seg(data: str, miou: str, ms: str, emacs: float, weight_decay: float, drop_path: float) -> Recipe:
    """The head has no drop path here, the official one 0.1 on ADE20K. Cityscapes is tested by windows that overlap.

    The ImageNet training of this backbone is not known: start from the published file or from a run of your own.
    """
    options = Options(image_size=(512, 2048), preprocess="model", head_lr=10.0)
    args, crop = {}, 512
    if data == "cityscapes":
        options = replace(options, image_size=(1024, 2048), window=(1024, 1024), stride=(768, 768))
        args, crop = {"head_depth": 5, "head_ratio": 1.0}, 1024
    expect = f"{miou} % mIoU, {ms} with several scales and mirrored"
    return _segmenter(
        Model(name="ffnet_seg", args=args, weights="runs/ffnet_seg", head="ffnet_seg", drop_path_rate=drop_path),
        Optimizer(lr=6e-5, weight_decay=weight_decay),
        6e-11,
        data,
        crop,
        **_notes("segmentation/configs/*/ffnet_seg_*, run in SegNeXt's code", expect, emacs),
        task=options,
    )


RECIPES = {
    "instances": rows(CASCADE, "{}_cascade_mask_rcnn", "{} with Cascade Mask R-CNN, 36 epochs.", _cascade),
    "segmentation": [
        *rows(UPERNET, "{}_upernet", "{} with UPerNet on ADE20K, 160,000 steps.", _upernet),
        *rows(SEG, "ffnet_seg_{}", "FFNet-Seg on {}, 160,000 steps.", _seg),
    ],
}
