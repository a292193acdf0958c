"""FFNet (arXiv:2406.02021) on ImageNet-1K: from scratch, with a teacher, and fine-tuned at 384 px."""

from __future__ import annotations

from dataclasses import replace

from tokenmix.recipes.recipe import Recipe

_SOURCE = "github.com/ysj9909/FFNet, commit f3c3e4c: commands of the README and defaults of train.py"
_HARDWARE = "EMACs, on 8 GPUs (kind and hours unknown)"


def _scratch(model: str, expect: str, emacs: str, *, drop_path_rate: float, mixup: float, crop_pct: float) -> Recipe:
    return Recipe(
        source=_SOURCE,
        expect=expect,
        cost=f"{emacs} {_HARDWARE}",
        model=model,
        data="imagenet",
        image_size=(256, 256),
        preprocess="model",
        crop_pct=crop_pct,
        batch_size=1024,  # 128 on each of 8 GPUs
        epochs=320,
        warmup_epochs=5,
        warmup_lr=1e-6,
        cooldown_epochs=20,
        lr=1e-3,
        min_lr=1e-5,
        weight_decay=0.05,
        label_smoothing=0.1,
        drop_path_rate=drop_path_rate,
        ema_decay=0.9995,
        augment="imagenet",
        crop_interpolation="random",  # timm's default, which the commands leave as it is
        rand_augment="rand-m9-mstd0.5-inc1",  # with it timm drops the colour jitter of 0.4 that the commands have
        erase_rate=0.25,
        mixup=mixup,
        cutmix=1.0,
        precision="float16",
    )


def ffnet_1() -> Recipe:
    """FFNet-1, 256 px."""
    return _scratch("ffnet_1", "81.3 % top-1", "3.69", drop_path_rate=0.1, mixup=0.2, crop_pct=0.9)


def ffnet_2() -> Recipe:
    """FFNet-2, 256 px."""
    return _scratch("ffnet_2", "82.9 % top-1", "7.45", drop_path_rate=0.15, mixup=0.2, crop_pct=0.9)


def ffnet_3() -> Recipe:
    """FFNet-3, 256 px."""
    return _scratch("ffnet_3", "83.9 % top-1", "12.59", drop_path_rate=0.35, mixup=0.8, crop_pct=0.95)


def ffnet_4() -> Recipe:
    """FFNet-4, 256 px; the README has no command for it: FFNet-3's values and the code's own drop path."""
    expect = "not published at 256 px; the start of ffnet_4_384"
    return _scratch("ffnet_4", expect, "23.74", drop_path_rate=0.4, mixup=0.8, crop_pct=0.95)


def _distilled(recipe: Recipe, expect: str, emacs: str, drop_path_rate: float) -> Recipe:
    return replace(
        recipe,
        expect=expect,
        cost=f"{emacs} {_HARDWARE}",
        drop_path_rate=drop_path_rate,
        mixup=0.8,
        teacher="regnety_160.deit_in1k",  # RegNetY-16GF, 82.9 %
        distill="hard",
        distill_weight=0.5,
        distill_temperature=1.0,
    )


def ffnet_1_distilled() -> Recipe:
    """FFNet-1, 256 px, hard distillation on its only classifier."""
    return _distilled(ffnet_1(), "82.1 % top-1", "12.21", 0.02)


def ffnet_2_distilled() -> Recipe:
    """FFNet-2, 256 px, hard distillation on its only classifier."""
    return _distilled(ffnet_2(), "83.7 % top-1", "15.97", 0.08)


def ffnet_3_distilled() -> Recipe:
    """FFNet-3, 256 px, hard distillation on its only classifier."""
    return _distilled(ffnet_3(), "84.5 % top-1", "21.11", 0.2)


def _at_384(recipe: Recipe, expect: str, emacs: str, weights: str, drop_path_rate: float) -> Recipe:
    return replace(
        recipe,
        expect=expect,
        cost=f"{emacs} {_HARDWARE}",
        weights=weights,
        image_size=(384, 384),
        crop_pct=1.0,  # train.py sets it for every fine-tune
        batch_size=512,
        epochs=30,
        warmup_epochs=0,
        warmup_lr=0,
        cooldown_epochs=0,
        lr=5e-6,
        min_lr=0,
        schedule="constant",
        weight_decay=1e-8,
        drop_path_rate=drop_path_rate,
    )


def ffnet_3_384() -> Recipe:
    """FFNet-3 fine-tuned at 384 px, from the published weights trained without a teacher."""
    recipe = replace(ffnet_3(), model="ffnet_3.in1k")
    return _at_384(recipe, "84.5 % top-1", "2.65", "pretrained", 0.4)


def ffnet_4_384() -> Recipe:
    """FFNet-4 fine-tuned at 384 px, from a run of ffnet_4, whose weights are not published."""
    return _at_384(ffnet_4(), "85.3 % top-1", "5.01", "runs/ffnet_4", 0.5)
