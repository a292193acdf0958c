"""AFFNet (arXiv:2307.14008) with SSDLite on COCO, and with DeepLabv3 on PASCAL VOC and ADE20K.

The configurations were never released. What is known fits the defaults of CVNets, on which the code is built, so these
are CVNets' recipes for MobileViT and MobileViTv2 in the same places. Left open by all sources and chosen here: the head
has CVNets' ReLU; DeepLabv3 runs at stride 8 with rates 12, 24 and 36, and has an auxiliary head in training, which the
published sizes do not count. CVNets' rotation by up to 10 degrees and Gaussian noise are left out.
"""

from __future__ import annotations

from typing import Any

from tokenmix.recipes.parts import Model, Optimizer, Run, Schedule
from tokenmix.recipes.recipe import Recipe
from tokenmix.recipes.tables import rows
from tokenmix.tasks.dense.options import LabelAugment, ObjectAugment
from tokenmix.tasks.detection.options import DetectionOptions
from tokenmix.tasks.segmentation.options import Options as SegmentationOptions

# fmt: off
# SSDLite on COCO, 320 px: reported by arXiv:2407.12217, table 2
#               box AP  EMACs
SSDLITE = {
    "affnet_t": ("25.3", 0.0986),
    "affnet_s": ("28.4", 0.174),
}
# DeepLabv3, 512 px: official README
#                 PASCAL VOC           ADE20K
#                 mIoU    EMACs        mIoU    EMACs
DEEPLABV3 = {
    "affnet_et": (("76.1", 0.0157),   ("33.0", 0.0736)),
    "affnet_t":  (("77.8", 0.0256),   ("36.9", 0.119)),
    "affnet_s":  (("80.5", 0.0498),   ("38.4", 0.23)),
}
# fmt: on


def _notes(config: str, expect: str, emacs: float) -> dict[str, Any]:
    return {
        "source": f"github.com/apple/ml-cvnets, commit 0c0f798, config/{config}; AFFNet's own configuration was not "
        "released",
        "expect": expect,
        "cost": f"{emacs} EMACs, hardware unknown",
    }


def _model(name: str, head: str, **args: Any) -> Model:
    return Model(name=name, args={**args, "head_act": "relu"}, weights=f"runs/{name}", head=head)


def _run(data: str, batch_size: int, accumulate: int = 1) -> Run:
    kind: dict[str, Any] = {"precision": "float16", "channels_last": True, "sync_batchnorm": True}
    return Run(data=data, batch_size=batch_size, accumulate=accumulate, **kind)


# Pixels are only divided by 255, which `preprocess="model"` means here.
_ADAMW = Optimizer(lr=9e-4, weight_decay=0.01, ema_decay=0.9995)
_START: dict[str, Any] = {"warmup_steps": 500, "warmup_lr": 9e-5, "min_lr": 1e-6}


def _ssdlite(model: str, ap: str, emacs: float) -> Recipe:
    expect = f"{ap} box AP (reported by arXiv:2407.12217, table 2)"
    return Recipe(
        **_notes("detection/ssd_coco/mobilevit.yaml", expect, emacs),
        model=_model(model, "ssdlite"),
        optimizer=_ADAMW,
        schedule=Schedule(epochs=200, **_START),
        run=_run("coco", 128),
        task=DetectionOptions(image_size=(320, 320), preprocess="model"),
        augment=ObjectAugment(name="ssd"),
    )


def _deeplabv3(model: str, notes: dict[str, Any], head_lr: float = 1.0, **parts: Any) -> Recipe:
    size = (512, 1024)  # the shorter side 512, scaled by 0.5 to 1.5
    return Recipe(
        **notes,
        model=_model(model, "deeplabv3", output_stride=8, rates=[12, 24, 36], aux=True),
        task=SegmentationOptions(image_size=size, preprocess="model", head_lr=head_lr, aux_weight=0.4),
        augment=LabelAugment(name="standard", scale=(0.5, 1.5), crop_size=(512, 512)),
        **parts,
    )


def _voc(model: str, miou: str, emacs: float) -> Recipe:
    """The published numbers may owe something to COCO's pictures beside VOC's, as CVNets' do; here are none of them."""
    return _deeplabv3(
        model,
        _notes("segmentation/pascal_voc/deeplabv3_mobilevit.yaml", f"{miou} % mIoU (official README)", emacs),
        head_lr=10.0,
        optimizer=_ADAMW,
        schedule=Schedule(epochs=50, **_START),
        run=_run("voc", 128, accumulate=2),  # 16 on each of 4 GPUs, two parts; its own comment says 64
    )


def _ade20k(model: str, miou: str, emacs: float) -> Recipe:
    return _deeplabv3(
        model,
        _notes("segmentation/ade20k/deeplabv3_mobilevitv2.yaml", f"{miou} % mIoU (official README)", emacs),
        optimizer=Optimizer(  # theirs without Nesterov's form of the momentum
            name="sgd", lr=0.02, weight_decay=1e-4, clip_grad=10.0, ema_decay=0.9995
        ),
        schedule=Schedule(epochs=120, min_lr=2e-4),
        run=_run("ade20k", 16),
    )


RECIPES = {
    "detection": rows(SSDLITE, "{}_ssdlite", "{} with SSDLite, 320 px.", _ssdlite),
    "segmentation": [
        *rows(DEEPLABV3, "{}_deeplabv3_voc", "{} with DeepLabv3 on PASCAL VOC 2012, 512 px.", _voc, 0),
        *rows(DEEPLABV3, "{}_deeplabv3_ade20k", "{} with DeepLabv3 on ADE20K, 512 px.", _ade20k, 1),
    ],
}
