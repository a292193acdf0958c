"""FFNet-SR's published trainings (arXiv:2406.02021), and a small one that takes minutes."""

from __future__ import annotations

from typing import Any

from tokenmix.recipes.parts import Model, Optimizer, Run, Schedule
from tokenmix.recipes.recipe import Recipe
from tokenmix.tasks.super_resolution.options import Options

_SOURCE = "github.com/ysj9909/FFNet, commit f3c3e4c: super_resolution/options/train/{}; BasicSR for what it inherits"


def _published(file: str, model: str, data: str, patches: int, **notes: Any) -> Recipe:
    """Adam for 500,000 steps of 64 patches; with so many patches of each picture an epoch is 5,000 steps."""
    return Recipe(
        source=_SOURCE.format(file),
        model=Model(name=model),
        optimizer=Optimizer(lr=1e-3, weight_decay=0.0, betas=(0.9, 0.99)),
        schedule=Schedule(steps=500_000, min_lr=1e-5),
        run=Run(data=data, batch_size=64),
        task=Options(image_size=(96, 96), patches=patches, rounded_luma=False),
        **notes,
    )


def ffnet_sr() -> Recipe:
    """FFNet-SR x2 on DF2K."""
    return _published(
        "FFNetSR_DF2K.yaml",
        "ffnet_sr",
        "DF2K",
        93,
        expect="38.32 dB, 0.9618 on Set5; 34.28, 0.9235 on Set14; 32.43, 0.9029 on B100; 33.23, 0.9382 on Urban100; "
        "39.76, 0.9793 on Manga109",
        cost="2.08 EMACs, on 4 GPUs (kind and hours unknown)",
    )


def ffnet_sr_light() -> Recipe:
    """FFNet-SR light x2 on DIV2K."""
    return _published(
        "FFNetSR_light_DIV2K.yaml",
        "ffnet_sr_light",
        "DIV2K",
        400,
        expect="38.23 dB, 0.9613 on Set5; 33.75, 0.9204 on Set14; 32.34, 0.9018 on B100; 32.81, 0.9344 on Urban100; "
        "39.23, 0.9781 on Manga109",
        cost="1.56 EMACs, on 4 GPUs (kind and hours unknown)",
    )


def photographs_upscale() -> Recipe:
    """A small network on the embedded photographs: the demo."""
    return Recipe(
        source="ours: FFNet-SR's optimiser and loss; size and length by what two cores do in minutes",
        expect="1.1 dB above bicubic interpolation on the test pictures, 1.5 on Set5",
        cost="6 minutes on one core",
        model=Model(name="ffnet_sr_tiny"),
        optimizer=Optimizer(lr=3e-3, weight_decay=0.0, betas=(0.9, 0.99)),
        schedule=Schedule(epochs=12, warmup_epochs=0.25, min_lr=3e-5),
        run=Run(data="photographs", batch_size=16),
        task=Options(image_size=(32, 32), patches=160),
    )
