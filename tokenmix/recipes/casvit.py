"""CAS-ViT (arXiv:2408.03703) on ImageNet-1K: at 224 px with images of several sizes, and fine-tuned at 384 px.

The README gives the command of M only; XS, S and T have the same values here.
"""

from __future__ import annotations

from dataclasses import replace

from tokenmix.recipes.recipe import Recipe

_SIDES = (160, 192, 224, 256, 288, 320)  # five from 160 to 320, rounded to multiples of 32, and 224
# The two accuracies in the model zoo have no label; that they are 224 and 384 px is our reading.
_TOP1 = {"casvit_xs": (78.3, 78.7), "casvit_s": (80.9, 81.1), "casvit_m": (82.8, 83.0), "casvit_t": (83.9, 84.1)}
_EMACS = {"casvit_xs": (0.69, 0.068), "casvit_s": (1.15, 0.113), "casvit_m": (2.34, 0.23), "casvit_t": (4.48, 0.44)}
_HARDWARE = "on 8 GPUs (kind and hours unknown)"


def _scratch(model: str) -> Recipe:
    return Recipe(
        source="github.com/Tianfang-Zhang/CAS-ViT, commit 041d2d6: command of the README for M, defaults of "
        "classification/main.py, data/samplers.py, MODEL_ZOO.md",
        expect=f"{_TOP1[model][0]} % top-1, averaged weights",
        cost=f"{_EMACS[model][0]} EMACs, {_HARDWARE}",
        model=model,
        model_args={"distillation": False},  # as the script builds it, although the published sizes count two heads
        data="imagenet",
        image_size=(224, 224),
        multi_scale=_SIDES,
        preprocess="model",
        batch_size=2048,  # 8 GPUs x 128 x 2 parts, as the command says; the help text speaks of 4096
        accumulate=2,
        epochs=300,
        warmup_epochs=20,
        lr=6e-3,
        min_lr=1e-6,
        weight_decay=0.05,
        label_smoothing=0.1,
        drop_path_rate=0.1,
        ema_decay=0.9995,
        augment="imagenet",
        rand_augment="rand-m9-mstd0.5-inc1",  # with it timm drops the colour jitter of 0.4 that the script has
        precision="float16",
        seed=43,
    )


def casvit_xs() -> Recipe:
    """CAS-ViT-XS, 224 px, 300 epochs."""
    return _scratch("casvit_xs")


def casvit_s() -> Recipe:
    """CAS-ViT-S, 224 px, 300 epochs."""
    return _scratch("casvit_s")


def casvit_m() -> Recipe:
    """CAS-ViT-M, 224 px, 300 epochs."""
    return _scratch("casvit_m")


def casvit_t() -> Recipe:
    """CAS-ViT-T, 224 px, 300 epochs."""
    return _scratch("casvit_t")


def _at_384(model: str) -> Recipe:
    return replace(
        _scratch(model),
        expect=f"{_TOP1[model][1]} % top-1, averaged weights",
        cost=f"{_EMACS[model][1]} EMACs, {_HARDWARE}",
        model=f"{model}.ft_in1k_384",  # whose images are squeezed into the square, whole
        weights=f"runs/{model}",
        image_size=(384, 384),
        multi_scale=(*_SIDES, 384),
        batch_size=1024,
        epochs=30,
        lr=5e-5,
        min_lr=0,
        schedule="constant",
        warmup_epochs=20,  # the default, which the command leaves as it is
        drop_path_rate=0.0,
    )


def casvit_xs_384() -> Recipe:
    """CAS-ViT-XS fine-tuned at 384 px, from a run of casvit_xs."""
    return _at_384("casvit_xs")


def casvit_s_384() -> Recipe:
    """CAS-ViT-S fine-tuned at 384 px, from a run of casvit_s."""
    return _at_384("casvit_s")


def casvit_m_384() -> Recipe:
    """CAS-ViT-M fine-tuned at 384 px, from a run of casvit_m."""
    return _at_384("casvit_m")


def casvit_t_384() -> Recipe:
    """CAS-ViT-T fine-tuned at 384 px, from a run of casvit_t."""
    return _at_384("casvit_t")
