"""The model that a recipe, or the metadata of its weights, names."""

from __future__ import annotations

from typing import Any

import timm
from torch import nn

from tokenmix.checkpoints import our_models
from tokenmix.names import unknown


def build_model(name: str, num_classes: int, **arguments: Any) -> nn.Module:
    """A model of timm's registry, which includes ours, with fresh weights; arguments that are None are left out.

    Raises:
        ValueError: There is no such model.
    """
    if not timm.is_model(name) and ":" not in name:  # "hf-hub:owner/name" is timm's way to name one on the hub
        raise ValueError(unknown("model", name, our_models()))
    return timm.create_model(name, num_classes=num_classes, **arguments)
