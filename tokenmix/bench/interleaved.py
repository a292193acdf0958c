"""Time, measured so that a drifting machine hurts all alike: interleaved, in random order, in one process."""

from __future__ import annotations

import gc
import itertools
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

MIN_ROUNDS = 5  # of fewer, the bootstrap interval of a median is far too narrow
"""Rounds that are measured even when the time is up."""


@dataclass(frozen=True)
class Timing:
    """The time of one call in milliseconds.

    Attributes:
        median_ms: Median over the rounds.
        min_ms: Fastest round.
        low_ms: Lower end of the 95 % bootstrap interval of the median.
        high_ms: Upper end.
        rounds: Rounds measured.

    Examples:
        >>> found = interleave({"sort": lambda: sorted(range(999))}, rounds=5)["sort"]
        >>> found.low_ms <= found.median_ms <= found.high_ms
        True
    """

    median_ms: float
    min_ms: float
    low_ms: float
    high_ms: float
    rounds: int


@dataclass(frozen=True)
class OwnClock:
    """A call that measures itself, for example by a GPU's events.

    Attributes:
        run: The call; it waits until it is done.
        seconds: ``(repeats) -> seconds`` of one of so many calls in a row.
    """

    run: Callable[[], object]
    seconds: Callable[[int], float]

    def __call__(self) -> None:
        self.run()


def interleave(
    calls: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 30,
    warmup: int = 20,
    seed: int = 0,
    min_seconds: float = 0.002,
    max_seconds: float | None = None,
    each_round: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time callables side by side.

    Warm-up: all are called in turn until none got more than 5 % faster than its best in two turns running, at least
    three times, at most ``warmup`` times or a quarter of ``max_seconds``. Then in each round every callable is timed
    once, in random order. A callable that takes less than ``min_seconds`` is timed over as many calls in a row as fill
    it, after one call that is not timed and brings its data and threads back. The garbage collector stands still.

    Args:
        calls: Functions without arguments, by name. On a GPU they must wait for the device themselves, or be an
            `OwnClock`.
        rounds: Rounds to measure.
        warmup: Most warm-up calls of each.
        seed: Of the order and of the bootstrap.
        min_seconds: Shortest span to time.
        max_seconds: Stop after this time, but not before `MIN_ROUNDS` rounds.
        each_round: Called before each round, untimed.
        clock: Seconds; only tests need another one.

    Returns:
        The times of one call of each, by name.

    Raises:
        ValueError: No callables, or no rounds.

    Examples:
        >>> found = interleave({"list": lambda: list(range(999)), "sort": lambda: sorted(range(999))}, rounds=5)
        >>> {name: timing.rounds for name, timing in found.items()}
        {'list': 5, 'sort': 5}
    """
    if not calls or rounds < 1:
        raise ValueError("interleave needs at least one callable and one round")
    start = clock()
    order = random.Random(seed)
    names = list(calls)
    samples: dict[str, list[float]] = {name: [] for name in names}
    with _collector_paused():
        best = _warm_up(calls, most=warmup, until=math.inf if max_seconds is None else max_seconds / 4, clock=clock)
        repeats = {name: max(1, math.ceil(min_seconds / max(best[name], 1e-7))) for name in names}
        for done in range(rounds):
            if max_seconds is not None and done >= MIN_ROUNDS and clock() - start >= max_seconds:
                break
            each_round()
            order.shuffle(names)
            for name in names:
                samples[name].append(_time(name, calls[name], repeats[name], clock))
    return {name: _timing(samples[name], seed) for name in calls}


def _warm_up(
    calls: Mapping[str, Callable[[], object]], *, most: int, until: float, clock: Callable[[], float]
) -> dict[str, float]:
    """The best time in seconds of each callable once it is steady, or once calls or time are used up."""
    start = clock()
    best = dict.fromkeys(calls, math.inf)
    steady_turns = 0
    for turn in itertools.count(1):
        improved = False
        for name, call in calls.items():
            seconds = _time(name, call, 1, clock)
            improved |= seconds < 0.95 * best[name]
            best[name] = min(best[name], seconds)
        steady_turns = 0 if improved else steady_turns + 1
        if (turn >= 3 and steady_turns >= 2) or turn >= most or clock() - start >= until:
            return best
    raise AssertionError("unreachable")


def _time(name: str, call: Callable[[], object], repeats: int, clock: Callable[[], float]) -> float:
    """Seconds of one call, averaged over repeats in a row."""
    try:
        if repeats > 1:
            call()
        if isinstance(call, OwnClock):
            return call.seconds(repeats)
        start = clock()
        for _ in range(repeats):
            call()
        return (clock() - start) / repeats
    except Exception as error:
        error.add_note(f"while timing {name!r}")
        raise


def _timing(seconds: Sequence[float], seed: int) -> Timing:
    """Median, bootstrap interval of the median (2,000 resamples, percentiles) and minimum."""
    values = 1000.0 * np.asarray(seconds)
    resamples = np.random.default_rng(seed).choice(values, size=(2000, len(values)))
    low, high = np.percentile(np.median(resamples, axis=1), [2.5, 97.5])
    return Timing(float(np.median(values)), float(values.min()), float(low), float(high), len(values))


@contextmanager
def _collector_paused() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
