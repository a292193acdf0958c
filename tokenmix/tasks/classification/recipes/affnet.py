"""AFFNet (arXiv:2307.14008) on ImageNet-1K, 256 px, after the released configuration of AFFNet-ET.

That of no other size could be had: T and S have the values of ET.
"""

from __future__ import annotations

from tokenmix.recipes.parts import Model, Optimizer, Run, Schedule
from tokenmix.recipes.recipe import Recipe
from tokenmix.recipes.tables import rows
from tokenmix.tasks.classification.options import Augment, Options

_SOURCE = (
    "github.com/microsoft/TokenMixers, Adaptive Frequency Filters: README (hardware) and the released config.yaml of "
    "imagenet_et"
)
_ASSUMED = f"{_SOURCE}; no configuration of this size could be had: the values are those of ET"

# fmt: off
#               source     expected                       EMACs
TABLE = {
    "affnet_et": (_SOURCE,  "73.0 % top-1, averaged weights", 0.42),
    "affnet_t":  (_ASSUMED, "77.0 % top-1",                   0.92),
    "affnet_s":  (_ASSUMED, "79.8 % top-1",                   1.69),
}
# fmt: on


def _scratch(model: str, source: str, expect: str, emacs: float) -> Recipe:
    return Recipe(
        source=source,
        expect=expect,
        cost=f"{emacs} EMACs, on 8 A100 (official README), hours unknown",
        model=Model(name=model, drop_rate=0.1, drop_path_rate=0.0),
        optimizer=Optimizer(lr=9e-3, weight_decay=0.008, ema_decay=0.9995),
        schedule=Schedule(  # theirs falls once per epoch, ours at every step
            epochs=300, warmup_steps=20_000, warmup_lr=1e-6, min_lr=9e-4
        ),
        run=Run(
            data="imagenet",
            batch_size=1024,  # 128 on each of 8 GPUs
            precision="float16",
            channels_last=True,
            sync_batchnorm=True,
        ),
        task=Options(
            image_size=(256, 256),
            preprocess="model",  # shorter side 288, centre crop 256, bilinear, pixels only divided by 255
            label_smoothing=0.1,
        ),
        augment=Augment(name="imagenet"),  # random crop and mirroring, nothing else
    )


RECIPES = rows(TABLE, "{}", "{}, 256 px, 300 epochs.", _scratch)
