"""Recipes that belong to no paper: the default one, and the budget in which mixers are compared on digits."""

from __future__ import annotations

from tokenmix.recipes.recipe import Recipe


def basic() -> Recipe:
    """Training from scratch, for a model that has no recipe of its own."""
    return Recipe(
        source="ours: AdamW, cosine and warm-up as MetaFormer-like networks use them (arXiv:2111.11418, sec. 4.1), "
        "for batches of 64",
        expect="a sound first result on a small data set; no published number",
        cost="depends on the data",
        model="mixernet_tiny",
        epochs=50,
        warmup_epochs=3,
        batch_size=64,
        lr=1e-3,
        min_lr=1e-5,
        weight_decay=0.05,
        augment="standard",
        label_smoothing=0.1,
        drop_path_rate=0.05,
        clip_grad=5.0,
    )


def digits() -> Recipe:
    """The budget of `compare` on the embedded handwritten digits: 240 steps, under half a minute on two cores."""
    return Recipe(
        source="ours: chosen with mixernet_pico and four mixers on the digits, two seeds each; 10 or 15 epochs, "
        "learning rates from 1.5e-3 to 6e-3, averaged weights and stronger augmentation differed less than the seeds",
        expect="98 % or more of the test digits",
        cost="15 s on two cores with the mixer aff",
        model="mixernet_pico",
        data="digits",
        epochs=15,
        warmup_epochs=2,
        batch_size=64,
        lr=3e-3,
        min_lr=3e-5,
        weight_decay=0.05,
        label_smoothing=0.1,
        clip_grad=5.0,
    )
