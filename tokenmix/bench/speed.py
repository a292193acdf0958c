"""The inference times of models, side by side in one process."""

from __future__ import annotations

import copy
import os
import shutil
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tokenmix.bench.rounds import interleave
from tokenmix.export.onnx_file import onnx_session
from tokenmix.names import unknown

RUNTIMES = ("pytorch", "onnxruntime", "compile")


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
    with use_threads(threads), torch.inference_mode():
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
            compiled = torch.compile(own_code(model), dynamic=False)
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


def own_code(model: nn.Module) -> Callable[[Tensor], object]:
    """The model as a function with a code object of its own.

    torch.compile keeps its graphs by code object and gives up after eight, and models that differ only in a submodule
    share the code of their class.
    """

    def forward(x: Tensor) -> object:
        return model(x)

    return types.FunctionType(forward.__code__.replace(), forward.__globals__, "forward", None, forward.__closure__)


@contextmanager
def use_threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
