"""What a benchmark concludes from its times: places, drift, growth, the best batch; with clocks of our own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenmix.bench.batch import best_batch
from tokenmix.bench.drift import Pacer, drift
from tokenmix.bench.growth import fit_growth
from tokenmix.bench.interleaved import OwnClock, Timing, interleave
from tokenmix.bench.ranking import rank
from tokenmix.bench.runtimes import throughput, waiting


def timing(low: float, high: float) -> Timing:
    return Timing((low + high) / 2, low, low, high, 10)


def test_only_gaps_between_intervals_are_ranked() -> None:
    spans = {"c": (4.0, 6.0), "a": (1.0, 2.0), "b": (1.5, 3.0), "bridge": (2.5, 3.5), "d": (7.0, 7.0)}
    ranks = rank({name: timing(*span) for name, span in spans.items()})
    assert {name: one.place for name, one in ranks.items()} == {"a": 1, "b": 1, "bridge": 1, "c": 4, "d": 5}
    assert set(ranks["a"].tied) == {"b", "bridge"}
    assert ranks["c"].tied == ()


def test_few_rounds_are_not_ranked() -> None:
    few = Timing(1.0, 1.0, 1.0, 1.0, 4)
    assert {one.place for one in rank({"a": few, "b": timing(5.0, 6.0)}).values()} == {1}


def test_ranking_by_image_where_batches_differ() -> None:
    ranks = rank({"small": timing(2.0, 2.2), "large": timing(8.0, 8.4)}, {"small": 1.0, "large": 8.0})
    assert (ranks["large"].place, ranks["small"].place) == (1, 2)


@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0, 3)), min_size=1, max_size=8))
def test_overlapping_intervals_always_share_a_place(spans) -> None:
    timings = {str(i): timing(low, low + width) for i, (low, width) in enumerate(spans)}
    ranks = rank(timings)
    for a, one in timings.items():
        for b, other in timings.items():
            if one.low_ms <= other.high_ms and other.low_ms <= one.high_ms:
                assert ranks[a].place == ranks[b].place
            elif one.high_ms < other.low_ms:
                assert ranks[a].place <= ranks[b].place


def test_drift_compares_quarters_and_forgets_single_disturbances() -> None:
    assert drift([1.0, 1.0, 9.0]) == 0.0
    assert drift([1.0] * 40) == 0.0
    steady = [1.0] * 40
    steady[5] = 50.0
    assert drift(steady) == 0.0
    assert drift([1.0] * 10 + [1.02] * 10 + [1.1] * 20) == pytest.approx(0.1)


def test_the_pacer_keeps_the_fastest_product() -> None:
    times = (10 * number + late for number in range(10) for late in (0, 2 if number == 1 else 5))
    pacer = Pacer(clock=lambda: next(times))
    pacer.tick()
    assert pacer.seconds == [2]
    assert list(times) == []


@pytest.mark.parametrize("seed", range(4))
def test_growth_is_the_regression_of_logarithms(seed) -> None:
    generator = np.random.default_rng(seed)
    count = int(generator.integers(3, 12))
    tokens = [64.0 * 4**i for i in range(count)]
    times = [n**1.3 * generator.uniform(0.8, 1.25) for n in tokens]
    fit = fit_growth(tokens, times)
    wanted = scipy.stats.linregress(np.log(tokens), np.log(times))
    half = scipy.stats.t.ppf(0.975, count - 2) * wanted.stderr
    assert fit.exponent == pytest.approx(wanted.slope, abs=1e-12)
    assert fit.high - fit.exponent == pytest.approx(half, rel=1e-3)
    assert fit.exponent - fit.low == pytest.approx(half, rel=1e-3)


def test_growth_of_exact_powers_and_of_too_few_points() -> None:
    assert fit_growth([1, 2, 4, 8], [3, 12, 48, 192]).exponent == pytest.approx(2.0)
    assert fit_growth([1, 10], [1, 10]).low == -math.inf
    with pytest.raises(ValueError, match=r"two sizes or more, not at \[64\]"):
        fit_growth([64, 64], [1, 1])
    with pytest.raises(ValueError, match="positive"):
        fit_growth([1, 2], [0, 1])


def search(rates: dict[int, float], *, taken: float = 0.0, free: float = 1e12, largest: int = 64):
    return best_batch(lambda size: rates[size], largest=largest, memory=lambda call: (call(), taken), free=lambda: free)


def test_the_batch_doubles_until_nothing_is_gained_twice() -> None:
    found = search({1: 10, 2: 18, 4: 18.1, 8: 30, 16: 30.5, 32: 29, 64: 99})
    assert (found.size, found.ended, list(found.tried)) == (8, "no faster", [1, 2, 4, 8, 16, 32])
    assert search({1: 10, 2: 20, 4: 40}, largest=4).ended == "largest"


def test_the_batch_stops_at_the_memory() -> None:
    found = search({1: 10, 2: 20}, taken=30.0, free=100.0)
    assert (found.size, found.ended) == (1, "memory")  # twice 30 is more than half of what is free

    def rate(size: int) -> float:
        if size > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate a lot")
        return 10.0 * size

    found = best_batch(rate, memory=lambda call: (call(), 0.0), free=lambda: 1e12)
    assert (found.size, found.ended) == (2, "memory")


def test_an_error_that_is_none_of_memory_is_not_swallowed() -> None:
    def rate(size: int) -> float:
        raise RuntimeError("no kernel for this")

    with pytest.raises(RuntimeError, match="no kernel"):
        best_batch(rate)


def test_a_call_with_a_clock_of_its_own_is_believed() -> None:
    counted: list[int] = []

    def seconds(repeats: int) -> float:
        counted.append(repeats)
        return 0.25

    call = OwnClock(lambda: None, seconds)
    rounds: list[int] = []
    found = interleave({"gpu": call}, rounds=4, each_round=lambda: rounds.append(1), clock=lambda: 0.0)
    assert found["gpu"].median_ms == 250.0
    assert len(rounds) == 4
    assert set(counted) == {1}
    assert throughput(call, 8) == 32.0


def test_throughput_is_that_of_the_fastest_call() -> None:
    times = iter([0.0, 2.0, 2.0, 3.0, 3.0, 8.0])
    assert throughput(lambda: None, 4, clock=lambda: next(times)) == 4.0


def test_calls_on_a_gpu_are_timed_by_its_events(monkeypatch) -> None:
    seen: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            seen.append("event")

        def elapsed_time(self, last: Event) -> float:
            return 30.0  # milliseconds

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: seen.append("wait"))
    call = waiting(lambda: seen.append("call"), torch.device("cuda"))
    assert isinstance(call, OwnClock)
    assert call.seconds(3) == pytest.approx(0.01)
    assert seen == ["event", "call", "call", "call", "event", "wait"]
    seen.clear()
    call()
    assert seen == ["call", "wait"]
