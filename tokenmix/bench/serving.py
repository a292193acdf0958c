"""Throughput under a server's load: requests at a rate, answered in batches, judged by their latencies.

The load is open: requests come by a schedule that was drawn beforehand, whether those before are answered or not, and a
latency counts from the time that the schedule says. So a server that falls behind shows it.
"""

from __future__ import annotations

import bisect
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tokenmix.bench.runtimes import throughput

STEPS = 6
"""Rates that a search tries: it ends within a 64th of the most that is possible."""
SHARES = (0.25, 0.5, 0.75, 0.9)
"""Of the capacity: the rates that are tried where none is given."""
FEWEST = 20
"""Requests of a load at least."""


@dataclass(frozen=True)
class Served:
    """What came of a load.

    Attributes:
        requests: How many were answered.
        achieved: Answers per second, from the first request's time until the last answer.
        p50_ms: The latency that half of the requests did not exceed, from when a request came to its answer.
        p95_ms: That which 95 % did not exceed.
        p99_ms: That which 99 % did not exceed.
        mean_batch: Requests that were answered together.
        given_up: Whether it ended early, since its 99th percentile could no longer be within the limit.
    """

    requests: int
    achieved: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    mean_batch: float
    given_up: bool = False


def schedule(rate: float, seconds: float, seed: int = 0) -> list[float]:
    """When requests come, in seconds: at random, those of a Poisson process of which so many come in that time.

    Their number over the last one's time is ``rate`` exactly, so that answers per second can be compared with it. The
    gaps of one seed are the same for all rates but for their scale.
    """
    count = max(FEWEST, round(rate * seconds))
    times = np.cumsum(np.random.default_rng(seed).exponential(size=count))
    return (times * (count / rate / times[-1])).tolist()


def serve(
    arrivals: Sequence[float],
    answer: Callable[[int], object],
    *,
    window_s: float,
    max_batch: int,
    limit_s: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
) -> Served:
    """Answer requests as one worker does that waits for a batch.

    The worker takes the oldest request that waits, then those that come within the window after it came, until the
    batch is full; then it answers them together. While it is at work others wait.

    Args:
        arrivals: See `schedule`.
        answer: ``(batch) -> anything``; returns when so many requests are answered.
        window_s: How long the oldest request waits for others.
        max_batch: Requests that are answered together at most.
        limit_s: Give up when more than one in a hundred took longer.
        clock: Seconds; only tests need another one.
        sleep: Waits so many seconds; only tests need another one.

    Raises:
        ValueError: There is no request, or no batch.
    """
    if not arrivals or max_batch < 1 or window_s < 0:
        raise ValueError("a load needs requests, a batch of 1 or more, and a window that is not negative")
    begin, latencies, batches, late = clock(), list[float](), 0, 0
    while len(latencies) < len(arrivals):
        first = len(latencies)
        full = first + max_batch - 1
        leaves = arrivals[first] + window_s
        if full < len(arrivals):
            leaves = min(leaves, arrivals[full])
        wait = leaves - (clock() - begin)
        if wait > 0:
            sleep(wait)
        came = bisect.bisect_right(arrivals, max(clock() - begin, leaves))
        batch = min(came - first, max_batch)
        answer(batch)
        now = clock() - begin
        latencies += [now - arrivals[number] for number in range(first, first + batch)]
        batches += 1
        if limit_s is not None:
            late += sum(latency > limit_s for latency in latencies[first:])
            if late > 0.01 * len(arrivals):
                break
    p50, p95, p99 = 1000.0 * np.percentile(latencies, [50, 95, 99], method="inverted_cdf")
    count, span = len(latencies), clock() - begin - arrivals[0]
    given_up = count < len(arrivals)
    return Served(count, count / span, float(p50), float(p95), float(p99), count / batches, given_up)


def highest_rate(try_rate: Callable[[float], bool], most: float) -> float | None:
    """The highest rate that passes, by halving the range; None if none of those that were tried does.

    Args:
        try_rate: Whether a rate passes; what passes at a rate passes at lower ones.
        most: The rate that nobody need try beyond.
    """
    low, high, found = 0.0, most, None
    for _ in range(STEPS):
        rate = (low + high) / 2
        if try_rate(rate):
            low = found = rate
        else:
            high = rate
    return found


def passes(served: Served, rate: float, limit_ms: float) -> bool:
    """Whether a load kept to the limit and did not fall behind by more than a twentieth of its rate."""
    behind = not math.isfinite(served.achieved) or served.achieved < 0.95 * rate
    return not served.given_up and served.p99_ms <= limit_ms and not behind


def load_rows(
    calls: Mapping[int, Callable[[], object]],
    rates: Sequence[float],
    limit_ms: float | None,
    window_ms: float,
    seconds: float,
    seed: int = 0,
    each_load: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
) -> list[dict[str, Any]]:
    """What came of each load on one model in one runtime, by rising rate; plain values for JSON.

    Args:
        calls: What answers so many requests, for each size of a batch.
        rates: To try; none: `SHARES` of the capacity.
        limit_ms: Search the highest rate that keeps to it, beside the ``rates``.
        window_ms: See `serve`.
        seconds: Of a load.
        seed: Of the requests' times.
        each_load: Called before each load.
        clock: Seconds; only tests need another one.
        sleep: Waits so many seconds; only tests need another one.

    Returns:
        Dicts with ``rate``, the fields of `Served`, ``capacity``: answers per second when nobody waits for requests,
        ``within``: whether it kept to the limit (None: there is none), and ``highest``: whether it is what was sought.
    """
    for call in calls.values():
        call()
    capacity = max(throughput(call, size, clock) for size, call in calls.items())
    rows: dict[float, dict[str, Any]] = {}

    def load(rate: float) -> bool:
        each_load()
        options: dict[str, Any] = {"window_s": window_ms / 1000.0, "max_batch": max(calls), "clock": clock}
        limit_s = None if limit_ms is None else limit_ms / 1000.0
        served = serve(
            schedule(rate, seconds, seed), lambda batch: calls[batch](), limit_s=limit_s, sleep=sleep, **options
        )
        within = None if limit_ms is None else passes(served, rate, limit_ms)
        rows[rate] = {"rate": rate, **asdict(served), "capacity": capacity, "within": within, "highest": False}
        return bool(within)

    for rate in rates or (() if limit_ms is not None else [share * capacity for share in SHARES]):
        load(rate)
    if limit_ms is not None:
        found = highest_rate(load, capacity)
        if found is not None:
            rows[found]["highest"] = True
    return [rows[rate] for rate in sorted(rows)]
