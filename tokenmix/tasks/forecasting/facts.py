"""What a forecaster's file says of the series that it has learnt from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tokenmix_runtime.untrusted import shown


def check_facts(facts: Mapping[str, Any]) -> None:
    """Raise unless what a file of weights says of its series is what a forecaster works with.

    Args:
        facts: ``variables``, ``season``, ``learnt``, and ``mean`` and ``std`` of each variable; all may lack.

    Raises:
        ValueError: A value is of another kind or size.
    """
    variables, season, learnt = facts.get("variables", []), facts.get("season", 1), facts.get("learnt")
    if not isinstance(variables, list) or not all(isinstance(name, str) for name in variables):
        raise ValueError(f"its variables are {shown(variables)}, and no list of names")
    if type(season) is not int or season < 1:
        raise ValueError(f"its season is {shown(season)}, and no number of steps")
    if learnt is not None and not (
        isinstance(learnt, list) and [type(one) for one in learnt] in ([int, str], [int, type(None)]) and learnt[0] > 0
    ):
        raise ValueError(f"what it has learnt from is {shown(learnt)}, and not a number of rows and a time")
    if facts.get("mean") is None and facts.get("std") is None:
        return
    numbers = [facts.get("mean"), facts.get("std")]
    if not all(isinstance(one, list) and all(isinstance(value, int | float) for value in one) for one in numbers):
        raise ValueError("its mean and std are no lists of numbers")
    mean, std = (np.array(one, float) for one in numbers)
    if mean.shape != std.shape or (variables and len(mean) != len(variables)):
        raise ValueError(f"it has {len(mean)} means and {len(std)} deviations for {len(variables)} variables")
    if not np.isfinite([mean, std]).all() or (std <= 0).any():
        raise ValueError("its mean and std are not finite, or a std is not above 0")
