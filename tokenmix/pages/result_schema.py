"""A comparison's results made safe to draw: any value may be missing, none is NaN, intervals are added.

Wilson's interval is written out here: SciPy, which has it too, is no dependency of this package.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tokenmix.tasks import DEFAULT_TASK, Task, find_task

SCHEMA = "tokenmix.compare/1"
_Z = 1.959964  # two-sided 95 % of the normal distribution


@dataclass(frozen=True)
class Row:
    """One mixer: its place in the results (which decides its colour), its entry, and its score with its doubts.

    ``score`` is the headline's value on the test samples, ``runs`` has that of each seed; ``spread`` is their sample
    standard deviation, ``interval`` has the ends of the 95 % interval for the choice of the test samples; all in the
    headline's unit.
    """

    index: int
    name: str
    entry: Mapping[str, Any]
    score: float | None
    spread: float | None
    interval: tuple[float, float] | None
    runs: Sequence[float] = ()

    def latency(self, runtime: str, batch: str) -> float | None:
        """Median milliseconds per batch, or None where it was not measured."""
        return number(dig(self.entry, "latency_ms", runtime, batch))

    def latency_range(self, runtime: str, batch: str) -> tuple[float, float] | None:
        """The lower and upper end of the measured milliseconds, or None."""
        return pair(dig(self.entry, "latency_range_ms", runtime, batch))


@dataclass(frozen=True)
class Comparison:
    """The results of ``compare``, read.

    Attributes:
        raw: As they are in the file.
        task: What was learnt.
        noun: What its samples are called, in the plural.
        headline: The metric's number that the mixers are ranked by, as the file calls it.
        unit: Of the headline; empty where it has none.
        lower_is_better: Of the headline.
        rows: The mixers in the order of the file.
        runtimes: Where latencies were measured.
        batches: At which sizes of a batch, ascending.
        tested: How many test samples there are.
        statistics: What `tokenmix.comparison.statistics.decide` said of the mixers; empty in older results.
    """

    raw: Mapping[str, Any]
    task: Task
    noun: str
    headline: str
    unit: str
    lower_is_better: bool
    rows: list[Row]
    runtimes: list[str]
    batches: list[str]
    tested: int | None
    statistics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """How people call the headline."""
        return self.task.label(self.headline)

    @property
    def titled(self) -> str:
        """The headline with its unit, for the head of a column or an axis."""
        return f"test {self.label}, {self.unit}" if self.unit else f"test {self.label}"

    @property
    def weight(self) -> float | None:
        """What one test sample weighs in percent, for an axis of shares; None where the headline is no share."""
        if self.unit != "%" or self.lower_is_better:
            return None
        return 100 / self.tested if self.tested and self.task.headline_is_share else 0.05

    @property
    def digits(self) -> int:
        """Digits after the point that the headline deserves: of a share by the number of test samples."""
        if self.task.headline_is_share:
            return 2 if (self.tested or 0) >= 2000 else 1
        sizes = sorted(abs(row.score) for row in self.rows if row.score)
        return min(max(3 - math.floor(math.log10(sizes[len(sizes) // 2])), 1), 6) if sizes else 1

    def written(self, value: float) -> str:
        """A value of the headline, without its unit."""
        return f"{value:.{self.digits}f}"

    def said(self, row: Row) -> str:
        """The score in prose, with its spread over seeds where there is one, and its unit."""
        spread = f" ± {self.written(row.spread)}" if row.spread is not None else ""
        return f"{self.written(row.score or 0.0)}{spread} {self.unit}".rstrip()

    def ranking(self, row: Row) -> float:
        """A number that is the smaller, the better the score is; infinite where there is none."""
        if row.score is None:
            return math.inf
        return row.score if self.lower_is_better else -row.score

    @cached_property
    def corrected(self) -> Mapping[frozenset[str], float]:
        """Of every two mixers, by their names, the chance that so large a difference is none, corrected for all."""
        found = {}
        for pair in map(mapping, sequence(self.statistics.get("pairs"))):
            chance = number(pair.get("p_corrected"))
            if chance is not None:
                found[frozenset(map(str, sequence(pair.get("mixers"))))] = chance
        return found

    @property
    def timed_noun(self) -> str:
        """What is answered at a time."""
        return self.task.timed_noun or self.noun

    @property
    def level(self) -> float:
        """The chance of a false difference that was allowed."""
        return number(self.statistics.get("level")) or 0.01

    def apart(self, one: Row, other: Row) -> bool:
        """Whether the test tells two mixers apart; of results from before there were statistics by `told_apart`."""
        if "statistics" in self.raw:
            return self.corrected.get(frozenset((one.name, other.name)), 1.0) < self.level
        return told_apart(one, other)

    def views(self) -> list[tuple[str, str]]:
        """Every (runtime, batch) at which at least one mixer has both a latency and a score."""
        return [(r, b) for r in self.runtimes for b in self.batches if self.measured(r, b)]

    def measured(self, runtime: str, batch: str) -> list[Row]:
        """The mixers with both a latency there and a score."""
        return [row for row in self.rows if row.score is not None and row.latency(runtime, batch) is not None]


def read(results: Mapping[str, Any]) -> Comparison:
    """Read the results of ``compare``, also those of version 0.1, which told neither task nor headline.

    Raises:
        ValueError: The results have another schema, an unknown task or no mixer.
    """
    schema = results.get("schema", SCHEMA)
    if schema != SCHEMA:
        raise ValueError(f"the results have the schema {schema!r}, this version reads {SCHEMA!r}")
    entries = mapping(results.get("mixers"))
    if not entries:
        raise ValueError("the results hold no mixer: nothing to report")
    task = find_task(str(results.get("task") or DEFAULT_TASK))
    headline = str(results.get("headline") or task.headline)
    unit, lower = results.get("unit"), results.get("lower_is_better")
    tested = number(dig(results, "data", "test"))
    count = int(tested) if tested and tested >= 1 else None
    wilsons = count if task.headline_is_share else None
    rows = [_row(index, key, mapping(entry), headline, wilsons) for index, (key, entry) in enumerate(entries.items())]
    runtimes = [str(name) for name in sequence(results.get("runtimes"))]
    batches = {str(size) for size in sequence(results.get("batch_sizes"))}
    for row in rows:
        for runtime, times in mapping(row.entry.get("latency_ms")).items():
            if runtime not in runtimes:
                runtimes.append(runtime)
            batches.update(str(size) for size in mapping(times))
    return Comparison(
        raw=results,
        task=task,
        noun=str(results.get("noun") or task.noun),
        headline=headline,
        unit=unit if isinstance(unit, str) else task.unit(headline),
        lower_is_better=lower if isinstance(lower, bool) else task.lower_is_better,
        rows=rows,
        runtimes=runtimes,
        batches=sorted(batches, key=lambda size: (int(size) if size.isdigit() else math.inf, size)),
        tested=count,
        statistics=mapping(results.get("statistics")),
    )


def _row(index: int, key: str, entry: Mapping[str, Any], headline: str, tested: int | None) -> Row:
    score = number(entry.get(f"test_{headline}"))
    runs = [value for value in map(number, sequence(entry.get(f"test_{headline}_per_seed"))) if value is not None]
    spread = number(entry.get(f"test_{headline}_spread"))
    if len(runs) > 1:
        mean = sum(runs) / len(runs)
        spread = math.sqrt(sum((value - mean) ** 2 for value in runs) / (len(runs) - 1))
    interval = pair(entry.get(f"test_{headline}_interval"))
    if interval is None and score is not None and tested:
        interval = wilson(score, tested)
    return Row(index, str(entry.get("mixer") or key), entry, score, spread, interval, runs)


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


def pair(value: Any) -> tuple[float, float] | None:
    """The two numbers of ``value``, or None where it holds anything else."""
    numbers = [one for one in map(number, sequence(value)) if one is not None]
    return (numbers[0], numbers[1]) if len(numbers) == len(sequence(value)) == 2 else None


def dig(value: Any, *keys: str) -> Any:
    """``value[key0][key1]...``, or None where a key is missing."""
    for key in keys:
        value = mapping(value).get(key)
    return value


def wilson(percent: float, count: int) -> tuple[float, float]:
    """The 95 % interval, in percent, of a share of ``percent`` seen in ``count`` samples.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    share = min(max(percent / 100, 0.0), 1.0)
    scale = 1 + _Z**2 / count
    centre = (share + _Z**2 / (2 * count)) / scale
    half = _Z / scale * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    return 100 * max(centre - half, 0.0), 100 * min(centre + half, 1.0)


def told_apart(one: Row, other: Row) -> bool:
    """Whether the test samples and seeds show that the scores of two mixers differ.

    The difference's 95 % interval must exclude zero (of shares: R. G. Newcombe, "Interval estimation for the difference
    between independent proportions", 1998, method 10; of any values with intervals: G. Y. Zou and A. Donner,
    "Construction of confidence limits about effect measures", 2008; all mixers see the same samples, so that this is
    careful rather than sharp), and the difference must exceed the spread over seeds.
    """
    if one.score is None or other.score is None:
        return False
    high, low = (one, other) if one.score >= other.score else (other, one)
    difference = abs(one.score - other.score)
    doubt = 0.0
    if high.interval and low.interval:
        doubt = math.hypot((high.score or 0.0) - high.interval[0], low.interval[1] - (low.score or 0.0))
    return difference > doubt and difference > math.hypot(one.spread or 0.0, other.spread or 0.0)
