"""How wide the stages of a network are by its name."""

from __future__ import annotations

import timm
import torch

import tokenmix.backbones  # noqa: F401 - registers our models


def base_dims(skeleton: str) -> tuple[int, ...]:
    """The widths of a skeleton's stages as its name defines them.

    Raises:
        TypeError: It takes no mixers.
    """
    with torch.device("meta"):
        model = timm.create_model(skeleton, mixers="identity")
    return tuple(info["num_chs"] for info in model.feature_info)  # type: ignore[union-attr]
