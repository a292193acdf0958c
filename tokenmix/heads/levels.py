"""The feature levels that dense heads read: a backbone's stages, each output behind a norm of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
from torch import Tensor, nn

from tokenmix.backbones.base import Backbone, feature_indices
from tokenmix.layers import LayerNorm2d
from tokenmix_runtime.names import unknown

NORMS: dict[str, Any] = {"batch": nn.BatchNorm2d, "layer": LayerNorm2d, "none": nn.Identity}
Place = tuple[int, int]


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
        kinds = _norm_kinds(norm, len(self.indices))
        self.pretrained_cfg = getattr(backbone, "pretrained_cfg", None)
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

    def place(self, name: str) -> Place | None:
        """How deep a parameter is: (stage, block in it), the stem's -1, a downsampling's 0; None for a level's norm."""
        part, *rest = name.split(".")
        if part != "stages":
            return (-1, 0) if part == "stem" else None
        return int(rest[0]), int(rest[2]) + 1 if rest[1] == "blocks" else 0


class TimmLevels(nn.Module):
    """`Levels` of any backbone of timm's: ``(B, in_chans, H, W)`` -> one ``(B, C_i, H_i, W_i)`` per level.

    Args:
        features: What ``timm.create_model(NAME, features_only=True)`` returns.
        norm: See `Levels`.
    """

    def __init__(self, features: Any, norm: str | Sequence[str] = "none") -> None:
        super().__init__()
        self.features = features
        self.pretrained_cfg = getattr(features, "pretrained_cfg", None)
        self.num_chs: list[int] = features.feature_info.channels()
        self.reductions: list[int] = features.feature_info.reduction()
        self.channels_last = getattr(features, "output_fmt", "NCHW") == "NHWC"
        kinds = _norm_kinds(norm, len(self.num_chs))
        self.norms = nn.ModuleList(NORMS[kind](dim) for kind, dim in zip(kinds, self.num_chs, strict=True))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = self.features(x)
        if self.channels_last:
            maps = [y.permute(0, 3, 1, 2) for y in maps]
        return [norm(y) for norm, y in zip(self.norms, maps, strict=True)]

    def place(self, name: str) -> Place | None:
        """See `Levels.place`; the stages are the backbone's outermost parts, the blocks the first number in a name."""
        inner = getattr(self.features, "model", self.features)  # one of timm's ways to return levels wraps the model
        part, *rest = name.removeprefix("features.").removeprefix("" if inner is self.features else "model.").split(".")
        if part == "norms":
            return None
        stages = [key for key, _ in inner.named_children()]
        if part not in stages:  # a token or a position, which stand before all
            return -1, 0
        numbers = [int(word) + 1 for word in rest if word.isdigit()] if rest[0] != "downsample" else []
        return stages.index(part), numbers[0] if numbers else 0


def levels_of(model: nn.Module) -> tuple[str, Levels | TimmLevels]:
    """The feature levels inside a dense model, and their name there.

    Raises:
        ValueError: It has none.
    """
    for name, module in model.named_modules():
        if isinstance(module, Levels | TimmLevels):
            return name, module
    raise ValueError(f"{type(model).__name__} has no feature levels: it is no model of tokenmix.heads.make_dense")


def feature_levels(
    backbone: str | nn.Module,
    indices: Sequence[int],
    *,
    level_norm: str | Sequence[str] = "none",
    **backbone_args: Any,
) -> Levels | TimmLevels:
    """The feature levels of a backbone given by name or as a module.

    Args:
        backbone: A model's name in timm's registry (ours are in it), a `Backbone`, which is taken over, or a model that
            timm built with ``features_only=True``, whose levels must then be the wanted ones.
        indices: The wanted levels, ascending; negative ones count from the end.
        level_norm: The norm behind each level, see `Levels`: ``"layer"`` is FFNet's, ``"batch"`` CAS-ViT's.
        **backbone_args: For ``timm.create_model``, where a name is given.

    Raises:
        ValueError: For an unknown name, or levels that the backbone does not have.
        TypeError: For an argument that the backbone does not have, or a module of another kind.
    """
    if isinstance(backbone, str):
        if not timm.is_model(backbone) and ":" not in backbone:
            raise ValueError(unknown("model", backbone, timm.list_models()))
        ours = timm.is_model(backbone) and timm.model_entrypoint(backbone).__module__.startswith("tokenmix.")
        form = {"num_classes": 0} if ours else {"features_only": True, "out_indices": tuple(indices)}
        backbone = timm.create_model(backbone, **{**backbone_args, **form})
    elif backbone_args:
        raise TypeError(f"{', '.join(backbone_args)}: arguments of a backbone go with its name, not with a built one")
    if isinstance(backbone, Backbone):
        return Levels(backbone, indices, level_norm)
    info: Any = getattr(backbone, "feature_info", None)
    if not hasattr(info, "channels"):
        raise TypeError(f"{type(backbone).__name__} returns no feature levels: build it with features_only=True")
    if len(info.channels()) != len(indices):
        raise ValueError(
            f"the backbone returns {len(info.channels())} levels, and {len(indices)} are needed: build it with "
            f"out_indices={tuple(indices)}"
        )
    return TimmLevels(backbone, level_norm)


def _norm_kinds(norm: str | Sequence[str], num: int) -> list[str]:
    """One kind of norm for each of ``num`` levels."""
    kinds = [norm] * num if isinstance(norm, str) else list(norm)
    if len(kinds) != num:
        raise ValueError(f"norm {kinds}: there are {num} levels; give one norm, or one for each")
    for kind in kinds:
        if kind not in NORMS:
            raise ValueError(unknown("norm", kind, NORMS))
    return kinds
