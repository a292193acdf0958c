"""How much a training and its model may cost: minutes here, milliseconds there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tokenmix_runtime.limits import check_number

USUAL_S = 1800.0  # of a training that nobody gave a limit
_UNITS_S = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class Budget:
    """What may be spent.

    Attributes:
        seconds: On the training; None: `USUAL_S`, which is told.
        latency_ms: By the model for one sample, in ONNX Runtime on this machine; None: any.

    Examples:
        >>> from tokenmix.planning import Budget
        >>> print(Budget(seconds=600, latency_ms=2))
        10 min 2ms
    """

    seconds: float | None = None
    latency_ms: float | None = None

    @property
    def limit_s(self) -> float:
        """Seconds for the training."""
        return USUAL_S if self.seconds is None else self.seconds

    def __str__(self) -> str:
        """In words that differ where the budgets do: a plan is known by them."""
        time = [] if self.seconds is None else [duration(self.seconds)]
        if time and read_budget(time).seconds != self.seconds:  # it was rounded
            time = [f"{self.seconds:.15g} s"]
        return " ".join([*time, *([] if self.latency_ms is None else [f"{self.latency_ms:g}ms"])])


def read_budget(words: Sequence[str]) -> Budget:
    """What ``["10min"]``, ``["2ms"]`` or both allow: a time of training, a latency.

    Args:
        words: A number and ``s``, ``sec``, ``min``, ``m``, ``h`` or ``d`` for the training, ``ms`` for the latency.

    Raises:
        ValueError: A word is neither, or there are two of a kind.

    Examples:
        >>> from tokenmix.planning import read_budget
        >>> read_budget(["10min", "2ms"])
        Budget(seconds=600.0, latency_ms=2.0)
    """
    found: dict[str, float] = {}
    for word in words:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|sec|min|m|h|d)", word.strip().lower())
        if not match:
            raise ValueError(f"--budget {word}: give a time for the training, such as 10min or 2h, or a latency, 2ms")
        value, unit = float(match[1]), match[2]
        name = "latency_ms" if unit == "ms" else "seconds"
        if name in found:
            raise ValueError(f"--budget {' '.join(words)}: two of one kind; give a time, a latency, or one of each")
        found[name] = value if unit == "ms" else value * _UNITS_S[unit]
        check_number("seconds", found[name] / (1000.0 if unit == "ms" else 1.0), f"--budget {word}")
    return Budget(**found)


def duration(seconds: float) -> str:
    """A time in one of its units, for people: ``"40 s"``, ``"12 min"``, ``"2.5 h"``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
