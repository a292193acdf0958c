"""Ranges of numbers that people give: wide enough for any machine, narrow enough that a slip is told at once."""

from __future__ import annotations

import math
from collections.abc import Mapping

DAY_S = 86_400
LIMITS: Mapping[str, tuple[float, float]] = {
    "at_once": (1, 100_000),
    "batch_size": (1, 65_536),
    "channels": (1, 65_536),
    "checkpoint_seconds": (0, 365 * DAY_S),
    "cpus": (1, 4_096),
    "gpus": (0, 4_096),
    "horizon": (1, 8_192),
    "image_size": (1, 8_192),
    "keep": (1, 10_000),
    "measure_seconds": (1e-3, 365 * DAY_S),
    "memory_mb": (16, 10_000_000),
    "port": (0, 65_535),
    "rate": (1e-3, 1_000_000),
    "rounds": (1, 1_000_000),
    "seconds": (1e-3, 365 * DAY_S),
    "seed": (0, 2**63 - 1),
    "seeds": (1, 1_000),
    "shard_size": (1, 10_000_000),
    "threads": (1, 4_096),
    "timeout": (1e-3, 365 * DAY_S),
    "tolerance": (0, 1_000),
    "top": (1, 1_000_000),
    "workers": (0, 1_024),
}
"""The least and the largest value by the name of an argument."""


def check_number(name: str, value: float, label: str = "") -> None:
    """Refuse a number out of its range.

    Args:
        name: In `LIMITS`.
        value: What was given.
        label: How the user calls it; by default ``name``.

    Raises:
        ValueError: The value is out of range, or no finite number.
    """
    least, most = LIMITS[name]
    if not (math.isfinite(value) and least <= value <= most):
        raise ValueError(f"{label or name} must be from {_told(least)} to {_told(most)}, not {value!r}")


def _told(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
