"""A server's load: with a clock of our own every latency is known."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from scipy import stats

from tests.bench_cases import made_up, tiny_checkpoint
from tokenmix.bench.serving import Served, highest_rate, load_rows, passes, schedule, serve
from tokenmix.cli import main
from tokenmix.pages.bench import bench_page, caveats


class Clock:
    """Time that passes only while somebody sleeps or works."""

    def __init__(self) -> None:
        self.now = 100.0
        self.batches: list[tuple[float, int]] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def worker(self, fixed: float, each: float = 0.0):
        def answer(batch: int) -> None:
            self.batches.append((round(self.now - 100.0, 6), batch))
            self.now += fixed + each * batch

        return answer


def load(arrivals, *, fixed, each=0.0, window=0.0, most=1, limit=None) -> tuple[Served, list[tuple[float, int]]]:
    clock = Clock()
    options = {"window_s": window, "max_batch": most, "limit_s": limit, "clock": clock, "sleep": clock.sleep}
    return serve(arrivals, clock.worker(fixed, each), **options), clock.batches


def test_one_at_a_time_waits_for_those_before() -> None:
    found, batches = load([0.0, 1.0, 1.5, 5.0], fixed=1.0)
    assert batches == [(0.0, 1), (1.0, 1), (2.0, 1), (5.0, 1)]
    assert (found.p50_ms, found.p99_ms, found.mean_batch) == pytest.approx((1000.0, 1500.0, 1.0))
    assert found.achieved == pytest.approx(4 / 6.0)


def test_a_window_gathers_a_batch_and_a_full_one_leaves_at_once() -> None:
    arrivals = [0.0, 0.1, 0.2, 2.0, 2.05, 9.0]
    found, batches = load(arrivals, fixed=0.5, window=0.3, most=8)
    assert batches == [(0.3, 3), (2.3, 2), (9.3, 1)]
    assert found.p99_ms == pytest.approx(800.0)
    assert found.mean_batch == pytest.approx(2.0)
    _, batches = load(arrivals, fixed=0.5, window=0.3, most=2)
    assert batches == [(0.1, 2), (0.6, 1), (2.05, 2), (9.3, 1)]  # the third came while the first two were answered


def test_what_waited_while_the_worker_was_busy_leaves_together() -> None:
    _, batches = load([0.0, 0.1, 0.2, 0.3, 0.4], fixed=1.0, window=0.0, most=3)
    assert batches == [(0.0, 1), (1.0, 3), (2.0, 1)]


def test_one_worker_without_batches_is_the_queue_of_the_textbook() -> None:
    """M/D/1: the mean wait is rho / (2 (1 - rho)) of a service."""
    rate, service = 70.0, 0.01
    arrivals = schedule(rate, 600.0, seed=1)
    clock = Clock()
    ends = []
    worker = clock.worker(service)

    def answer(batch: int) -> None:
        worker(batch)
        ends.append(clock.now - 100.0)

    serve(arrivals, answer, window_s=0.0, max_batch=1, clock=clock, sleep=clock.sleep)
    waits = np.array(ends) - np.array(arrivals) - service
    rho = rate * service
    assert waits.mean() == pytest.approx(service * rho / (2 * (1 - rho)), rel=0.05)


def test_the_schedule_is_poisson_and_a_function_of_its_seed() -> None:
    times = schedule(50.0, 100.0, seed=3)
    assert times == schedule(50.0, 100.0, seed=3) != schedule(50.0, 100.0, seed=4)
    assert len(times) == 5000
    assert times[-1] == pytest.approx(100.0)  # so that as many come in a second as was asked for
    assert schedule(100.0, 3.0)[-1] == pytest.approx(3.0)
    gaps = np.diff(times)
    assert stats.kstest(gaps, "expon", args=(0, 1 / 50.0)).pvalue > 0.01
    np.testing.assert_allclose(schedule(100.0, 50.0, seed=3), np.array(times) / 2)


def test_a_load_beyond_what_is_possible_falls_behind_or_is_given_up() -> None:
    arrivals = schedule(200.0, 10.0)
    found, _ = load(arrivals, fixed=0.01, most=1)
    assert found.achieved == pytest.approx(100.0, rel=0.01)
    assert not passes(found, 200.0, 1e9)
    early, batches = load(arrivals, fixed=0.01, most=1, limit=0.05)
    assert early.given_up
    assert len(batches) < 100
    assert not passes(early, 200.0, 1e9)


def test_the_highest_rate_is_found_and_batches_raise_it() -> None:
    def highest(most: int) -> float | None:
        capacity = most / (0.005 + 0.001 * most)

        def fine(rate: float) -> bool:
            arrivals = schedule(rate, 20.0)
            found, _ = load(arrivals, fixed=0.005, each=0.001, window=0.002, most=most, limit=0.05)
            return passes(found, rate, 50.0)

        return highest_rate(fine, capacity)

    alone, together = highest(1), highest(8)
    assert alone is not None
    assert together is not None
    assert 0.7 * 1 / 0.006 < alone < 1 / 0.006
    assert together > 2 * alone
    asked = []
    assert highest_rate(lambda rate: bool(asked.append(rate)), 64.0) is None
    assert asked == [32.0, 16.0, 8.0, 4.0, 2.0, 1.0]
    assert highest_rate(lambda rate: True, 64.0) == 63.0


def test_rows_of_given_rates_and_of_a_limit() -> None:
    def rows(rates, limit):
        clock = Clock()
        calls = {size: lambda size=size: clock.worker(0.005, 0.001)(size) for size in (1, 2, 3, 4)}
        return load_rows(calls, rates, limit, 2.0, 5.0, clock=clock, sleep=clock.sleep)

    plain = rows((), None)
    assert [row["rate"] / plain[0]["capacity"] for row in plain] == pytest.approx([0.25, 0.5, 0.75, 0.9])
    assert plain[0]["capacity"] == pytest.approx(4 / 0.009)
    assert [row["p99_ms"] for row in plain] == sorted(row["p99_ms"] for row in plain)
    assert all(row["within"] is None and row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"] for row in plain)
    searched = rows((50.0,), 30.0)
    (best,) = (row for row in searched if row["highest"])
    assert best["within"]
    assert best["p99_ms"] <= 30.0
    assert best["rate"] == max(row["rate"] for row in searched if row["within"])
    assert 50.0 in [row["rate"] for row in searched]
    again = rows((), 30.0)
    assert [row["rate"] for row in again] == [row["rate"] for row in searched if row["rate"] != 50.0]


def served(**changes) -> dict:
    row = {"model": "one", "runtime": "onnxruntime", "threads": 2, "rate": 50.0, "requests": 500, "achieved": 49.5}
    row |= {"p50_ms": 8.0, "p95_ms": 15.0, "p99_ms": 22.0, "mean_batch": 1.5, "given_up": False, "capacity": 120.0}
    row |= {"within": True, "highest": True}
    settings = {"seconds": 10.0, "threads": [2], "window_ms": 5.0, "max_batch": 8, "p99_limit_ms": 50.0}
    other = {**row, "rate": 100.0, "achieved": 70.0, "p99_ms": 900.0, "within": False, "highest": False}
    early = {**other, "rate": 110.0, "requests": 30, "given_up": True}
    return made_up(kind="serving", timings=[], serving=[row, other, early], settings=settings) | changes


def test_the_page_has_a_chart_and_the_loads() -> None:
    page = bench_page(served())
    assert page.count('chart scatter"') == 2
    assert "answered per second" in page
    assert "within the limit" in page
    assert "no, ended early" in page
    assert "ImageNet" not in page
    assert "latencies count from then on" in page
    assert caveats(served()) == []
    few = served()
    few["serving"][0]["requests"] = 40
    assert caveats(few) == ["a 99th percentile of fewer than 100 requests (40) is the slowest: give more --seconds"]


def test_a_load_from_start_to_end(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    tiny = tiny_checkpoint(tmp_path)
    out, page = tmp_path / "serve.json", tmp_path / "serve.html"
    words = ["bench", str(tiny), "--serve", "--threads", "1", "--seconds", "0.1", "--runtimes", "pytorch"]
    words += ["--rate", "200", "--p99", "10s", "--window", "1ms", "--max-batch", "2"]
    assert main([*words, "--json", str(out), "--html", str(page)]) == 0
    text = capsys.readouterr().out
    assert re.search(r"tiny.safetensors: PyTorch, 1 thread, at most \d", text)
    assert "p99 below 10000 ms" in text
    assert "requests come at random times" in text
    result = json.loads(out.read_text())
    assert (result["schema"], result["kind"]) == ("tokenmix.bench/1", "serving")
    assert len(result["serving"]) == 7
    assert all(row["requests"] >= 20 and row["mean_batch"] <= 2 for row in result["serving"])
    assert "Loads" in page.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x.onnx", "--p99", "50ms"], "without --serve there is no --p99"),
        (["x.onnx", "--serve", "--layers"], "--serve takes no --layers"),
        (["x.onnx", "--serve", "--train"], "--train and --serve are 2 measurements: choose one"),
        (["x.onnx", "--serve", "--p99", "50"], "'50' is no time: give one with its unit, such as 50ms"),
        (["x.onnx", "--serve", "--rate", "0"], "must be from 0.001"),
        (["x.onnx", "--serve", "--rounds", "3"], "--serve takes no --rounds"),
        (["affnet_et", "--serve", "--runtimes", "frozen"], "frozen"),
    ],
)
def test_mistakes_of_the_command(words, message, capsys) -> None:
    assert main(["bench", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_mistakes() -> None:
    for arrivals, window, most in (([], 0.0, 1), ([1.0], 0.0, 0), ([1.0], -1.0, 1)):
        with pytest.raises(ValueError, match="a load needs"):
            load(arrivals, fixed=1.0, window=window, most=most)
