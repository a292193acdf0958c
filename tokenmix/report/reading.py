"""A comparison's results made safe to draw: any value may be missing, none is NaN, intervals are added."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SCHEMA = "tokenmix.compare/1"
_Z = 1.959964  # two-sided 95 % of the normal distribution


@dataclass(frozen=True)
class Row:
    """One mixer: its place in the results (which decides its colour), its entry, and the accuracy with its doubts.

    ``top1`` and both ends of ``interval`` are percent; ``spread`` is the sample standard deviation over seeds.
    """

    index: int
    name: str
    entry: Mapping[str, Any]
    top1: float | None
    spread: float | None
    interval: tuple[float, float] | None

    def latency(self, runtime: str, batch: str) -> float | None:
        """Median milliseconds per batch, or None where it was not measured."""
        return number(dig(self.entry, "latency_ms", runtime, batch))

    def latency_range(self, runtime: str, batch: str) -> tuple[float, float] | None:
        """The lower and upper end of the measured milliseconds, or None."""
        low, high = pair(dig(self.entry, "latency_range_ms", runtime, batch))
        return None if low is None or high is None else (low, high)


@dataclass(frozen=True)
class Comparison:
    """The results of ``compare``, read."""

    raw: Mapping[str, Any]
    rows: list[Row]
    runtimes: list[str]
    batches: list[str]
    classes: list[str]
    tested: int | None

    def views(self) -> list[tuple[str, str]]:
        """Every (runtime, batch) at which at least one mixer has both a latency and an accuracy."""
        return [(r, b) for r in self.runtimes for b in self.batches if self.measured(r, b)]

    def measured(self, runtime: str, batch: str) -> list[Row]:
        """The mixers with both a latency there and an accuracy."""
        return [row for row in self.rows if row.top1 is not None and row.latency(runtime, batch) is not None]

    def class_name(self, index: Any) -> str:
        """The name of a class, or its number where it has none."""
        known = isinstance(index, int) and 0 <= index < len(self.classes)
        return self.classes[index] if known else str(index)


def read(results: Mapping[str, Any]) -> Comparison:
    """Read the results of ``compare``.

    Raises:
        ValueError: The results have another schema, or no mixer.
    """
    schema = results.get("schema", SCHEMA)
    if schema != SCHEMA:
        raise ValueError(f"the results have the schema {schema!r}, this version reads {SCHEMA!r}")
    entries = mapping(results.get("mixers"))
    if not entries:
        raise ValueError("the results hold no mixer: nothing to report")
    tested = number(dig(results, "data", "test"))
    count = int(tested) if tested and tested >= 1 else None
    rows = [_row(index, key, mapping(entry), count) for index, (key, entry) in enumerate(entries.items())]
    runtimes = [str(name) for name in sequence(results.get("runtimes"))]
    batches = {str(size) for size in sequence(results.get("batch_sizes"))}
    for row in rows:
        for runtime, times in mapping(row.entry.get("latency_ms")).items():
            if runtime not in runtimes:
                runtimes.append(runtime)
            batches.update(str(size) for size in mapping(times))
    return Comparison(
        raw=results,
        rows=rows,
        runtimes=runtimes,
        batches=sorted(batches, key=lambda size: (int(size) if size.isdigit() else math.inf, size)),
        classes=[str(name) for name in sequence(dig(results, "data", "classes"))],
        tested=count,
    )


def _row(index: int, key: str, entry: Mapping[str, Any], tested: int | None) -> Row:
    top1 = number(entry.get("test_top1"))
    runs = [value for value in map(number, sequence(entry.get("test_top1_per_seed"))) if value is not None]
    spread = number(entry.get("test_top1_spread"))
    if len(runs) > 1:
        mean = sum(runs) / len(runs)
        spread = math.sqrt(sum((value - mean) ** 2 for value in runs) / (len(runs) - 1))
    interval = wilson(top1, tested) if top1 is not None and tested else None
    return Row(index, str(entry.get("mixer") or key), entry, top1, spread, interval)


def number(value: Any) -> float | None:
    """``value`` if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def mapping(value: Any) -> Mapping[str, Any]:
    """``value`` if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def sequence(value: Any) -> Sequence[Any]:
    """``value`` if it is a list or tuple, else an empty one."""
    return value if isinstance(value, (list, tuple)) else ()


def pair(value: Any) -> tuple[float | None, float | None]:
    """The two numbers of ``value``, each None where it is missing."""
    both = sequence(value)
    return (number(both[0]), number(both[1])) if len(both) == 2 else (None, None)


def dig(value: Any, *keys: str) -> Any:
    """``value[key0][key1]...``, or None where a key is missing."""
    for key in keys:
        value = mapping(value).get(key)
    return value


def wilson(percent: float, count: int) -> tuple[float, float]:
    """The 95 % interval, in percent, of a share of ``percent`` seen in ``count`` images.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    share = min(max(percent / 100, 0.0), 1.0)
    scale = 1 + _Z**2 / count
    centre = (share + _Z**2 / (2 * count)) / scale
    half = _Z / scale * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    return 100 * max(centre - half, 0.0), 100 * min(centre + half, 1.0)


def told_apart(better: Row, worse: Row) -> bool:
    """Whether the test images and seeds show that one mixer is more accurate than the other.

    The difference's 95 % interval must exclude zero (R. G. Newcombe, "Interval estimation for the difference
    between independent proportions", 1998, method 10; both mixers see the same images, so that this is careful
    rather than sharp), and the difference must exceed the spread over seeds.
    """
    if better.top1 is None or worse.top1 is None:
        return False
    difference = better.top1 - worse.top1
    if better.interval is None or worse.interval is None:
        doubt = 0.0
    else:
        doubt = math.hypot(better.top1 - better.interval[0], worse.interval[1] - worse.top1)
    return difference > doubt and difference > math.hypot(better.spread or 0.0, worse.spread or 0.0)
