"""AFFNet (arXiv:2307.14008) with SSDLite on COCO, and with DeepLabv3 on PASCAL VOC and ADE20K.

The configurations were never released. What is known fits the defaults of CVNets, on which the code is built, so these
are CVNets' recipes for MobileViT and MobileViTv2 in the same places. Left open by all sources and chosen here: the head
has CVNets' ReLU; DeepLabv3 runs at stride 8 with rates 12, 24 and 36, and has an auxiliary head in training, which the
published sizes do not count. CVNets' rotation by up to 10 degrees and Gaussian noise are left out.
"""

from __future__ import annotations

from typing import Any

from tokenmix.recipes.recipe import Recipe

_SOURCE = "github.com/apple/ml-cvnets, commit 0c0f798, config/{}; AFFNet's own configuration was not released"
_START = {"warmup_steps": 500, "warmup_lr": 9e-5, "lr": 9e-4, "min_lr": 1e-6, "weight_decay": 0.01}


def _dense(model: str, **values: Any) -> Recipe:
    return Recipe(
        model=model,
        weights=f"runs/{model}",
        preprocess="model",  # pixels only divided by 255
        ema_decay=0.9995,
        precision="float16",
        channels_last=True,
        sync_batchnorm=True,
        **values,
    )


def _ssdlite(model: str, expect: str, cost: str) -> Recipe:
    return _dense(
        model,
        source=_SOURCE.format("detection/ssd_coco/mobilevit.yaml"),
        expect=f"{expect} box AP (reported by arXiv:2407.12217, table 2)",
        cost=cost,
        model_args={"head_act": "relu"},
        head="ssdlite",
        task="detection",
        data="coco",
        image_size=(320, 320),
        augment="ssd",
        batch_size=128,
        epochs=200,
        **_START,
    )


def affnet_t_ssdlite() -> Recipe:
    """AFFNet-T with SSDLite, 320 px."""
    return _ssdlite("affnet_t", "25.3", "0.0986 EMACs, hardware unknown")


def affnet_s_ssdlite() -> Recipe:
    """AFFNet with SSDLite, 320 px."""
    return _ssdlite("affnet_s", "28.4", "0.174 EMACs, hardware unknown")


def _deeplabv3(model: str, **values: Any) -> Recipe:
    return _dense(
        model,
        model_args={"output_stride": 8, "rates": [12, 24, 36], "head_act": "relu", "aux": True},
        head="deeplabv3",
        task="segmentation",
        task_args={"aux_weight": 0.4},
        image_size=(512, 1024),  # the shorter side 512, scaled by 0.5 to 1.5
        augment="standard",
        augment_args={"scale": [0.5, 1.5], "crop_size": [512, 512]},
        **values,
    )


def _voc(model: str, expect: str, cost: str) -> Recipe:
    """The published numbers may owe something to COCO's pictures beside VOC's, as CVNets' do; here are none of them."""
    return _deeplabv3(
        model,
        source=_SOURCE.format("segmentation/pascal_voc/deeplabv3_mobilevit.yaml"),
        expect=f"{expect} % mIoU (official README)",
        cost=cost,
        data="voc",
        batch_size=128,  # 16 on each of 4 GPUs, two parts; its own comment says 64
        accumulate=2,
        epochs=50,
        head_lr=10.0,
        **_START,
    )


def affnet_et_deeplabv3_voc() -> Recipe:
    """AFFNet-ET with DeepLabv3 on PASCAL VOC 2012, 512 px."""
    return _voc("affnet_et", "76.1", "0.0157 EMACs, hardware unknown")


def affnet_t_deeplabv3_voc() -> Recipe:
    """AFFNet-T with DeepLabv3 on PASCAL VOC 2012, 512 px."""
    return _voc("affnet_t", "77.8", "0.0256 EMACs, hardware unknown")


def affnet_s_deeplabv3_voc() -> Recipe:
    """AFFNet with DeepLabv3 on PASCAL VOC 2012, 512 px."""
    return _voc("affnet_s", "80.5", "0.0498 EMACs, hardware unknown")


def _ade20k(model: str, expect: str, cost: str) -> Recipe:
    return _deeplabv3(
        model,
        source=_SOURCE.format("segmentation/ade20k/deeplabv3_mobilevitv2.yaml"),
        expect=f"{expect} % mIoU (official README)",
        cost=cost,
        data="ade20k",
        batch_size=16,
        epochs=120,
        optimizer="sgd",  # theirs without Nesterov's form of the momentum
        lr=0.02,
        min_lr=2e-4,
        weight_decay=1e-4,
        clip_grad=10.0,
    )


def affnet_et_deeplabv3_ade20k() -> Recipe:
    """AFFNet-ET with DeepLabv3 on ADE20K, 512 px."""
    return _ade20k("affnet_et", "33.0", "0.0736 EMACs, hardware unknown")


def affnet_t_deeplabv3_ade20k() -> Recipe:
    """AFFNet-T with DeepLabv3 on ADE20K, 512 px."""
    return _ade20k("affnet_t", "36.9", "0.119 EMACs, hardware unknown")


def affnet_s_deeplabv3_ade20k() -> Recipe:
    """AFFNet with DeepLabv3 on ADE20K, 512 px."""
    return _ade20k("affnet_s", "38.4", "0.23 EMACs, hardware unknown")
