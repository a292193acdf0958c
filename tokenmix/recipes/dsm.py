"""The dynamic spectrum mixer (arXiv:2309.06721), reconstructed: no recipe is known, this one is its siblings'."""

from __future__ import annotations

from tokenmix.recipes.recipe import Recipe


def _scratch(model: str, emacs: str, drop_path_rate: float) -> Recipe:
    return Recipe(
        source="ours: the paper's recipe is unknown; the values are those of networks of its time and kind, "
        "ConvNeXt (arXiv:2201.03545, app. A.1) and ActiveMLP (arXiv:2203.06108) among them",
        expect="unknown: the abstract says 83.8 % top-1 for a variant that it does not name",
        cost=f"{emacs} EMACs",
        model=model,
        data="imagenet",
        image_size=(224, 224),
        preprocess="model",
        batch_size=1024,
        epochs=300,
        warmup_epochs=20,
        lr=1e-3,
        min_lr=1e-6,
        weight_decay=0.05,
        label_smoothing=0.1,
        drop_path_rate=drop_path_rate,
        clip_grad=1.0,
        augment="imagenet",
        rand_augment="rand-m9-mstd0.5-inc1",
        erase_rate=0.25,
        mixup=0.8,
        cutmix=1.0,
        precision="bfloat16",
    )


def dsm_ti() -> Recipe:
    """DSM-Ti, 224 px, 300 epochs."""
    return _scratch("dsm_ti", "2.26", 0.05)


def dsm_t() -> Recipe:
    """DSM-T, 224 px, 300 epochs."""
    return _scratch("dsm_t", "4.78", 0.1)


def dsm_s() -> Recipe:
    """DSM-S, 224 px, 300 epochs."""
    return _scratch("dsm_s", "8.87", 0.3)


def dsm_b() -> Recipe:
    """DSM-B, 224 px, 300 epochs."""
    return _scratch("dsm_b", "15.6", 0.5)
