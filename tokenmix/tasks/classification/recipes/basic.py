"""Recipes that belong to no paper: the default one, and the budgets in which mixers are compared on embedded data."""

from __future__ import annotations

from tokenmix.recipes.parts import Model, Optimizer, Run, Schedule
from tokenmix.recipes.recipe import Recipe
from tokenmix.tasks.classification.options import Augment, Options


def basic() -> Recipe:
    """Training from scratch, for a model that has no recipe of its own."""
    return Recipe(
        source="ours: AdamW, cosine and warm-up as MetaFormer-like networks use them (arXiv:2111.11418, sec. 4.1), "
        "for batches of 64",
        expect="a sound first result on a small data set; no published number",
        cost="depends on the data",
        model=Model(name="mixernet_tiny", drop_path_rate=0.05),
        optimizer=Optimizer(lr=1e-3, weight_decay=0.05, clip_grad=5.0),
        schedule=Schedule(epochs=50, warmup_epochs=3, min_lr=1e-5),
        run=Run(batch_size=64),
        task=Options(label_smoothing=0.1),
        augment=Augment(name="standard"),
    )


def digits() -> Recipe:
    """The budget of `compare` on the embedded handwritten digits: 240 steps, under half a minute on two cores."""
    return Recipe(
        source="ours: chosen with mixernet_pico and four mixers on the digits, two seeds each; 10 or 15 epochs, "
        "learning rates from 1.5e-3 to 6e-3, averaged weights and stronger augmentation differed less than the seeds",
        expect="98 % or more of the test digits",
        cost="15 s on two cores with the mixer aff",
        model=Model(name="mixernet_pico"),
        optimizer=Optimizer(lr=3e-3, weight_decay=0.05, clip_grad=5.0),
        schedule=Schedule(epochs=15, warmup_epochs=2, min_lr=3e-5),
        run=Run(data="digits", batch_size=64),
        task=Options(label_smoothing=0.1),
    )


def matching_digits() -> Recipe:
    """The budget of `compare` where mixing is needed: have two digits that lie far apart the same colour?"""
    return Recipe(
        source="ours: a skeleton whose places see 11 of 32 pixels without mixing, so that what lies in one corner gets "
        "to another one by the mixer alone",
        expect="50 % without mixing, which is a guess; 99 to 100 % with any mixer that reaches far enough",
        cost="10 to 30 s of two cores",
        model=Model(
            name="mixernet_pico", args={"depths": [0, 2], "dims": [24, 48], "stem_stride": 2, "mlp_ratio": 2.0}
        ),
        optimizer=Optimizer(lr=2e-3, weight_decay=0.05, clip_grad=5.0),
        schedule=Schedule(epochs=10, warmup_epochs=1, min_lr=2e-5),
        run=Run(data="matching_digits", batch_size=32),
        task=Options(label_smoothing=0.1),
    )
