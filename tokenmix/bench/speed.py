"""Time, measured so that a drifting machine hurts all alike: interleaved, in random order, in one process."""

from __future__ import annotations

import copy
import gc
import itertools
import math
import os
import random
import shutil
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tokenmix.export.onnx_file import onnx_session
from tokenmix.names import unknown

RUNTIMES = ("pytorch", "onnxruntime", "compile")
MIN_ROUNDS = 3
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
    """

    median_ms: float
    min_ms: float
    low_ms: float
    high_ms: float
    rounds: int


def interleave(
    calls: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 30,
    warmup: int = 20,
    seed: int = 0,
    min_seconds: float = 0.002,
    max_seconds: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time callables side by side.

    Warm-up: all are called in turn until none got more than 5 % faster than its best in two turns running, at least
    three times, at most ``warmup`` times or a quarter of ``max_seconds``. Then in each round every callable is timed
    once, in random order. A callable that takes less than ``min_seconds`` is timed over as many calls in a row as fill
    it, after one call that is not timed and brings its data and threads back. The garbage collector stands still.

    Args:
        calls: Functions without arguments, by name. On a GPU they must wait for the device themselves.
        rounds: Rounds to measure.
        warmup: Most warm-up calls of each.
        seed: Of the order and of the bootstrap.
        min_seconds: Shortest span to time.
        max_seconds: Stop after this time, but not before `MIN_ROUNDS` rounds.
        clock: Seconds; only tests need another one.

    Raises:
        ValueError: No callables, or no rounds.
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


def latency(
    models: Mapping[str, nn.Module],
    onnx_paths: Mapping[str, str | os.PathLike[str]] | None = None,
    *,
    image_size: int | tuple[int, int],
    batch_sizes: Sequence[int] = (1, 32),
    runtimes: Sequence[str] = ("pytorch", "onnxruntime"),
    images: Tensor | None = None,
    in_chans: int = 3,
    threads: int | None = None,
    device: str | torch.device = "cpu",
    seconds: float = 60.0,
    rounds: int = 30,
    seed: int = 0,
) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """Inference times of models, all runtimes and models of one batch size in one interleaved measurement.

    Args:
        models: By name, measured as given (re-parameterise them first) in evaluation mode, in float32; not changed.
        onnx_paths: Files by the same or other names, for the runtime ``"onnxruntime"``, which runs on the CPU.
        image_size: Height and width in pixels, or one number for both.
        batch_sizes: Images per call.
        runtimes: From `RUNTIMES`. ``"compile"`` is `torch.compile`, whose first call takes up to a minute per model and
            batch size beyond ``seconds``; where it is not available it is left out with a warning.
        images: (N, in_chans, H, W) to measure with, repeated to fill a batch; seeded noise by default.
        in_chans: Channels of the noise.
        threads: Of PyTorch and ONNX Runtime alike; as PyTorch is set by default.
        device: Of PyTorch's models.
        seconds: For all measurements together.
        rounds: Rounds per batch size.
        seed: Of noise, order and bootstrap.

    Returns:
        By name: ``latency_ms`` (median), ``latency_range_ms`` ([low, high], 95 % interval of the median) and
        ``throughput`` (images per second), each by runtime and batch size (a string, as in JSON).

    Raises:
        ValueError: An unknown runtime, or nothing to measure.
        ImportError: onnxruntime is wanted and not installed.
    """
    wanted = _available(runtimes)
    onnx_paths = {} if onnx_paths is None else onnx_paths
    if any(size < 1 for size in batch_sizes):
        raise ValueError(f"batch sizes must be positive, not {list(batch_sizes)}")
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if images is None:
        images = torch.randn(1, in_chans, height, width, generator=torch.Generator().manual_seed(seed))
    elif images.shape[-2:] != (height, width):
        raise ValueError(f"images of {tuple(images.shape[-2:])} pixels for image_size {(height, width)}")

    copies = {name: copy.deepcopy(model).to(device).float().eval() for name, model in models.items()}
    results: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    with _threads(threads), torch.inference_mode():
        sessions = (
            {name: onnx_session(path, threads) for name, path in onnx_paths.items()} if "onnxruntime" in wanted else {}
        )
        remaining = seconds
        for index, size in enumerate(batch_sizes):
            batch = images.float()[torch.arange(size) % len(images)].contiguous()
            calls = _calls(copies, sessions, batch, wanted, torch.device(device))
            if not calls:
                raise ValueError("nothing to measure: give models, or onnx_paths with the runtime 'onnxruntime'")
            start = time.perf_counter()
            budget = remaining / (len(batch_sizes) - index)
            labels = {f"{runtime} {name}": (runtime, name) for runtime, name in calls}
            timings = interleave(
                {label: calls[key] for label, key in labels.items()}, rounds=rounds, seed=seed, max_seconds=budget
            )
            remaining = max(0.0, remaining - (time.perf_counter() - start))
            for label, (runtime, name) in labels.items():
                timing = timings[label]
                entry = results.setdefault(name, {"latency_ms": {}, "latency_range_ms": {}, "throughput": {}})
                entry["latency_ms"].setdefault(runtime, {})[str(size)] = timing.median_ms
                entry["latency_range_ms"].setdefault(runtime, {})[str(size)] = [timing.low_ms, timing.high_ms]
                entry["throughput"].setdefault(runtime, {})[str(size)] = 1000.0 * size / timing.median_ms
    return results


def compile_unavailable() -> str | None:
    """Why `torch.compile` cannot run on the CPU here, or None if it can."""
    if sys.platform == "win32":
        found = shutil.which("cl")
    else:
        found = next(
            filter(None, map(shutil.which, filter(None, (os.environ.get("CXX"), "c++", "g++", "clang++")))), None
        )
    return None if found else "torch.compile is left out: it needs a C++ compiler, and none is installed"


def _available(runtimes: Sequence[str]) -> list[str]:
    for runtime in runtimes:
        if runtime not in RUNTIMES:
            raise ValueError(unknown("runtime", runtime, RUNTIMES))
    reason = compile_unavailable() if "compile" in runtimes else None
    if reason:
        warnings.warn(reason, stacklevel=3)
    return [runtime for runtime in runtimes if runtime != "compile" or not reason]


def _calls(
    models: Mapping[str, nn.Module],
    sessions: Mapping[str, Any],
    batch: Tensor,
    runtimes: Sequence[str],
    device: torch.device,
) -> dict[tuple[str, str], Callable[[], object]]:
    """What to time, by (runtime, name), for one batch."""
    calls: dict[tuple[str, str], Callable[[], object]] = {}
    inputs = batch.to(device)
    for name, model in models.items():
        if "pytorch" in runtimes:
            calls["pytorch", name] = _waiting(model, inputs)
        if "compile" in runtimes:
            compiled = torch.compile(_own_code(model), dynamic=False)
            compiled(inputs)
            calls["compile", name] = _waiting(compiled, inputs)
    array = batch.cpu().numpy()
    for name, session in sessions.items():
        feed = {session.get_inputs()[0].name: array}
        calls["onnxruntime", name] = _running(session, feed)
    return calls


def _waiting(model: Callable[[Tensor], object], inputs: Tensor) -> Callable[[], object]:
    if inputs.device.type != "cuda":
        return lambda: model(inputs)

    def call() -> None:
        model(inputs)
        torch.cuda.synchronize(inputs.device)

    return call


def _running(session: Any, feed: dict[str, np.ndarray]) -> Callable[[], object]:
    return lambda: session.run(None, feed)


def _own_code(model: nn.Module) -> Callable[[Tensor], object]:
    """The model as a function with a code object of its own.

    torch.compile keeps its graphs by code object and gives up after eight, and models that differ only in a submodule
    share the code of their class.
    """

    def forward(x: Tensor) -> object:
        return model(x)

    return types.FunctionType(forward.__code__.replace(), forward.__globals__, "forward", None, forward.__closure__)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
