"""Axes: from values to pixels, with ticks that read well."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """A map from ``low..high`` to the pixels ``start..stop``.

    ``kind`` is "linear", "whole" (linear, ticks only at whole numbers), "log", or "error": percentages right,
    logarithmic in what is missing to 100 + ``floor``.
    """

    low: float
    high: float
    start: float
    stop: float
    kind: str = "linear"
    floor: float = 0.0

    def __call__(self, value: float) -> float:
        """The pixel of ``value``."""
        low, high, at = self._bend(self.low), self._bend(self.high), self._bend(value)
        return self.start + (at - low) / (high - low) * (self.stop - self.start)

    def _bend(self, value: float) -> float:
        if self.kind == "log":
            return math.log(value)
        if self.kind == "error":
            return -math.log(100 + self.floor - value)
        return value

    def ticks(self, wanted: int = 6) -> list[tuple[float, str]]:
        """Round values within the axis, and how they are written."""
        if self.kind in ("linear", "whole"):
            return _linear_ticks(self.low, self.high, wanted, whole=self.kind == "whole")
        if self.kind == "error":
            coarse, fine = [0.0, 50, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9, 100], [20.0, 70, 85, 92, 94, 96, 97, 98.5]
        else:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            coarse = [10.0**decade for decade in decades]
            fine = [step * value for step in (2, 5, 3, 7) for value in coarse]
        kept: list[float] = []
        for value, apart in [(value, 18) for value in coarse] + [(value, 26) for value in fine]:
            if self.low <= value <= self.high and all(abs(self(value) - self(other)) >= apart for other in kept):
                kept.append(value)
        if len(kept) < 3:
            return _linear_ticks(self.low, self.high, wanted)
        return [(value, f"{value:,.6g}") for value in sorted(kept)]


def _linear_ticks(low: float, high: float, wanted: int, *, whole: bool = False) -> list[tuple[float, str]]:
    rough = (high - low) / max(wanted, 1)
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * size for size in (1, 2, 2.5, 5, 10) if unit * size >= rough * 0.999)
    if whole:
        step = max(math.ceil(step), 1)
    digits = max(0, -math.floor(math.log10(step)) + (1 if f"{step / unit:.1f}" == "2.5" else 0))
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [((first + place) * step, f"{(first + place) * step:,.{digits}f}") for place in range(count)]


def cost_scale(values: Sequence[float], start: float, stop: float) -> Scale:
    """An axis for positive costs with some air at both ends; logarithmic where they differ by more than five times."""
    low, high = min(values), max(values)
    if low > 0 and high / low > 5:
        air = (high / low) ** 0.07
        return Scale(low / air, high * air, start, stop, "log")
    air = 0.1 * (high - low) or 0.1 * abs(high) or 1.0
    return Scale(max(low - air, 0.0) if low >= 0 else low - air, high + air, start, stop)


def percent_scale(
    values: Sequence[float], start: float, stop: float, *, weight: float, doubt: Sequence[float] = ()
) -> Scale:
    """An axis for accuracies in percent; logarithmic in the error where the errors differ by more than six times.

    Args:
        values: The accuracies to show.
        start: The pixel of the lower end.
        stop: The pixel of the upper end.
        weight: What one image weighs in percent: the axis never spans less than four of them.
        doubt: Further values to show, which do not decide the kind of axis.
    """
    floor = weight / 2
    bent = (100 + floor - min(values)) / (100 + floor - max(values)) > 6
    low, high = min(*values, *doubt, 100.0), max(*values, *doubt, 0.0)
    if bent:
        return Scale(
            max(low - 0.15 * (100 - low), 0.0), min(high + 0.2 * (100 - high), 100.0), start, stop, "error", floor
        )
    air = max(0.12 * (high - low), 2 * weight, 0.05)
    return Scale(max(low - air, 0.0), min(high + air, 100 + floor), start, stop)
