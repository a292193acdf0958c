"""What needs a GPU, in one command of under ten minutes: ``python benchmarks/gpu.py``, or ``make gpu``.

Runs every GPU test, then measures: the memory bandwidth, each Triton kernel beside its PyTorch form with its share of
that bandwidth, and a model of every family with and without the kernels and in the papers' form. Writes
``results/gpu-<name>.json``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for the reference forms

import tokenmix  # noqa: E402
from benchmarks.reference_forms import reference_form  # noqa: E402
from tokenmix.bench.machine import describe  # noqa: E402
from tokenmix.files import write_json  # noqa: E402
from tokenmix.ops.dispatch import definitions  # noqa: E402
from tokenmix.ops.kernels.additive import gate_convolve  # noqa: E402
from tokenmix.ops.kernels.ffnified import depthwise_gelu_depthwise  # noqa: E402
from tokenmix.ops.kernels.frequency import filter_spectrum  # noqa: E402
from tokenmix.ops.kernels.rule import kernels  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
SECONDS = 570.0
TESTS_SECONDS = 330.0
COMPILE_SECONDS = 75.0  # what must be left to begin compiling a model
MAP_BYTES = 128 * 2**20  # of a map: more than any L2 cache holds, so that its bytes come from memory
SHAPES = ((56, 64), (28, 128), (14, 256), (7, 256))  # side of the map, channels
MODELS = ("affnet_s", "casvit_s", "dsm_s", "ffnet_1")
EAGER = ("kernel", "pytorch", "reference")
DTYPES = (torch.float32, torch.bfloat16)
QUERY = (
    "driver_version",
    "clocks.sm",
    "clocks.max.sm",
    "clocks.mem",
    "clocks.max.mem",
    "power.limit",
    "temperature.gpu",
)

Call = Callable[[], object]
Stopwatch = Callable[[Call, int], float]  # milliseconds of one of that many calls in a row
Capture = Callable[[Call], Call]  # the same work as one CUDA graph


def events_ms(call: Call, repeats: int) -> float:
    """Milliseconds of one call, between two CUDA events around ``repeats`` of them."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / repeats


def captured(call: Call) -> Call:
    """The replay of a CUDA graph of the call, which is warmed up first.

    Captured on the current stream, where a backward pass must run because its forward pass did.
    """
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        call()
    return graph.replay


def side_by_side(calls: Mapping[str, Call], stopwatch: Stopwatch, rounds: int = 15) -> dict[str, float]:
    """Median milliseconds of each call; interleaved in random order after three calls of each, in spans of 2 ms."""
    repeats = {}
    for name, call in calls.items():
        stopwatch(call, 3)
        repeats[name] = max(1, min(100, round(2.0 / max(stopwatch(call, 1), 1e-3))))
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    shuffle = random.Random(0).shuffle
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            times[name].append(stopwatch(calls[name], repeats[name]))
    return {name: round(statistics.median(found), 5) for name, found in times.items()}


def bandwidth(stopwatch: Stopwatch, device: str, size: int = 2**30) -> float:
    """Bytes per second of copying ``size`` bytes: what is read and what is written."""
    source = torch.zeros(size // 4, device=device)
    target = torch.empty_like(source)
    return 2 * size / (1e-3 * side_by_side({"copy": lambda: target.copy_(source)}, stopwatch)["copy"])


def chain(name: str, side: int, dim: int, dtype: torch.dtype, device: str, map_bytes: int) -> dict[str, Any]:
    """A chain and its inputs: ``call``, ``leaves``, and the bytes it must move forward and backward.

    The filter works on a spectrum of float32, whatever the type of the image; its groups have 16 channels.
    """
    batch = max(1, map_bytes // (dim * side * side * dtype.itemsize))
    make = partial(torch.randn, generator=torch.Generator().manual_seed(0))
    weights: list[Tensor]
    if name == "frequency":
        groups, width = max(1, dim // 16), min(dim, 16)
        x = torch.complex(*(make(batch, dim, side, side // 2 + 1) for _ in range(2)))
        weights = [make(*shape) / 4 for shape in ((2, groups, width, width), (2, groups, width)) * 2]
        call, moved, map_size = partial(_filter, threshold=0.01), (2, 3), 8 * x.numel()
    elif name == "additive":
        x = make(batch, 3 * dim, side, side)
        shapes = ((batch, 2, side, side), (2 * dim, dim, 1, 1), (dim, 1, 3, 3), (dim,))
        weights = [make(*shape) / 4 for shape in shapes]
        call, moved, map_size = gate_convolve, (6, 13), dtype.itemsize * x.numel() // 3
    else:
        size = int(name.removeprefix("ffnified"))
        x = make(batch, dim, side, side)
        weights = [make(*shape) / 4 for shape in ((dim, 1, size, size), (dim,)) * 2]
        call, moved, map_size = depthwise_gelu_depthwise, (2, 3), dtype.itemsize * x.numel()
    leaves = [
        tensor.to(device, dtype if tensor.is_floating_point() else None).requires_grad_() for tensor in (x, *weights)
    ]
    return {"call": call, "leaves": leaves, "bytes": {"forward": moved[0] * map_size, "backward": moved[1] * map_size}}


def _filter(spectrum: Tensor, *weights: Tensor, threshold: float) -> Tensor:
    w1, b1, w2, b2 = weights
    return filter_spectrum(spectrum, w1, b1, w2, b2, threshold)


def kernel_rows(
    stopwatch: Stopwatch,
    capture: Capture,
    per_second: float,
    *,
    device: str = "cuda",
    shapes: Sequence[tuple[int, int]] = SHAPES,
    map_bytes: int = MAP_BYTES,
    until: float = float("inf"),
) -> list[dict[str, Any]]:
    """Each chain at each shape, forward and backward: the kernel and PyTorch, by events and as a CUDA graph.

    ``share_of_bandwidth`` is the kernel's least traffic over its time as a graph, over ``per_second``.
    """
    rows = []
    for name in ("frequency", "ffnified3", "ffnified7", "additive"):
        for dtype in DTYPES[:1] if name == "frequency" else DTYPES:
            for side, dim in shapes:
                if time.monotonic() > until:
                    return rows
                case = chain(name, side, dim, dtype, device, map_bytes)
                row = {"chain": name, "side_px": side, "channels": dim, "batch": len(case["leaves"][0])}
                row |= {"dtype": str(dtype)[6:], "forward": {}, "backward": {}}
                for part in ("forward", "backward"):
                    calls = {form: _part(case, part, form) for form in ("kernel", "pytorch")}
                    graphs = {form: capture(call) for form, call in calls.items()}
                    events, replays = (side_by_side(group, stopwatch) for group in (calls, graphs))
                    share = case["bytes"][part] / (1e-3 * replays["kernel"]) / per_second
                    row[part] = {
                        "bytes": case["bytes"][part],
                        "events_ms": events,
                        "graph_ms": replays,
                        "times_faster": round(replays["pytorch"] / replays["kernel"], 3),
                        "share_of_bandwidth": round(share, 4),
                    }
                rows.append(row)
    return rows


def _form(form: str) -> AbstractContextManager[None]:
    return definitions() if form == "reference" else kernels(form == "kernel")


def _part(case: dict[str, Any], part: str, form: str) -> Call:
    """The forward pass without gradients, or the backward pass alone."""
    call, leaves = case["call"], case["leaves"]
    if part == "forward":

        def forward() -> None:
            with torch.no_grad(), _form(form):
                call(*leaves)

        return forward
    with _form(form):
        output = call(*leaves)
    upstream = torch.ones_like(output)
    return lambda: torch.autograd.grad(output, leaves, upstream, retain_graph=True)


def model_calls(name: str, device: str, batch: int, side: int, train: bool, form: str) -> Call:
    """A step of a model in bfloat16: inference, or forward and backward under autocast.

    Ours is re-parameterised for inference; the papers' form (``"reference"``) is not.
    """
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name).to(device)
    images = torch.randn(batch, 3, side, side, device=device)
    if form == "reference":
        model = reference_form(model)
    elif not train:
        model = tokenmix.reparameterize(model.eval())
    if not train:
        model, images = model.eval().bfloat16(), images.bfloat16()
    run: Callable[[Tensor], Tensor] = torch.compile(model, dynamic=False) if form == "compile" else model

    def step() -> None:
        with _form(form), torch.set_grad_enabled(train), torch.autocast(device, torch.bfloat16, enabled=train):
            output = run(images)
        if train:
            logits = output[0] if isinstance(output, tuple) else output
            logits.float().square().mean().backward()
            model.zero_grad(set_to_none=True)

    return step


def model_rows(
    stopwatch: Stopwatch,
    *,
    device: str = "cuda",
    models: Sequence[str] = MODELS,
    batch: int = 128,
    side: int = 224,
    until: float = float("inf"),
) -> list[dict[str, Any]]:
    """Images per second of each model: kernels on, kernels off, the papers' form; compiled too while there is time."""
    rows = []
    for train in (False, True):
        for name in models:
            row: dict[str, Any] = {"model": name, "train": train, "batch": batch, "side_px": side}
            while True:
                try:
                    row["images_per_s"] = _images_per_s(row, EAGER, stopwatch, device)
                    break
                except torch.OutOfMemoryError:
                    if row["batch"] == 1:
                        raise
                    row["batch"] //= 2
            rows.append(row)
    for row in rows:
        if time.monotonic() + COMPILE_SECONDS < until:
            row["images_per_s"] |= _images_per_s(row, ("compile",), stopwatch, device)
    return rows


def _images_per_s(row: dict[str, Any], forms: Sequence[str], stopwatch: Stopwatch, device: str) -> dict[str, float]:
    where = (row["model"], device, row["batch"], row["side_px"], row["train"])
    times = side_by_side({form: model_calls(*where, form) for form in forms}, stopwatch, rounds=8)
    return {form: round(1e3 * row["batch"] / ms, 1) for form, ms in times.items()}


def run_tests(seconds: float, target: Sequence[str] = ("-m", "gpu")) -> dict[str, Any]:
    """Counts of pytest's tests and the names of those that failed; ``finished`` is false where the time was up."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "tests.xml"
        workers = str(min(4, os.cpu_count() or 1))
        command = [sys.executable, "-m", "pytest", "-q", "-n", workers, "--dist", "worksteal", f"--junitxml={report}"]
        start = time.monotonic()
        try:
            subprocess.run([*command, *target], cwd=ROOT, timeout=seconds, check=False, stdout=sys.stderr)
        except subprocess.TimeoutExpired:
            print(f"the tests were ended after {seconds:.0f} s", file=sys.stderr)
        finished = report.exists()
        cases = list(ET.parse(report).iter("testcase")) if finished else []
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = sum(case.find("skipped") is not None for case in cases)
    return {
        "finished": finished,
        "passed": len(cases) - len(failed) - skipped,
        "skipped": skipped,
        "failed": [f"{case.get('classname')}::{case.get('name')}" for case in failed],
        "seconds": round(time.monotonic() - start, 1),
    }


def gpu_state() -> dict[str, Any]:
    """Name, memory and generation of the GPU, and what nvidia-smi says of driver, clocks, power and temperature now."""
    properties = torch.cuda.get_device_properties(0)
    state: dict[str, Any] = {
        "name": properties.name,
        "memory_gb": round(properties.total_memory / 1e9, 1),
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "cuda": torch.version.cuda,
        "triton": importlib.metadata.version("triton"),
    }
    try:
        words = ["nvidia-smi", "-i", "0", f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader"]
        answer = subprocess.run(words, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return state | {"nvidia_smi": None}
    return state | {"nvidia_smi": smi_values(answer)}


def smi_values(answer: str) -> dict[str, str]:
    """The first line of what nvidia-smi answers to `QUERY`, by name."""
    return dict(zip(QUERY, (value.strip() for value in answer.splitlines()[0].split(",")), strict=True))


def result_path(name: str) -> Path:
    """``results/gpu-<name>.json`` for a GPU's name."""
    return RESULTS / f"gpu-{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.json"


def summary(result: dict[str, Any]) -> str:
    """One line per kernel and model, and one of the tests."""
    lines = [f"{result['gpu']['name']}: {result['bandwidth_gb_per_s']:.0f} GB/s copied"]
    for row in result["kernels"]:
        parts = [
            f"{part} {row[part]['graph_ms']['kernel']:.3f} ms, {row[part]['times_faster']:.2f} x PyTorch, "
            f"{100 * row[part]['share_of_bandwidth']:.0f} % of the bandwidth"
            for part in ("forward", "backward")
        ]
        where = f"{row['side_px']}x{row['side_px']}x{row['channels']} {row['dtype']}"
        lines.append(f"{row['chain']} {where}: {'; '.join(parts)}")
    for row in result["models"]:
        speeds = ", ".join(f"{form} {speed:.0f}" for form, speed in row["images_per_s"].items())
        lines.append(f"{row['model']} {'training' if row['train'] else 'inference'}: {speeds} images/s")
    if tests := result["tests"]:
        end = "" if tests["finished"] else ", not finished"
        lines.append(f"tests: {tests['passed']} passed, {len(tests['failed'])} failed, {tests['skipped']} skipped{end}")
    return "\n".join(lines)


def measure(until: float) -> dict[str, Any]:
    """Everything that is timed, between two looks at the GPU's clocks."""
    before = gpu_state()
    per_second = bandwidth(events_ms, "cuda")
    return {
        "gpu": before,
        "bandwidth_gb_per_s": round(per_second / 1e9, 1),
        "kernels": kernel_rows(events_ms, captured, per_second, until=until - 90),
        "models": model_rows(events_ms, until=until),
        "gpu_after": gpu_state(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Test, measure, write; 0, or 1 if a test failed or they did not finish, or 2 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="the result file (default: benchmarks/results/gpu-<name>.json)")
    parser.add_argument("--no-tests", action="store_true", help="measure only")
    args = parser.parse_args(arguments)
    if not torch.cuda.is_available() or torch.version.cuda is None:
        print("benchmarks/gpu.py needs an NVIDIA GPU and a CUDA build of torch; torch finds none here", file=sys.stderr)
        return 2
    until = time.monotonic() + SECONDS
    tests = None if args.no_tests else run_tests(TESTS_SECONDS)
    with torch.cuda.stream(torch.cuda.Stream()):  # the default one cannot be captured
        result = {"created": datetime.now(UTC).isoformat(timespec="seconds"), "machine": describe(), "tests": tests}
        result |= measure(until)
    path = args.out or result_path(result["gpu"]["name"])
    write_json(path, result)
    print(summary(result))
    print(f"written to {path}")
    return 0 if tests is None or (tests["finished"] and not tests["failed"]) else 1


if __name__ == "__main__":
    sys.exit(main())
