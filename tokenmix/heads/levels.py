"""The feature levels that dense heads read: a backbone's stages, each output behind a norm of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from tokenmix.backbones.base import Backbone, feature_indices
from tokenmix.layers import LayerNorm2d
from tokenmix.names import unknown

NORMS: dict[str, Any] = {"batch": nn.BatchNorm2d, "layer": LayerNorm2d, "none": nn.Identity}


class Levels(nn.Module):
    """``(B, in_chans, H, W)`` -> one ``(B, C_i, H_i, W_i)`` per level, from fine to coarse.

    The next stage reads the map without the norm. What the levels do not need of the backbone is removed from it.

    Args:
        backbone: Taken over and changed: its stages after the last level, its final part and its head go.
        indices: The stages whose outputs are wanted; None is all, a number counts from the end.
        norm: ``"layer"`` (over the channels of each pixel, eps 1e-6), ``"batch"`` or ``"none"``; one, or one per level.
        device: Where the norms' parameters and buffers are made.
        dtype: Their type.

    Raises:
        ValueError: For an unknown norm, another number of norms than of levels, or an index out of range.
    """

    def __init__(
        self,
        backbone: Backbone,
        indices: int | Sequence[int] | None = None,
        norm: str | Sequence[str] = "none",
        *,
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        self.indices = sorted(set(feature_indices(len(backbone.stages), indices)))
        kinds = [norm] * len(self.indices) if isinstance(norm, str) else list(norm)
        if len(kinds) != len(self.indices):
            raise ValueError(f"norm {kinds}: there are {len(self.indices)} levels; give one norm, or one for each")
        for kind in kinds:
            if kind not in NORMS:
                raise ValueError(unknown("norm", kind, NORMS))
        self.feature_info = [backbone.feature_info[i] for i in self.indices]
        self.num_chs = [info["num_chs"] for info in self.feature_info]
        self.reductions = [info["reduction"] for info in self.feature_info]
        self.stem = backbone.stem
        self.stages = backbone.stages[: self.indices[-1] + 1]
        # One per stage, so that a norm's key carries the number of its stage whatever the levels are.
        self.norms = nn.ModuleList(
            NORMS[kinds[self.indices.index(i)]](stage.dim, device=device, dtype=dtype)
            if i in self.indices
            else nn.Identity()
            for i, stage in enumerate(self.stages)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        maps = []
        for i, (stage, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            x = stage(x)
            if i in self.indices:
                maps.append(norm(x))
        return maps
