"""How time grows with the number of tokens: a power law fitted to measured times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Student's t, 97.5 %, for 1 to 10 degrees of freedom; more are treated as 10, which widens the interval a little.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


@dataclass(frozen=True)
class Growth:
    """time = factor * tokens ** exponent, fitted by least squares of the logarithms.

    Attributes:
        exponent: 1 where twice the tokens take twice the time, 2 where they take four times.
        low: Lower end of the exponent's 95 % interval; -infinity with two points, which fit any line.
        high: Upper end.
        points: Measured sizes.
    """

    exponent: float
    low: float
    high: float
    points: int


def fit_growth(tokens: Sequence[float], times: Sequence[float]) -> Growth:
    """The growth exponent of measured times.

    Args:
        tokens: At least two different positive numbers.
        times: Positive, in any unit, one for each.

    Raises:
        ValueError: There are fewer than two sizes, or a number is not positive.
    """
    if len(tokens) != len(times) or len(set(tokens)) < 2:
        raise ValueError(f"growth needs times at two sizes or more, not at {sorted(set(tokens))}")
    if min(*tokens, *times) <= 0:
        raise ValueError("growth needs positive sizes and times")
    x, y = np.log(tokens), np.log(times)
    spread = float(((x - x.mean()) ** 2).sum())
    exponent = float(((x - x.mean()) * (y - y.mean())).sum() / spread)
    rest = y - y.mean() - exponent * (x - x.mean())
    freedom = len(x) - 2
    if freedom == 0:
        return Growth(exponent, -math.inf, math.inf, len(x))
    half = _T[min(freedom, len(_T)) - 1] * math.sqrt(float((rest**2).sum()) / freedom / spread)
    return Growth(exponent, exponent - half, exponent + half, len(x))
