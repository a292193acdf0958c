"""The runtimes that a model can be timed in: how each is started, and why it may be missing here."""

from __future__ import annotations

import copy
import importlib.util
import time
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tokenmix.bench.interleaved import OwnClock
from tokenmix.export.aoti import load_aoti, no_compiler
from tokenmix.export.executorch import load_executorch
from tokenmix.export.formats import FORMATS
from tokenmix.export.onnx_file import onnx_session
from tokenmix.export.openvino import compile_openvino
from tokenmix.runtime_names import runtime_name
from tokenmix_runtime.cores import usable_cores
from tokenmix_runtime.names import unknown

Call = Callable[[], object]
Start = Callable[[Tensor], Call]


@dataclass(frozen=True)
class Runtime:
    """One way to run a model.

    Attributes:
        form: What it runs: ``"model"``, or the format of a file in `tokenmix.export.formats.FORMATS`.
        start: ``(model or path, threads, device) -> (batch -> call)``.
        slow: Starting takes a minute per model and batch size, so that it must be asked for.
    """

    form: str
    start: Callable[[Any, int, torch.device], Start]
    slow: bool = False


def _eager(model: nn.Module, threads: int, device: torch.device) -> Start:
    placed = _placed(model, device)
    return lambda batch: waiting(partial(placed, batch.to(device)), device)


def _channels_last(model: nn.Module, threads: int, device: torch.device) -> Start:
    placed = copy.deepcopy(model).to(device).to(memory_format=torch.channels_last)
    return lambda batch: waiting(partial(placed, batch.to(device, memory_format=torch.channels_last)), device)


def _compiled(model: nn.Module, threads: int, device: torch.device, *, freezing: bool = False) -> Start:
    placed = _placed(model, device)

    def start(batch: Tensor) -> Call:
        compiled = compiled_code(placed, threads, freezing=freezing)
        inputs = batch.to(device)
        compiled(inputs)
        return waiting(partial(compiled, inputs), device)

    return start


def _cuda_graph(model: nn.Module, threads: int, device: torch.device) -> Start:
    placed = _placed(model, device)

    def start(batch: Tensor) -> Call:
        inputs = batch.to(device)
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(3):  # what is chosen and allocated only once must be so before the recording
                placed(inputs)
        torch.cuda.current_stream(device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            placed(inputs)
        return waiting(graph.replay, device)

    return start


def _placed(model: nn.Module, device: torch.device) -> nn.Module:
    return model if device.type == "cpu" else copy.deepcopy(model).to(device)


def _onnxruntime(path: Path, threads: int, device: torch.device) -> Start:
    session = onnx_session(path, threads)

    def start(batch: Tensor) -> Call:
        feed = {session.get_inputs()[0].name: batch.numpy()}
        return lambda: session.run(None, feed)

    return start


def _openvino(path: Path, threads: int, device: torch.device) -> Start:
    compiled = compile_openvino(path, threads)
    return lambda batch: partial(compiled, batch.numpy())


def _aoti(path: Path, threads: int, device: torch.device) -> Start:
    run = load_aoti(path)  # as many threads as PyTorch has when it runs
    return lambda batch: partial(run, batch)


def _executorch(path: Path, threads: int, device: torch.device) -> Start:
    return lambda batch: load_executorch(path, batch)


RUNTIMES: dict[str, Runtime] = {
    "pytorch": Runtime("model", _eager),
    "channels_last": Runtime("model", _channels_last),
    "compile": Runtime("model", _compiled, slow=True),
    "frozen": Runtime("model", partial(_compiled, freezing=True), slow=True),
    "aoti": Runtime("aoti", _aoti, slow=True),
    "cuda_graph": Runtime("model", _cuda_graph),
    "onnxruntime": Runtime("onnx", _onnxruntime),
    "openvino": Runtime("openvino", _openvino),
    "executorch": Runtime("executorch", _executorch),
}

_GENERATED = ("compile", "frozen", "aoti")  # by a compiler


def missing(name: str, device: torch.device) -> str | None:
    """Why a runtime cannot be measured here, or None.

    Raises:
        ValueError: There is no runtime of that name.
    """
    if name not in RUNTIMES:
        raise ValueError(unknown("runtime", name, RUNTIMES))
    runtime = RUNTIMES[name]
    if name == "cuda_graph" and device.type != "cuda":
        return "CUDA graphs need a GPU: add --device cuda on a machine that has one"
    if name in _GENERATED and device.type == "cpu" and (reason := no_compiler()):
        return f"{runtime_name(name)} is left out: {reason}"
    if runtime.form == "model":
        return None
    if device.type != "cpu":
        return f"{runtime_name(name)} is measured on the CPU only"
    kind = FORMATS[runtime.form]
    for package in kind.packages:
        if importlib.util.find_spec(package) is None:
            return f"{runtime_name(name)} needs the package {package!r}: pip install 'tokenmix[{kind.extra}]'"
    return None


def fits_threads(name: str, threads: int) -> str | None:
    """Why a runtime cannot be held to that number of threads, or None."""
    if name == "executorch" and threads != usable_cores():
        return f"ExecuTorch's Python package always takes all {usable_cores()} cores"
    return None


def choose(names: Sequence[str] | None, device: torch.device) -> tuple[list[str], dict[str, str]]:
    """The runtimes to measure, and why others are left out.

    Args:
        names: Of `RUNTIMES`; ``["all"]`` takes all that are here, None those of them that start at once.
        device: Where PyTorch's run.

    Raises:
        ValueError: One is unknown.
        ImportError: One that is named is not here; the message says what to install.
    """
    if names is not None and list(names) != ["all"]:
        for name in names:
            reason = missing(name, device)
            if reason:
                raise ImportError(f"{name} cannot be measured here: {reason}")
        return list(dict.fromkeys(names)), {}
    wanted = [name for name, runtime in RUNTIMES.items() if names is not None or not runtime.slow]
    reasons = {name: reason for name in wanted if (reason := missing(name, device))}
    if names is None:
        reasons |= {name: "left out by default: --runtimes all" for name, one in RUNTIMES.items() if one.slow}
    return [name for name in wanted if name not in reasons], reasons


def waiting(call: Call, device: torch.device) -> Call:
    """The call; on a GPU it then waits, and is timed by the GPU's own events."""
    if device.type != "cuda":
        return call

    def run() -> None:
        call()
        torch.cuda.synchronize(device)

    def seconds(repeats: int) -> float:
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        for _ in range(repeats):
            call()
        last.record()
        torch.cuda.synchronize(device)
        return first.elapsed_time(last) / 1000.0 / repeats

    return OwnClock(run, seconds)


def throughput(call: Call, batch: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Images per second of the fastest of three calls, after one that is not timed."""
    call()
    times = []
    for _ in range(3):
        if isinstance(call, OwnClock):
            times.append(call.seconds(1))
            continue
        start = clock()
        call()
        times.append(clock() - start)
    return batch / min(times)


def compile_unavailable() -> str | None:
    """Why `torch.compile` cannot run on the CPU here, or None if it can.

    Examples:
        >>> runtimes = ["pytorch"] if compile_unavailable() else ["pytorch", "compile"]
    """
    return missing("compile", torch.device("cpu"))


def compiled_code(model: nn.Module, threads: int, *, freezing: bool = False) -> Callable[..., Any]:
    """A model by `torch.compile` for inputs of one shape; its first call compiles.

    Args:
        model: In evaluation mode.
        threads: Of the generated code, in which their number is fixed.
        freezing: Take the weights for constants, which only happens where gradients are off.
    """
    return torch.compile(own_code(model), dynamic=False, options={"cpp.threads": threads, "freezing": freezing})


def own_code(model: nn.Module) -> Callable[..., object]:
    """The model as a function with a code object of its own.

    torch.compile keeps its graphs by code object and gives up after eight, and models that differ only in a submodule
    share the code of their class.
    """

    def forward(*inputs: Tensor) -> object:
        return model(*inputs)

    return types.FunctionType(forward.__code__.replace(), forward.__globals__, "forward", None, forward.__closure__)


@contextmanager
def use_threads(count: int | None) -> Iterator[None]:
    """PyTorch with so many threads within a ``with`` block; None leaves it as it is."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
