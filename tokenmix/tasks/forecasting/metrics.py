"""Mean squared and absolute errors of forecasts, over all windows and in the form of papers that drop the last ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ForecastNumbers:
    """Errors on the normalised series.

    Attributes:
        mse: Mean squared error over windows, steps and variables.
        mae: Mean absolute error.
        by_step: Mean squared error of each future step, ``(H,)``.
        by_variable: The same of each variable, ``(M,)``.
        windows: How many were counted.
    """

    mse: float
    mae: float
    by_step: Tensor
    by_variable: Tensor
    windows: int


class ForecastErrors:
    """Sums of squared and absolute errors; sums of parts in any order are the sum of the whole.

    Args:
        horizon: Future steps, H.
        num_variables: Variables, M.
        limit: Count windows below this number only. ``windows - windows % batch`` is what a loader leaves that drops
            the last incomplete batch, as those of many papers do.
    """

    def __init__(self, horizon: int, num_variables: int, *, limit: int | None = None) -> None:
        self.limit = limit
        self.count = 0
        self.squared = torch.zeros(horizon, num_variables, dtype=torch.float64)
        self.absolute = torch.zeros(horizon, num_variables, dtype=torch.float64)

    @torch.no_grad()
    def update(self, forecast: Tensor, truth: Tensor, first: int = 0) -> None:
        """Add forecasts ``(B, H, M)`` of the windows ``first ... first + B``."""
        if self.limit is not None:
            room = max(0, self.limit - first)
            forecast, truth = forecast[:room], truth[:room]
        error = (forecast - truth).double()
        self.squared += error.square().sum(0).to(self.squared.device)
        self.absolute += error.abs().sum(0).to(self.absolute.device)
        self.count += len(error)

    def merge(self, other: ForecastErrors) -> None:
        """Add what another one has counted."""
        self.squared += other.squared
        self.absolute += other.absolute
        self.count += other.count

    def numbers(self) -> ForecastNumbers:
        """The errors so far.

        Raises:
            ValueError: If nothing was counted.
        """
        if self.count == 0:
            raise ValueError("no window was counted: the part is shorter than one batch")
        squared, absolute = self.squared / self.count, self.absolute / self.count
        return ForecastNumbers(
            float(squared.mean()), float(absolute.mean()), squared.mean(1), squared.mean(0), self.count
        )
