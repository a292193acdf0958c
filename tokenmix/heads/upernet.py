"""UPerNet (arXiv:1807.10221): pooled context on the last level, a feature pyramid, all its levels joined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.heads.levels import feature_levels
from tokenmix.heads.segmenter import FCNHead, Segmenter
from tokenmix.layers import ConvNorm
from tokenmix.ops.dispatch import Form, operator

POOL_SIZES = (1, 2, 3, 6)


class UPerHead(nn.Module):
    """Feature maps -> ``(B, num_classes, h, w)`` at the size of the first one.

    Args:
        chans: The maps' channels.
        num_classes: Of the classifier.
        channels: Of everything in between.
        drop_rate: Probability that a channel is dropped in front of the classifier.
    """

    def __init__(self, chans: Sequence[int], num_classes: int, *, channels: int = 512, drop_rate: float = 0.1) -> None:
        super().__init__()

        def unit(dim: int, kernel: int) -> ConvNorm:
            return ConvNorm(dim, channels, kernel, act=nn.ReLU)

        self.pools = nn.ModuleList(nn.Sequential(MeanCells(n), unit(chans[-1], 1)) for n in POOL_SIZES)
        self.context = unit(chans[-1] + len(POOL_SIZES) * channels, 3)
        self.laterals = nn.ModuleList(unit(dim, 1) for dim in chans[:-1])
        self.outputs = nn.ModuleList(unit(channels, 3) for _ in chans[:-1])
        self.join = unit(len(chans) * channels, 3)
        self.drop = nn.Dropout2d(drop_rate)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        last = maps[-1]
        x = self.context(torch.cat([last, *(_resize(pool(last), last) for pool in self.pools)], 1))
        outputs = [x]
        for y, lateral, output in list(zip(maps, self.laterals, self.outputs, strict=False))[::-1]:
            x = lateral(y) + _resize(x, y)
            outputs.insert(0, output(x))
        return self.classifier(self.drop(self.join(torch.cat([_resize(y, maps[0]) for y in outputs], 1))))


class MeanCells(nn.Module):
    """``(B, C, H, W) -> (B, C, n, n)``: `torch.nn.AdaptiveAvgPool2d`, exported as two matrix products.

    Other runtimes have no such pooling; taken apart it would tie an exported program to one size.

    Args:
        n: Cells per side.
    """

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n

    def forward(self, x: Tensor) -> Tensor:
        return mean_cells(x, self.n)


@operator(Form("pooling", F.adaptive_avg_pool2d, lambda now, *args: now.mode != "exporting"))
def mean_cells(x: Tensor, n: int) -> Tensor:
    """``(B, C, H, W) -> (B, C, n, n)``: the mean of each of n x n cells, which may overlap by a pixel."""
    return _shares(x, -2, n) @ x @ _shares(x, -1, n).t()


def _shares(x: Tensor, axis: int, n: int) -> Tensor:
    """``(n, size of the axis)``: by how much each pixel counts in each cell."""
    size = torch.full([], x.size(axis), dtype=torch.int64, device=x.device)  # ONNX takes no dynamic number
    cell, pixel = torch.arange(n, device=x.device)[:, None], torch.arange(x.size(axis), device=x.device)
    first = torch.div(cell * size, n, rounding_mode="floor")
    end = torch.div((cell + 1) * size + n - 1, n, rounding_mode="floor")
    inside = ((pixel >= first) & (pixel < end)).to(x.dtype)
    return inside / inside.sum(1, keepdim=True)


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


def upernet(
    backbone: str | nn.Module,
    num_classes: int,
    *,
    channels: int = 512,
    aux: bool = True,
    drop_rate: float = 0.1,
    **backbone_args: Any,
) -> Segmenter:
    """UPerNet as FFNet's configuration has it, where the levels have ``level_norm="layer"``.

    In training a batch needs two images, because the mean of a map goes through a batch norm.

    Args:
        backbone: See `tokenmix.heads.levels.feature_levels`; the last four levels are taken.
        num_classes: Classes.
        channels: Of the head.
        aux: Whether an auxiliary head of 256 channels reads the level before the last one in training.
        drop_rate: Probability that a channel is dropped in front of a classifier.
        **backbone_args: See `tokenmix.heads.levels.feature_levels`.
    """
    levels = feature_levels(backbone, (-4, -3, -2, -1), **backbone_args)
    head = UPerHead(levels.num_chs, num_classes, channels=channels, drop_rate=drop_rate)
    second = FCNHead(-2, levels.num_chs[-2], 256, num_classes, drop_rate=drop_rate) if aux else None
    model = Segmenter(levels, head, second)
    model.least_batch = 2
    return model
