"""A data set and a network small enough to train many times in a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from tokenmix.recipes import Recipe
from tokenmix.tasks.classification.images import ArrayImages, ClassData
from tokenmix.train.checkpoint import Checkpoints


def toy_data(train: int = 48, val: int = 18) -> ClassData:
    """Noisy 8x8 images of three classes, each brighter in one colour."""
    generator = torch.Generator().manual_seed(0)

    def part(count: int, name: str) -> ArrayImages:
        labels = [index % 3 for index in range(count)]
        pixels = torch.randint(0, 120, (count, 3, 8, 8), generator=generator)
        for index, label in enumerate(labels):
            pixels[index, label] += 20
        names = [f"{name}/{index}" for index in range(count)]
        return ArrayImages(pixels.to(torch.uint8), labels, names, glyphs=True, crop_pct=1.0)

    return ClassData("toy", part(train, "train"), part(val, "val"), part(6, "test"), 8, ["red", "green", "blue"])


def checkpoint(out: Path) -> dict[str, Any]:
    """The content of a run's newest checkpoint."""
    found = Checkpoints(out)
    path = found.newest()
    assert path is not None
    return found.read(path)


def toy_model() -> nn.Module:
    """Convolution, batch norm and dropout: what keeps state and what draws random numbers."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


class Exact(nn.Module):
    """Without batch norm and dropout, in float64: what is left is rounding."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GELU(), nn.Flatten(), nn.Linear(288, 3)).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x.double())

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Each layer by itself, as timm asks for it."""
        return {"blocks": r"^inner\.(\d+)"}


def toy_recipe(**changes: Any) -> Recipe:
    """Three epochs of six steps."""
    values: dict[str, Any] = {
        "source": "test",
        "expect": "nothing",
        "model": "toy",
        "batch_size": 8,
        "epochs": 3,
        "warmup_epochs": 0.5,
        "lr": 1e-2,
        "label_smoothing": 0.1,
        "clip_grad": 1.0,
        "ema_decay": 0.9,
    }
    return Recipe.from_values(values | changes)
