"""`tokenmix.compile`: tries the ways to run a model, measures those that compute the same, and keeps the fastest."""

from __future__ import annotations

import copy
import datetime
import os
import shutil
import tempfile
import time
import warnings
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from tokenmix.bench.folded import inference_form
from tokenmix.bench.interleaved import interleave
from tokenmix.bench.runtimes import waiting
from tokenmix.compilation import cache as kept
from tokenmix.compilation.choice import Candidate, Choice, choose
from tokenmix.compilation.ways import EAGER, WAYS, Job, Run
from tokenmix.runtime_names import runtime_name
from tokenmix_runtime.limits import check_number
from tokenmix_runtime.names import unknown

_MEASURED = 0.25  # the share of the time that is for measuring; the rest is for starting candidates
_TIME_IS_UP = "the time was used up"


class CompiledModel(nn.Module):
    """A model in the fastest way that was found; called as the model is, it returns what the model returns.

    It is a snapshot in evaluation mode, without gradients. Inputs of another shape, type or device than it was made for
    run in eager PyTorch, which a warning tells once for each kind; so do all in a process that was forked from this.
    Other attributes and methods are those of the snapshot, in eager PyTorch.

    Attributes:
        choice: What was chosen and why; ``print(fast.choice)``.
        eager: The snapshot in eager PyTorch.

    Raises:
        ValueError: A gradient is wanted, or it is to be trained, moved or loaded: it stays what it is.

    Examples:
        >>> fast = compile(nn.GELU(), torch.zeros(1, 8), seconds=1, candidates=["pytorch"], cache=False)
        >>> fast(torch.ones(1, 8)).shape, fast.training
        (torch.Size([1, 8]), False)
    """

    def __init__(self, eager: nn.Module, run: Run, choice: Choice, job: Job, spec: TreeSpec) -> None:
        super().__init__()
        self.eager, self.choice = eager.eval(), choice
        self.training = False
        self._run, self._spec = run, spec
        self._like = [_kind(x) for x in job.inputs]
        self._open_batch, self._process, self._told = job.open_batch, os.getpid(), set[str]()

    def forward(self, *inputs: Tensor) -> Any:
        """The model's inputs -> its output.

        Raises:
            ValueError: A gradient is wanted.
        """
        if torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in inputs):
            raise ValueError("a compiled model has no gradients: use the model itself, or detach the input")
        with torch.no_grad():
            if reason := self._unlike(inputs):
                if reason not in self._told:
                    self._told.add(reason)
                    warnings.warn(f"run in eager PyTorch, which is slower: {reason}", stacklevel=4)
                return self.eager(*inputs)
            return tree_unflatten(self._run(*inputs), self._spec)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "eager":
                raise
            return getattr(self.eager, name)

    def train(self, mode: bool = True) -> CompiledModel:
        """It stays in evaluation mode.

        Raises:
            ValueError: Training is asked for.
        """
        if mode:
            raise ValueError("a compiled model cannot be trained: train the model, and compile it again")
        return self

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """It keeps the weights that it was compiled with.

        Raises:
            ValueError: Always.
        """
        raise ValueError("a compiled model keeps its weights: load them into the model, and compile it again")

    def _apply(self, fn: Any, recurse: bool = True) -> CompiledModel:
        raise ValueError("a compiled model stays where and what it is: move or convert the model, and compile it again")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.choice.name}, for {self.choice.holds_for})"

    def _unlike(self, inputs: Sequence[Any]) -> str:
        """Why these are not what was compiled for; empty if they are."""
        if os.getpid() != self._process:
            return "this process was forked after the compilation"
        if len(inputs) != len(self._like) or any(not isinstance(x, Tensor) for x in inputs):
            return f"it was compiled for {self.choice.holds_for}"
        for x, (shape, dtype, device) in zip(inputs, self._like, strict=True):
            same = x.shape[1:] == shape[1:] if self._open_batch and x.ndim == len(shape) > 0 else x.shape == shape
            if not same or x.dtype is not dtype or x.device != device:
                return f"it was compiled for {self.choice.holds_for}, not {_told(_kind(x))}"
        return ""


def compile(
    model: nn.Module,
    example: Tensor | Sequence[Tensor],
    *,
    seconds: float = 60.0,
    candidates: Sequence[str] | None = None,
    dynamic_batch: bool = False,
    tolerance: float = 1e-4,
    cache: str | os.PathLike[str] | bool = True,
    fresh: bool = False,
    log: Callable[[str], None] = lambda line: None,
) -> CompiledModel:
    """The fastest verified way to run a model on this machine, with as many threads as PyTorch has.

    Tried are the model as it is, with merged branches and folded norms, in channels_last, in ONNX Runtime, in OpenVINO,
    as a package of native code by AOTInductor, and by ``torch.compile`` with frozen weights. Each must compute what the
    model computes, for the example and for noise of its size. What is not installed, or fails, is left out, and the
    choice says why. The choice and its files are kept for the next call with this model, machine and versions.

    Args:
        model: Any module of tensors in, tensors out, in any structure; not changed. It is compiled as it is in
            evaluation mode; whatever happens to it later happens to it alone.
        example: Its input, or its inputs: (N, ...) of the size that it will be run with, on the device for that.
        seconds: For everything. A candidate that takes a minute to compile is begun while time is left, then finished.
        candidates: Names of `tokenmix.compilation.ways.WAYS`; None: all. ``"pytorch"``, the model as it is, is always
            among them.
        dynamic_batch: Take batches of any size; measured is the example's.
        tolerance: The largest difference of an output from the model's, relative to the largest value of that output.
        cache: The folder of choices that were made before; False: none; True: ``compiled`` in ``TOKENMIX_DATA``, by
            default in ``~/.cache/tokenmix``.
        fresh: Measure anew, whatever the folder holds.
        log: Told what is done.

    Raises:
        ValueError: A candidate is unknown, a number is wrong, the model returns something else than tensors, or others
            can write in the folder.

    Examples:
        >>> import tokenmix, torch
        >>> fast = tokenmix.compile(model, torch.randn(1, 3, 224, 224))  # doctest: +SKIP
        >>> print(fast.choice)  # doctest: +SKIP
        >>> logits = fast(images)  # doctest: +SKIP
    """
    names = _names(candidates)
    check_number("seconds", seconds)
    check_number("tolerance", tolerance)
    inputs = (example,) if isinstance(example, Tensor) else tuple(example)
    if not inputs or not all(isinstance(x, Tensor) for x in inputs):
        raise ValueError("the example must be a tensor, or a sequence of tensors")
    inputs = tuple(x.detach() for x in inputs)
    if dynamic_batch and (len(inputs) > 1 or not inputs[0].ndim or not len(inputs[0])):
        raise ValueError("dynamic_batch needs one input with a batch as its first axis")
    with torch.inference_mode(False), torch.no_grad():  # weights that are copied in it count no changes
        eager = copy.deepcopy(model).eval()
        leaves, spec = tree_flatten(eager(*inputs))
        if not leaves or not all(isinstance(leaf, Tensor) for leaf in leaves):
            raise ValueError(f"{type(model).__name__} must return tensors, in any structure, and nothing else")
        try:
            merged = inference_form(eager, *inputs)
        except Exception as error:  # whatever a model's own way to merge itself raises
            log(f"taken as it is, since its branches cannot be merged: {_first_line(error)}")
            merged = eager
        job = Job(eager, merged, inputs, len(leaves), dynamic_batch, torch.get_num_threads())
        trials = [(x, tree_flatten(eager(*x))[0]) for x in _trials(inputs, dynamic_batch)]
        search = _Search(job, names, trials, seconds, tolerance, log)
        root = None if cache is False else _private(kept.default_folder() if cache is True else Path(cache))
        if root is None:
            folder = tempfile.mkdtemp(prefix="tokenmix-")
            weakref.finalize(eager, shutil.rmtree, folder, ignore_errors=True)  # what is loaded may be read later
            run, choice, _ = search.anew(Path(folder))
            return CompiledModel(eager, run, choice, job, spec)
        settings = {"candidates": names, "dynamic_batch": dynamic_batch, "tolerance": tolerance}
        entry = root / kept.key_of(eager, inputs, settings)
        with FileLock(root / f".{entry.name}.lock"):
            found = None if fresh else search.again(entry)
            if found is None:
                prefix = f".{entry.name}."
                with tempfile.TemporaryDirectory(".tmp", prefix, root, ignore_cleanup_errors=True) as work:
                    run, choice, files = search.anew(Path(work))
                    kept.save(entry, choice, seconds, files)
                    found = run, choice
    return CompiledModel(eager, *found, job, spec)


def _private(folder: Path) -> Path | None:
    """The folder, made for this user alone; None, with a warning, where it cannot be made or written in.

    Raises:
        ValueError: Others can write in it.
    """
    try:
        kept.make_private(folder)
        if os.access(folder, os.W_OK):
            return folder
        reason = f"{folder} is read-only"
    except OSError as error:
        reason = str(error)
    warnings.warn(f"the choice cannot be kept for the next time: {reason}", stacklevel=3)
    return None


class _Search:
    """The candidates of one call."""

    def __init__(
        self,
        job: Job,
        names: Sequence[str],
        trials: Sequence[tuple[tuple[Tensor, ...], list[Tensor]]],
        seconds: float,
        tolerance: float,
        log: Callable[[str], None],
    ) -> None:
        self.job, self.names, self.trials, self.seconds, self.tolerance = job, names, trials, seconds, tolerance
        self.log = log

    def again(self, entry: Path) -> tuple[Run, Choice] | None:
        """A choice that was kept, if it still computes the same and this call gives no more time; else None."""
        try:
            found = kept.load(entry)
            if found is None:
                return None
            choice, seconds = found
            if seconds < self.seconds and any(one.reason.startswith(_TIME_IS_UP) for one in choice.candidates):
                return None
            way = WAYS[choice.name]
            run = (way.load or way.start)(self.job, entry)
            difference = self._difference(run)
            if not difference <= self.tolerance and choice.name != EAGER:
                raise ValueError(f"{runtime_name(choice.name)} now differs by {difference:.1e}")
        except Exception as error:  # whatever a runtime raises of a file
            warnings.warn(f"the kept choice cannot be used, measuring anew: {_first_line(error)}", stacklevel=3)
            return None
        self.log(f"from the cache: {choice.why}")
        return run, choice

    def anew(self, folder: Path) -> tuple[Run, Choice, Path]:
        """Start all candidates, time those that compute the same, and take one; with the folder of its files."""
        begin = time.perf_counter()
        rows: dict[str, Candidate] = {}
        runs: dict[str, Run] = {}
        for name in self.names:
            (folder / name).mkdir()
            late = time.perf_counter() - begin > (1 - _MEASURED) * self.seconds
            rows[name], run = self._start(name, folder / name, late=late)
            self.log(f"{runtime_name(name)}: {rows[name].reason or f'started in {rows[name].start_s:.1f} s'}")
            if run is not None:
                runs[name] = run
        left = self.seconds - (time.perf_counter() - begin)
        calls = {name: waiting(partial(run, *self.job.inputs), self.job.device) for name, run in runs.items()}
        self.log(f"timing {len(calls)} candidates in turns")
        timings = interleave(calls, max_seconds=max(left, _MEASURED * self.seconds))
        measured = tuple(row.timed(timings[name]) if name in timings else row for name, row in rows.items())
        name, why = choose(measured)
        holds_for = " and ".join(_told(_kind(x), self.job.open_batch) for x in self.job.inputs)
        now = datetime.datetime.now().isoformat(timespec="seconds")
        self.log(why)
        return runs[name], Choice(name, why, measured, holds_for, now), folder / name

    def _start(self, name: str, folder: Path, *, late: bool) -> tuple[Candidate, Run | None]:
        way = WAYS[name]
        if reason := way.lacks(self.job):
            return Candidate(name, reason=reason), None
        if late and name != EAGER:
            return Candidate(name, reason=f"{_TIME_IS_UP}: seconds={2 * self.seconds:g} is more"), None
        begin, difference = time.perf_counter(), None
        try:
            run = way.start(self.job, folder)
            difference = self._difference(run)
        except Exception as error:  # whatever exporters, compilers and runtimes raise
            return Candidate(name, reason=_first_line(error)), None
        row = Candidate(name, difference=difference, start_s=time.perf_counter() - begin)
        if difference <= self.tolerance or name == EAGER:
            return row, run
        return Candidate(**{**vars(row), "reason": f"it differs by more than {self.tolerance:g}"}), None

    def _difference(self, run: Run) -> float:
        return max(difference(run(*inputs), expected) for inputs, expected in self.trials)


def difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference of an output, relative to the largest value that it should have; infinite if not alike.

    Shapes, types, whole numbers and what is not finite must be the same.
    """
    if len(found) != len(expected):
        return float("inf")
    return max(_largest(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def _largest(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape or found.dtype is not expected.dtype:
        return float("inf")
    if not expected.is_floating_point():
        return 0.0 if torch.equal(found, expected) else float("inf")
    finite = expected.isfinite()
    odd, wanted = found[~finite].nan_to_num(), expected[~finite].nan_to_num()
    if not torch.equal(found.isfinite(), finite) or not torch.equal(odd, wanted):
        return float("inf")
    if not finite.any():
        return 0.0
    scale = expected[finite].abs().max().item() or 1.0
    return (found[finite] - expected[finite]).abs().max().item() / scale


def _trials(inputs: tuple[Tensor, ...], open_batch: bool) -> list[tuple[Tensor, ...]]:
    """The inputs to compare with: the examples; noise of their size; other numbers of samples where these are open."""
    generator = torch.Generator().manual_seed(0)
    found = [inputs]
    if all(x.is_floating_point() and x.numel() for x in inputs):
        found.append(tuple(_noise(x, generator) for x in inputs))
    if open_batch:
        (x,) = inputs
        found += [(x[:1],), (torch.cat([x, x[:1], x[:1]]),)]
    return found


def _noise(x: Tensor, generator: torch.Generator) -> Tensor:
    spread = x.float().std().nan_to_num().item() if x.numel() > 1 else 0.0
    noise = torch.randn(x.shape, generator=generator) * (spread or 1.0) + x.float().mean().nan_to_num().item()
    return noise.to(x)


def _names(candidates: Sequence[str] | None) -> list[str]:
    for name in candidates or ():
        if name not in WAYS:
            raise ValueError(unknown("candidate", name, WAYS))
    return [name for name in WAYS if candidates is None or name in candidates or name == EAGER]


def _kind(x: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    return x.shape, x.dtype, x.device


def _told(kind: tuple[torch.Size, torch.dtype, torch.device], open_batch: bool = False) -> str:
    shape, dtype, device = kind
    sides = ["any", *shape[1:]] if open_batch else shape
    return f"{str(dtype).removeprefix('torch.')} of {' x '.join(map(str, sides))} on {device}"


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
