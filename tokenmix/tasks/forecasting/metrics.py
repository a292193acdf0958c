"""Mean squared and absolute errors of forecasts, over all windows or in the form of papers that drop the last ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tokenmix.metrics import Metric


@dataclass(frozen=True)
class ForecastNumbers:
    """Errors on the normalised series.

    Attributes:
        mse: Mean squared error over windows, steps and variables.
        mae: Mean absolute error.
        by_step: Mean squared error of each future step, ``(H,)``.
        by_variable: The same of each variable, ``(M,)``.
        mae_by_variable: Mean absolute error of each variable, ``(M,)``.
        windows: How many were counted.
    """

    mse: float
    mae: float
    by_step: Tensor
    by_variable: Tensor
    mae_by_variable: Tensor
    windows: int


class ForecastErrors(Metric):
    """Sums of squared and absolute errors; sums of parts in any order are the sum of the whole.

    Args:
        horizon: Future steps, H.
        num_variables: Variables, M.
        drop_last: 0 counts all windows. Otherwise those behind the last whole batch of so many are not counted: what a
            loader leaves that drops the last incomplete batch, as those of many papers do.
    """

    def __init__(self, horizon: int, num_variables: int, *, drop_last: int = 0) -> None:
        super().__init__((3, horizon, num_variables))
        self.drop_last = drop_last

    @torch.no_grad()
    def update(self, prediction: Tensor, batch: dict[str, Any]) -> None:
        """Add forecasts ``(B, H, M)`` of a batch: its ``future``, ``mask``, ``index``, and of how many ``windows``."""
        counts = batch["mask"]
        if self.drop_last:
            whole = batch["windows"] - batch["windows"] % self.drop_last
            counts = counts & (batch["index"] < whole)
        error = (prediction - batch["future"])[counts].double()
        count = torch.full_like(self.sums[0], len(error), device=error.device)
        self.add(torch.stack([error.square().sum(0), error.abs().sum(0), count]))

    def compute(self) -> dict[str, float]:
        """``{"mse": ..., "mae": ...}``"""
        numbers = self.numbers()
        return {"mse": numbers.mse, "mae": numbers.mae}

    def numbers(self) -> ForecastNumbers:
        """All that is known of the errors, of all processes together.

        Raises:
            ValueError: If nothing was counted.
        """
        squared, absolute, counts = self.total()
        count = int(counts[0, 0])
        if count == 0:
            raise ValueError("no window was counted: the part is shorter than one batch")
        squared, absolute = squared / count, absolute / count
        means = float(squared.mean()), float(absolute.mean())
        return ForecastNumbers(*means, squared.mean(1), squared.mean(0), absolute.mean(0), count)
