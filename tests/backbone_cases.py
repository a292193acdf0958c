"""What the backbones' tests share: every registered model, small versions of each architecture, images, distances."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn

from tests.scramble import scramble, settle
from tokenmix import backbones
from tokenmix.backbones.base import Backbone

# timm's name of a family is that of its module.
FAMILIES: dict[str, list[str]] = {
    family: timm.list_models(module=family)
    for family in sorted(timm.models.list_modules())
    if hasattr(backbones, family)
}
MODELS = tuple(name for names in FAMILIES.values() for name in names)
SMALLEST = {
    "affnet": "affnet_et",
    "casvit": "casvit_xs",
    "dsm": "dsm_ti",
    "ffnet": "ffnet_1",
    "mixernet": "mixernet_pico",
}
# Every architecture with all of its kinds of blocks, at sizes that take milliseconds.
TOYS: dict[str, dict[str, Any]] = {
    "affnet_et": {"depths": (1, 1, 1, 2, 1), "dims": (8, 16, 24, 32, 40)},
    "affnet_b": {"depths": (1, 2, 1, 1, 1), "dims": (8, 16, 24, 32, 40), "norm": "batch", "act": "prelu"},
    "casvit_xs": {"depths": (1, 1, 2, 1), "dims": (16, 24, 32, 44)},
    "dsm_s": {"depths": (1, 1, 2, 1), "dims": (16, 24, 32, 40)},
    "ffnet_1": {"depths": (1, 1, 1, 1), "dims": (16, 32, 32, 64), "mlp_kernel": 3, "stem_dim": 16},
    "ffnet_3": {"depths": (1, 1, 2, 1), "dims": (16, 32, 32, 64), "stem_dim": 16},
    "ffnet_seg": {
        "depths": (1, 1, 2, 1),
        "dims": (16, 24, 32, 40),
        "stem_dim": 16,
        "final_dim": 48,
        "hidden_size": 56,
    },
    "mixernet_pico": {"depths": (1, 1, 2, 1), "dims": (16, 24, 32, 40), "layer_scale": 0.5},
}


def toy(name: str, *, seed: int = 0, **kwargs: Any) -> Backbone:
    """A small version of a model with 7 classes and weights that matter, in eval mode."""
    model = timm.create_model(name, **{"num_classes": 7, **TOYS[name], **kwargs}).eval()
    return settle(scramble(model, seed), images(64, 64, batch=4, chans=kwargs.get("in_chans", 3)))


def toy_features(name: str, **kwargs: Any) -> nn.Module:
    """The same weights as those of `toy` in timm's wrapper that returns the feature levels."""
    return toy(name, features_only=True, **kwargs)


def images(
    height: int, width: int, *, batch: int = 2, chans: int = 3, dtype: torch.dtype = torch.float32, seed: int = 0
) -> Tensor:
    """(batch, chans, height, width) normal numbers."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, chans, height, width, generator=generator, dtype=torch.float64).to(dtype)


def distance(actual: Tensor, expected: Tensor) -> float:
    """The largest difference over the largest expected size; shapes must agree."""
    assert actual.shape == expected.shape
    return float((actual.detach() - expected.detach()).abs().max() / expected.detach().abs().max())
