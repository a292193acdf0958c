"""Intervals around forecasts that have their coverage without a model of the errors: split conformal prediction.

Source: Lei and others 2018 (arXiv:1604.04173): the width is a quantile of the absolute errors on windows that training
has not seen. Its promise holds for exchangeable windows; those of a series that drifts are not, so that the coverage on
later windows is measured and told beside the level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Intervals:
    """Half widths of the intervals around a forecast.

    Attributes:
        level: Share of the truths that shall lie inside, 0 to 1.
        width: ``(H, M)``, for each step and variable; in units of the window's own scale if ``relative``.
        relative: Whether a width is multiplied by the standard deviation of the window's past.
        windows: From how many it was taken.
    """

    level: float
    width: Array
    relative: bool
    windows: int

    def bounds(self, forecast: Array, past: Array) -> tuple[Array, Array]:
        """``(B, H, M)`` forecasts of pasts ``(B, L, M)`` -> lower and upper bound."""
        width = self.width * scale_of(past) if self.relative else self.width
        return forecast - width, forecast + width

    def coverage(self, forecast: Array, past: Array, truth: Array) -> Array:
        """The share of truths inside for each step and variable, ``(H, M)``."""
        lower, upper = self.bounds(forecast, past)
        return ((truth >= lower) & (truth <= upper)).mean(0)


def fit_intervals(
    forecast: Array, past: Array, truth: Array, *, level: float = 0.9, relative: bool = False
) -> Intervals:
    """Intervals from the errors on validation windows.

    Args:
        forecast: ``(B, H, M)``.
        past: ``(B, L, M)``.
        truth: ``(B, H, M)``.
        level: Share of the truths that shall lie inside, between 0 and 1.
        relative: Measure errors in standard deviations of the window's past, so that calm windows get narrow intervals.

    Raises:
        ValueError: If the level is not between 0 and 1, or the windows are too few for it.
    """
    errors = np.abs(truth - forecast)
    if relative:
        errors = errors / scale_of(past)
    return intervals_of(errors, level=level, relative=relative)


def intervals_of(errors: Array, *, level: float = 0.9, relative: bool = False) -> Intervals:
    """Intervals from absolute errors ``(B, H, M)``; see `fit_intervals`.

    Raises:
        ValueError: If the level is not between 0 and 1, or the windows are too few for it.
    """
    if not 0 < level < 1:
        raise ValueError(f"the level of an interval must be between 0 and 1, not {level}")
    count = len(errors)
    rank = math.ceil((count + 1) * level)
    if rank > count:
        raise ValueError(
            f"{count} windows are too few for intervals of level {level}: {math.ceil(level / (1 - level))} are needed"
        )
    steps = errors.swapaxes(0, 1)  # one at a time: of many variables the errors are large, and are copied
    width = np.stack([np.partition(step, rank - 1, axis=0)[rank - 1] for step in steps])
    return Intervals(level, width, relative, count)


def scale_of(past: Array) -> Array:
    """The standard deviation of every window's past, ``(B, 1, M)``, as the forecaster takes it."""
    return np.sqrt(past.var(1, keepdims=True) + 1e-5)
