"""Feature pyramids (arXiv:1612.03144) on a backbone's levels, and the semantic segmentation on top of one."""

from __future__ import annotations

import functools
import operator
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from tokenmix.heads.levels import Levels, TimmLevels, feature_levels
from tokenmix.heads.segmenter import Segmenter
from tokenmix.layers import ConvNorm

DIM = 256


class Pyramid(nn.Module):
    """``(B, in_chans, H, W)`` -> a dict of ``(B, 256, H_i, W_i)``, as torchvision's detectors want it.

    Args:
        levels: The backbone's.
        extra: Makes coarser levels, or None.
    """

    out_channels = DIM

    def __init__(self, levels: Levels | TimmLevels, extra: ExtraFPNBlock | None = None) -> None:
        super().__init__()
        self.levels = levels
        self.pretrained_cfg = levels.pretrained_cfg
        self.neck = FeaturePyramidNetwork(levels.num_chs, DIM, extra)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        return self.neck(OrderedDict((str(i), y) for i, y in enumerate(self.levels(x))))


class SemanticFPN(nn.Module):
    """Feature maps -> ``(B, num_classes, h, w)`` at the size of the first one (arXiv:1901.02446).

    Every level of a pyramid goes through 3x3 convolutions, each but on the first level followed by an upsampling by 2,
    until it has the first one's stride; then all are added.

    Args:
        chans: The maps' channels.
        reductions: Their strides.
        num_classes: Of the classifier.
        dim: Channels of the pyramid.
        channels: Of the convolutions.
        drop_rate: Probability that a channel is dropped in front of the classifier.
    """

    def __init__(
        self,
        chans: Sequence[int],
        reductions: Sequence[int],
        num_classes: int,
        *,
        dim: int = DIM,
        channels: int = 128,
        drop_rate: float = 0.1,
    ) -> None:
        super().__init__()
        self.neck = FeaturePyramidNetwork(list(chans), dim)
        self.branches = nn.ModuleList()
        for reduction in reductions:
            doublings = (reduction // reductions[0]).bit_length() - 1
            steps: list[nn.Module] = []
            for i in range(max(doublings, 1)):
                steps.append(ConvNorm(channels if i else dim, channels, 3, act=nn.ReLU))
                if doublings:
                    steps.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
            self.branches.append(nn.Sequential(*steps))
        self.drop = nn.Dropout2d(drop_rate)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        pyramid = self.neck(OrderedDict((str(i), y) for i, y in enumerate(maps))).values()
        # The doubled size of an odd map is one too large.
        parts = (
            F.interpolate(branch(y), maps[0].shape[-2:], mode="bilinear", align_corners=False)
            for branch, y in zip(self.branches, pyramid, strict=True)
        )
        return self.classifier(self.drop(functools.reduce(operator.add, parts)))


def semantic_fpn(
    backbone: str | nn.Module,
    num_classes: int,
    *,
    head_dim: int = DIM,
    channels: int = 128,
    drop_rate: float = 0.1,
    **backbone_args: Any,
) -> Segmenter:
    """Semantic FPN as CAS-ViT's configuration has it, where the levels have ``level_norm="batch"``.

    Args:
        backbone: See `tokenmix.heads.levels.feature_levels`; the last four levels are taken.
        num_classes: Classes.
        head_dim: Channels of the pyramid.
        channels: Of the convolutions on it.
        drop_rate: Probability that a channel is dropped in front of the classifier.
        **backbone_args: See `tokenmix.heads.levels.feature_levels`.
    """
    levels = feature_levels(backbone, (-4, -3, -2, -1), **backbone_args)
    head = SemanticFPN(
        levels.num_chs, levels.reductions, num_classes, dim=head_dim, channels=channels, drop_rate=drop_rate
    )
    return Segmenter(levels, head)
