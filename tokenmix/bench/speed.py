"""The inference times of models, side by side in one process."""

from __future__ import annotations

import copy
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tokenmix.bench.interleaved import interleave
from tokenmix.bench.runtimes import RUNTIMES, compile_unavailable, use_threads
from tokenmix_runtime.names import unknown

COMPARED = ("pytorch", "onnxruntime", "compile")


def latency(
    models: Mapping[str, nn.Module],
    onnx_paths: Mapping[str, str | os.PathLike[str]] | None = None,
    *,
    image_size: int | tuple[int, int] | None = None,
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
        image_size: Height and width in pixels, or one number for both; not needed where there are ``images``.
        batch_sizes: Images per call.
        runtimes: From `COMPARED`. ``"compile"`` is `torch.compile`, whose first call takes up to a minute per model and
            batch size beyond ``seconds``; where it is not available it is left out with a warning.
        images: (N, ...) to measure with, such as (N, in_chans, H, W), repeated to fill a batch; default: noise.
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

    Examples:
        >>> model = nn.Conv2d(3, 8, kernel_size=3)
        >>> found = latency({"mine": model}, image_size=32, batch_sizes=[1], runtimes=["pytorch"], rounds=5, seconds=1)
        >>> found["mine"]["latency_ms"]["pytorch"]["1"] > 0
        True
    """
    wanted = _available(runtimes)
    onnx_paths = {} if onnx_paths is None else onnx_paths
    if any(size < 1 for size in batch_sizes):
        raise ValueError(f"batch sizes must be positive, not {list(batch_sizes)}")
    sides = (image_size, image_size) if isinstance(image_size, int) else image_size
    if images is None:
        if sides is None:
            raise ValueError("latency needs images, or their image_size")
        images = torch.randn(1, in_chans, *sides, generator=torch.Generator().manual_seed(seed))
    elif sides is not None and images.shape[-2:] != tuple(sides):
        raise ValueError(f"images of {tuple(images.shape[-2:])} pixels for image_size {tuple(sides)}")

    copies = {name: copy.deepcopy(model).to(device).float().eval() for name, model in models.items()}
    results: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    with use_threads(threads), torch.inference_mode():
        starts = {}
        for runtime in wanted:
            sources: Mapping[str, Any] = copies if RUNTIMES[runtime].form == "model" else onnx_paths
            for name, source in sources.items():
                starts[runtime, name] = RUNTIMES[runtime].start(source, torch.get_num_threads(), torch.device(device))
        if not starts:
            raise ValueError("nothing to measure: give models, or onnx_paths with the runtime 'onnxruntime'")
        remaining = seconds
        for index, size in enumerate(batch_sizes):
            batch = images.float()[torch.arange(size) % len(images)].contiguous()
            labels = {f"{runtime} {name}": (runtime, name) for runtime, name in starts}
            calls = {label: starts[key](batch) for label, key in labels.items()}
            start = time.perf_counter()
            budget = remaining / (len(batch_sizes) - index)
            timings = interleave(calls, rounds=rounds, seed=seed, max_seconds=budget)
            remaining = max(0.0, remaining - (time.perf_counter() - start))
            for label, (runtime, name) in labels.items():
                timing = timings[label]
                entry = results.setdefault(name, {"latency_ms": {}, "latency_range_ms": {}, "throughput": {}})
                entry["latency_ms"].setdefault(runtime, {})[str(size)] = timing.median_ms
                entry["latency_range_ms"].setdefault(runtime, {})[str(size)] = [timing.low_ms, timing.high_ms]
                entry["throughput"].setdefault(runtime, {})[str(size)] = 1000.0 * size / timing.median_ms
    return results


def _available(runtimes: Sequence[str]) -> list[str]:
    for runtime in runtimes:
        if runtime not in COMPARED:
            raise ValueError(unknown("runtime", runtime, COMPARED))
    reason = compile_unavailable() if "compile" in runtimes else None
    if reason:
        warnings.warn(reason, stacklevel=3)
    return [runtime for runtime in runtimes if runtime != "compile" or not reason]
