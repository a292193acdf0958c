"""The ways to run a model that `tokenmix.compile` tries, from the simplest on."""

from __future__ import annotations

import copy
import importlib.util
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves  # what torch.export itself takes structures apart with

from tokenmix.bench.runtimes import compiled_code
from tokenmix.export.aoti import load_aoti, no_compiler
from tokenmix.export.formats import FORMATS
from tokenmix.export.onnx_file import onnx_session
from tokenmix.export.openvino import compile_openvino
from tokenmix.export.prepare import Prepared, prepare

Run = Callable[..., list[Tensor]]  # the inputs -> the tensors of the output, in their order


@dataclass(frozen=True)
class Job:
    """What is to be run.

    Attributes:
        model: In evaluation mode, as it was given.
        merged: Its inference form, see `tokenmix.bench.folded`.
        inputs: Examples.
        outputs: How many tensors it returns.
        open_batch: Batches of any size shall be taken.
        threads: As PyTorch is set.
        written: Files that were written, by their format: two ways may read the same.
    """

    model: nn.Module
    merged: nn.Module
    inputs: tuple[Tensor, ...]
    outputs: int
    open_batch: bool
    threads: int
    written: dict[str, Path] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Of the inputs."""
        return self.inputs[0].device


@dataclass(frozen=True)
class Way:
    """One way to run a model.

    Attributes:
        start: ``(job, folder) -> run``; it may leave files in the folder.
        load: The same from files that were left there before; None: nothing is left.
        lacks: Why it cannot be tried, or None.
        slow: Starting takes up to a minute.
    """

    start: Callable[[Job, Path], Run]
    load: Callable[[Job, Path], Run] | None = None
    lacks: Callable[[Job], str | None] = lambda job: None
    slow: bool = False


class Flat(nn.Module):
    """A model that returns the tensors of its output as a tuple, whatever they were in."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Any input of the model -> the tensors of its output."""
        return tuple(tree_leaves(self.model(x)))


def _leaves(model: Callable[..., object]) -> Run:
    return lambda *inputs: tree_leaves(model(*inputs))


def _channels_last(job: Job, folder: Path) -> Run:
    model = copy.deepcopy(job.merged).to(memory_format=torch.channels_last)
    return lambda x: tree_leaves(model(x.contiguous(memory_format=torch.channels_last)))


def _no_maps(job: Job) -> str | None:
    return None if len(job.inputs) == 1 and job.inputs[0].ndim == 4 else "its input is no batch of maps"


def _frozen(job: Job, folder: Path) -> Run:
    code = compiled_code(job.merged, job.threads, freezing=True)

    def run(*inputs: Tensor) -> list[Tensor]:
        with torch.inference_mode(False):  # in which it would be compiled once more
            return tree_leaves(code(*map(_alike, inputs, job.inputs)))

    return run


def _alike(x: Tensor, example: Tensor) -> Tensor:
    """The same values in the example's order in memory: for another one a minute of compilation would begin."""
    if not x.is_inference() and x.stride() == example.stride():
        return x.detach()
    return torch.empty_strided(example.shape, example.stride(), dtype=x.dtype, device=x.device).copy_(x)


def _no_code(job: Job) -> str | None:
    if job.open_batch:
        return "it is compiled for one batch size, and any was asked for"
    return no_compiler() if job.device.type == "cpu" else None


def _written(form: str, load: Callable[[Job, Path], Run]) -> Callable[[Job, Path], Run]:
    """What writes a file of a format and loads it."""

    def start(job: Job, folder: Path) -> Run:
        path = _file(folder, form)
        if form in job.written:
            shutil.copyfile(job.written[form], path)
        else:
            FORMATS[form].write(_prepared(job), path, "fp32", [])
            job.written[form] = path
        return load(job, folder)

    return start


def _prepared(job: Job) -> Prepared:
    (example,) = job.inputs
    # Batch 2 where it is open: torch.export takes a size of 1 for a constant.
    sample = torch.cat([example, example])[:2] if job.open_batch else example
    names = tuple(f"output{number}" for number in range(job.outputs))
    axes = {0: "batch"} if job.open_batch else {}
    return Prepared(prepare(Flat(job.merged)), sample, "input", names, axes, type(job.model).__name__)


def _file(folder: Path, form: str) -> Path:
    return folder / f"model{FORMATS[form].suffix}"


def _load_onnx(job: Job, folder: Path) -> Run:
    session = onnx_session(_file(folder, "onnx"), job.threads)
    name = session.get_inputs()[0].name

    def run(x: Tensor) -> list[Tensor]:
        return [torch.from_numpy(output) for output in session.run(None, {name: x.resolve_neg().contiguous().numpy()})]

    return run


def _load_openvino(job: Job, folder: Path) -> Run:
    compiled, lock = compile_openvino(_file(folder, "onnx"), job.threads), threading.Lock()

    def run(x: Tensor) -> list[Tensor]:
        with lock:  # it has one request, which is busy while another thread's is answered
            outputs = compiled(x.resolve_neg().contiguous().numpy())
        return [torch.from_numpy(output) for output in outputs.to_tuple()]

    return run


def _load_aoti(job: Job, folder: Path) -> Run:
    return load_aoti(_file(folder, "aoti"))


def _lacks(form: str, *, compiler: bool = False) -> Callable[[Job], str | None]:
    """What asks whether a format's files can be written and run."""

    def lacks(job: Job) -> str | None:
        if len(job.inputs) != 1:
            return f"a file takes one tensor, and the model {len(job.inputs)}"
        if job.device.type != "cpu":
            return "it runs on the CPU only"
        if job.inputs[0].dtype is not torch.float32:
            return f"it takes float32, not {str(job.inputs[0].dtype).removeprefix('torch.')}"
        kind = FORMATS[form]
        for package in kind.packages:
            if importlib.util.find_spec(package) is None:
                return f"{package} is not installed: pip install 'tokenmix[{kind.extra}]'"
        return no_compiler() if compiler else None

    return lacks


EAGER = "pytorch"
WAYS: Mapping[str, Way] = {
    EAGER: Way(lambda job, folder: _leaves(job.model)),
    "reparameterized": Way(lambda job, folder: _leaves(job.merged)),
    "channels_last": Way(_channels_last, lacks=_no_maps),
    "onnxruntime": Way(_written("onnx", _load_onnx), _load_onnx, _lacks("onnx")),
    "openvino": Way(_written("onnx", _load_openvino), _load_openvino, _lacks("openvino")),
    "aoti": Way(_written("aoti", _load_aoti), _load_aoti, _lacks("aoti", compiler=True), slow=True),
    "frozen": Way(_frozen, lacks=_no_code, slow=True),
}
