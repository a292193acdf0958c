"""CAS-ViT (arXiv:2408.03703) on ImageNet-1K: at 224 px with images of several sizes, and fine-tuned at 384 px.

The README gives the command of M only; XS, S and T have the same values here.
"""

from __future__ import annotations

from tokenmix.recipes.parts import Model, Optimizer, Run, Schedule
from tokenmix.recipes.recipe import Recipe, with_values
from tokenmix.recipes.tables import rows
from tokenmix.tasks.classification.options import Augment, Options

_SIDES = (160, 192, 256, 288, 320)  # five from 160 to 320, rounded to multiples of 32; the run's own size comes to them

# The two accuracies in the model zoo have no label; that they are 224 and 384 px is our reading.
# fmt: off
#                224 px           384 px
#                top-1  EMACs     top-1  EMACs
TABLE = {
    "casvit_xs": ((78.3, 0.69),  (78.7, 0.068)),
    "casvit_s":  ((80.9, 1.15),  (81.1, 0.113)),
    "casvit_m":  ((82.8, 2.34),  (83.0, 0.23)),
    "casvit_t":  ((83.9, 4.48),  (84.1, 0.44)),
}
# fmt: on


def _scratch(model: str, top1: float, emacs: float) -> Recipe:
    return Recipe(
        source="github.com/Tianfang-Zhang/CAS-ViT, commit 041d2d6: command of the README for M, defaults of "
        "classification/main.py, data/samplers.py, MODEL_ZOO.md",
        expect=f"{top1} % top-1, averaged weights",
        cost=f"{emacs} EMACs, on 8 GPUs (kind and hours unknown)",
        model=Model(
            name=model,
            args={"distillation": False},  # as the script builds it, although the published sizes count two heads
            drop_path_rate=0.1,
        ),
        optimizer=Optimizer(lr=6e-3, weight_decay=0.05, ema_decay=0.9995),
        schedule=Schedule(epochs=300, warmup_epochs=20, min_lr=1e-6),
        run=Run(
            data="imagenet",
            batch_size=2048,  # 8 GPUs x 128 x 2 parts, as the command says; the help text speaks of 4096
            accumulate=2,
            precision="float16",
            seed=43,
        ),
        task=Options(
            image_size=(224, 224), multi_scale=tuple(sorted((*_SIDES, 224))), preprocess="model", label_smoothing=0.1
        ),
        augment=Augment(
            name="imagenet",
            rand_augment="rand-m9-mstd0.5-inc1",  # with it timm drops the colour jitter of 0.4 that the script has
        ),
    )


def _at_384(model: str, top1: float, emacs: float) -> Recipe:
    return with_values(
        _scratch(model, top1, emacs),
        model=f"{model}.ft_in1k_384",  # whose images are squeezed into the square, whole
        weights=f"runs/{model}",
        drop_path_rate=0.0,
        image_size=(384, 384),
        multi_scale=(*_SIDES, 384),
        batch_size=1024,
        epochs=30,  # with 20 of warm-up, the default, which the command leaves as it is
        schedule="constant",
        lr=5e-5,
        min_lr=0,
    )


RECIPES = [
    *rows(TABLE, "{}", "{}, 224 px, 300 epochs.", _scratch, 0),
    *rows(TABLE, "{}_384", "{} fine-tuned at 384 px, from a run of it.", _at_384, 1),
]
