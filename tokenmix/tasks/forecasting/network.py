"""The forecaster: stages of blocks between a reversible normalisation and a linear head, once or for trend and rest.

Source: the official forecasting code of FFNet (arXiv:2406.02021) at commit f3c3e4c. Letters: B windows, L past and
H future values, M variables, D channels of a variable, N tokens. Inside, maps are ``(M, D, B, N)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.tasks.forecasting.embeddings import ReversibleNorm

if TYPE_CHECKING:
    from tokenmix.tasks.forecasting.model import Architecture


class Stage(nn.Module):
    """An embedding and blocks: ``(M, B, L)`` or ``(M, D, B, N)`` to ``(M, D', B, N')``."""

    def __init__(self, embed: nn.Module, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.embed = embed
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.embed(x))


class Forecaster(nn.Module):
    """``(B, L, M) -> (B, H, M)``: the next H values of M variables from the last L ones.

    Args:
        norm: What makes windows comparable and undoes it, or None.
        stages: One after the other; the first takes ``(M, B, L)``.
        head: From the ``D N`` numbers of a variable, channel by channel, to its H values.
        arch: What it is made of.
    """

    def __init__(
        self, norm: ReversibleNorm | None, stages: list[nn.Module], head: nn.Linear, arch: Architecture
    ) -> None:
        super().__init__()
        self.architecture, self.look_back, self.horizon = arch, arch.look_back, arch.horizon
        self.norm = norm
        self.stages = nn.Sequential(*stages)
        self.head = head
        self.head_drop = nn.Dropout(arch.head_drop)

    def forward(self, past: Tensor, marks: Tensor | None = None) -> Tensor:
        """The forecast.

        Args:
            past: ``(B, L, M)``.
            marks: Features of the time, which the official model accepts and ignores too.
        """
        if self.norm is None:
            return self.network(past)
        x, center, scale = self.norm.normalize(past)
        return self.norm.restore(self.network(x), center, scale)

    def network(self, x: Tensor) -> Tensor:
        """``(B, L, M) -> (B, H, M)`` without the normalisation."""
        x = self.stages(x.permute(2, 0, 1))  # (M, D, B, N)
        y = self.head_drop(self.head(x.transpose(1, 2).flatten(2)))  # (M, B, H)
        return y.permute(1, 2, 0)


def moving_average(past: Tensor, size: int) -> Tensor:
    """``(B, L, M) -> (B, L, M)``: the mean of ``size`` (odd) values around each, both ends repeated."""
    reach = size // 2
    x = torch.cat([past[:, :1].expand(-1, reach, -1), past, past[:, -1:].expand(-1, reach, -1)], 1)
    return F.avg_pool1d(x.transpose(1, 2), size, 1).transpose(1, 2)


class DecomposedForecaster(nn.Module):
    """``(B, L, M) -> (B, H, M)``: one network for the trend and one for what remains, summed.

    Args:
        build: Makes one network.
        arch: What they are made of; its ``decomposition`` is the size of the moving average that is the trend.
    """

    def __init__(self, build: Callable[[], Forecaster], arch: Architecture) -> None:
        super().__init__()
        self.architecture, self.look_back, self.horizon = arch, arch.look_back, arch.horizon
        self.size = arch.decomposition
        self.residual = build()
        self.trend = build()

    def forward(self, past: Tensor, marks: Tensor | None = None) -> Tensor:
        """The forecast; ``marks`` are ignored, as in `Forecaster`."""
        trend = moving_average(past, self.size)
        return self.residual(past - trend) + self.trend(trend)
