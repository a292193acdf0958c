"""The networks of forecasting by name, base lines among them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from tokenmix.backbones.arguments import check_parameters
from tokenmix.tasks.forecasting.baselines import DecomposedLinear, SeasonalNaive
from tokenmix.tasks.forecasting.model import Architecture, ffnet_forecast
from tokenmix.tasks.forecasting.published import LOOK_BACK
from tokenmix_runtime.names import unknown
from tokenmix_runtime.untrusted import LIMITS

NETWORKS = {
    "ffnet_forecast": "FFNet's forecaster, 0.55 M parameters for the 7 variables of ETT (arXiv:2406.02021)",
    "linear_forecast": "a linear map of trend and remainder, DLinear (arXiv:2205.13504): the base line that learns",
    "seasonal_naive": "the last season again and again: the base line with nothing to learn",
}
VARIABLES = 7  # of a network that is built for no data: those of ETT
LENGTHS = {"look_back": LOOK_BACK, "horizon": LOOK_BACK}


def make_network(name: str, facts: Mapping[str, Any], **arguments: Any) -> nn.Module:
    """A network of `NETWORKS` with fresh weights.

    Args:
        name: Which.
        facts: Of the data; ``variables`` says how many there are, ``season`` how long the base line's season is.
        **arguments: Of ``ffnet_forecast`` the attributes of `Architecture`; of the base lines ``look_back``,
            ``horizon``, and ``size`` or ``season``.

    Raises:
        ValueError: There is no such network or argument, or a value is out of range.
    """
    if name not in NETWORKS:
        raise ValueError(unknown("forecasting network", name, NETWORKS))
    given: dict[str, Any] = {**_from_data(name, facts), **arguments}
    known = _arguments(name)
    for argument in arguments:
        if argument not in known:
            raise ValueError(unknown(f"argument of {name}", argument, known))
    for argument, limit in {"num_variables": "width", "look_back": "side", "horizon": "side"}.items():
        value = given.get(argument, 1)
        if not isinstance(value, int) or not 1 <= value <= LIMITS[limit]:
            raise ValueError(f"{argument} of {name} must be a whole number from 1 to {LIMITS[limit]:,}, not {value!r}")
    lists = {"dims": "width", "kernel_sizes": "width", "small_sizes": "width", "patch_size": "width"}
    lists |= {"mlp_ratio": "width", "decomposition": "width", "size": "width"}
    for argument, limit in {"depths": "depth", **lists}.items():
        values = given.get(argument, 1)
        values = values if isinstance(values, list | tuple) else [values]
        values = [value for value in values if isinstance(value, int)]  # others are refused where they are read
        most = sum(values) if argument == "depths" else max(values, default=0)
        if most > LIMITS[limit] or len(values) > LIMITS["entries"]:
            raise ValueError(
                f"{argument} of {name} come to {most:,}, and {LIMITS[limit]:,} is the most that they may be"
            )
    if name == "seasonal_naive":
        return SeasonalNaive(**given)
    build = DecomposedLinear if name == "linear_forecast" else ffnet_forecast
    check_parameters(name, lambda: build(**{**given, "device": "meta"}))
    return build(**given)


def _from_data(name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the data say, and the lengths where nobody says."""
    if name == "ffnet_forecast":
        return {"num_variables": len(facts["variables"]) if "variables" in facts else VARIABLES, **LENGTHS}
    return {**LENGTHS, "season": facts.get("season", 1)} if name == "seasonal_naive" else dict(LENGTHS)


def _arguments(name: str) -> tuple[str, ...]:
    if name == "ffnet_forecast":
        return (*Architecture.__dataclass_fields__, "device", "dtype")
    return tuple(inspect.signature(SeasonalNaive if name == "seasonal_naive" else DecomposedLinear).parameters)
