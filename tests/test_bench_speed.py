"""Timing: statistics with a clock of our own, and the shape of what latency measures."""

from __future__ import annotations

import gc
import json
import random

import pytest
import torch
from torch import nn

from tokenmix.bench import interleave, latency, runtimes
from tokenmix.bench import interleaved as rounds


class Clock:
    """Time that passes only inside the calls."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[str] = []

    def __call__(self) -> float:
        return self.now

    def call(self, name: str, *seconds: float):
        generator = random.Random(0)

        def run() -> None:
            self.order.append(name)
            self.now += generator.choice(seconds)

        return run


def test_interleave_statistics():
    clock = Clock()
    calls = {"steady": clock.call("steady", 0.02), "wild": clock.call("wild", 0.01, 0.03, 0.05)}
    timings = interleave(calls, rounds=200, clock=clock)
    assert list(timings) == ["steady", "wild"]
    steady, wild = timings["steady"], timings["wild"]
    assert (steady.median_ms, steady.min_ms, steady.low_ms, steady.high_ms) == pytest.approx((20.0,) * 4)
    assert wild.min_ms == pytest.approx(10.0)
    assert wild.median_ms == pytest.approx(30.0)
    assert wild.low_ms <= wild.median_ms <= wild.high_ms
    assert steady.rounds == wild.rounds == 200


def test_interleave_order_is_random_but_seeded():
    def order(seed: int) -> list[str]:
        clock = Clock()
        names = "abcd"
        interleave({name: clock.call(name, 0.01) for name in names}, rounds=20, warmup=3, seed=seed, clock=clock)
        assert "".join(clock.order[:12]) == names * 3
        turns = ["".join(clock.order[start : start + 4]) for start in range(12, 92, 4)]
        assert len(clock.order) == 92
        assert all(sorted(turn) == list(names) for turn in turns)
        assert len(set(turns)) > 5
        return turns

    assert order(0) == order(0) != order(1)


def test_interleave_repeats_short_calls_and_keeps_to_its_time():
    clock = Clock()
    timings = interleave({"short": clock.call("short", 0.0005)}, rounds=10, warmup=3, min_seconds=0.002, clock=clock)
    assert timings["short"].median_ms == pytest.approx(0.5)
    assert len(clock.order) == 3 + 10 * (1 + 4)

    clock = Clock()
    timings = interleave({"long": clock.call("long", 1.0)}, rounds=1000, max_seconds=10.0, clock=clock)
    assert clock.now == pytest.approx(10.0)
    assert timings["long"].rounds == 7  # after three calls of warm-up
    slow = Clock()
    assert interleave({"slow": slow.call("slow", 9.0)}, max_seconds=1.0, clock=slow)["slow"].rounds == rounds.MIN_ROUNDS


def test_interleave_warms_up_until_steady():
    clock = Clock()
    durations = iter([8.0, 4.0, 2.0, 1.0, 1.0, 1.0])

    def warming() -> None:
        clock.order.append("warming")
        clock.now += next(durations, 1.0)

    timings = interleave({"warming": warming}, rounds=5, clock=clock)
    assert len(clock.order) == 6 + 5
    assert timings["warming"].high_ms == pytest.approx(1000.0)


def test_interleave_pauses_the_collector_and_names_what_failed():
    seen = []
    interleave({"look": lambda: seen.append(gc.isenabled())}, rounds=1, min_seconds=0)
    assert not any(seen)
    assert gc.isenabled()

    def fail() -> None:
        raise KeyError("broken")

    with pytest.raises(KeyError) as caught:
        interleave({"good": lambda: None, "bad": fail})
    assert caught.value.__notes__ == ["while timing 'bad'"]
    assert gc.isenabled()
    with pytest.raises(ValueError, match="at least one"):
        interleave({})


def test_latency_of_models_and_files(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from tokenmix.export import Prepared, prepare
    from tokenmix.export.onnx import write_onnx

    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2)).train()
    sample = torch.randn(2, 3, 8, 8)
    write_onnx(Prepared(prepare(model), sample, "image", ("logits",), {0: "batch"}, "net"), tmp_path / "model.onnx")
    threads = torch.get_num_threads()
    images = torch.randn(3, 3, 8, 8)
    result = latency(
        {"a": model, "b": model}, {"a": tmp_path / "model.onnx"}, image_size=8, batch_sizes=(1, 4), images=images,
        rounds=3, seconds=1.0, threads=1,
    )  # fmt: skip
    assert model.training
    assert torch.get_num_threads() == threads
    assert set(result) == {"a", "b"}
    assert set(result["b"]["latency_ms"]) == {"pytorch"}
    for runtime in ("pytorch", "onnxruntime"):
        for batch in ("1", "4"):
            median = result["a"]["latency_ms"][runtime][batch]
            low, high = result["a"]["latency_range_ms"][runtime][batch]
            assert 0 < low <= median <= high
            assert result["a"]["throughput"][runtime][batch] == pytest.approx(1000 * int(batch) / median)
    json.dumps(result, allow_nan=False)


def test_latency_refuses_nonsense():
    with pytest.raises(ValueError, match="unknown runtime 'pytorhc'; did you mean 'pytorch'"):
        latency({}, image_size=8, runtimes=["pytorhc"])
    with pytest.raises(ValueError, match="nothing to measure"):
        latency({}, image_size=8)
    with pytest.raises(ValueError, match=r"images of \(8, 8\) pixels"):
        latency({"a": nn.Identity()}, image_size=16, images=torch.randn(1, 3, 8, 8))


def test_compile_is_left_out_with_a_reason(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.warns(UserWarning, match="needs a C\\+\\+ compiler"):
        result = latency({"a": nn.Identity()}, image_size=4, runtimes=["pytorch", "compile"], rounds=1, seconds=0.1)
    assert set(result["a"]["latency_ms"]) == {"pytorch"}


def test_every_compiled_model_has_its_own_code():
    first, second = runtimes.own_code(nn.Identity()), runtimes.own_code(nn.Flatten())
    assert first.__code__ is not second.__code__
    x = torch.randn(2, 3, 4)
    assert torch.equal(first(x), x)
    assert second(x).shape == (2, 12)


@pytest.mark.slow
@pytest.mark.skipif(runtimes.compile_unavailable() is not None, reason="no C++ compiler")
def test_latency_of_a_compiled_model():
    result = latency({"a": nn.Conv2d(3, 4, 3)}, image_size=8, batch_sizes=(1, 2), runtimes=["compile"], rounds=3)
    assert set(result["a"]["latency_ms"]["compile"]) == {"1", "2"}
