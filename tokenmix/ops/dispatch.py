"""Which form of an operator computes.

An operator is a function of tensors, or a layer's ``forward``, that is written once as its formula: the definition.
Beside it may stand forms that are faster, or that keep less for the backward pass, where something particular happens:

    @operator(Form("rows", _on_rows, fits=lambda now, x: now.mode == "inference" and now.channels_last))
    def gates(x: Tensor) -> Tensor:
        ...  # the formula

`situation` says what happens, a form says what it fits, the first form that fits computes. Hooks, and whoever replaces
a layer by another one, do not matter. Compilers and tracers read the definition unless a form is for them, TorchScript
always.

`OPERATORS` lists every operator and its forms; the tests hold each form against the definition.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import types
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from tokenmix.ops.internals import is_checkpointed, is_observed

PLAIN = (Tensor, torch.nn.Parameter)
Function = TypeVar("Function", bound=Callable[..., Any])
_definitions_only: ContextVar[bool] = ContextVar("definitions_only", default=False)


class Situation(NamedTuple):
    """What happens to an operator's first tensor.

    Attributes:
        mode: ``"inference"`` or ``"training"`` (without or with gradients) where PyTorch runs each operation at once;
            ``"compiling"`` and ``"exporting"`` by torch.compile and torch.export; ``"tracing"`` by torch.fx or
            torch.jit; ``"observed"`` where something else looks at each operation (counters, torch.func, fake tensors),
            or within `definitions`.
        device: Its type, ``"cpu"`` or ``"cuda"``; empty while tracing.
        dtype: Of the tensor; None while tracing.
        channels_last: Its memory is NHWC and not also NCHW.
        autocast: Autocast would change the precision of operations on it.
        checkpointed: In training, torch.utils.checkpoint keeps nothing of this and computes it once more.
    """

    mode: str
    device: str = ""
    dtype: torch.dtype | None = None
    channels_last: bool = False
    autocast: bool = False
    checkpointed: bool = False

    @property
    def eager(self) -> bool:
        """PyTorch runs each operation at once, and nobody looks."""
        return self.mode in ("inference", "training")


def situation(x: Tensor) -> Situation:
    """What happens to ``x`` now: the one place that asks."""
    if torch.compiler.is_compiling():
        plain = torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling()
        mode = "exporting" if plain else "compiling"
        return Situation(mode, x.device.type, x.dtype, autocast=_under_autocast(x))
    if not isinstance(x, Tensor):
        return Situation("tracing")
    if torch.jit.is_tracing():
        mode = "tracing"
    elif type(x) not in PLAIN or is_observed() or _definitions_only.get():
        mode = "observed"
    else:
        mode = "training" if torch.is_grad_enabled() else "inference"
    checkpointed = mode == "training" and is_checkpointed()
    return Situation(mode, x.device.type, x.dtype, is_channels_last(x), _under_autocast(x), checkpointed)


def is_channels_last(x: Tensor) -> bool:
    """Whether a map's memory is NHWC and not also NCHW."""
    return x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


@contextlib.contextmanager
def definitions() -> Iterator[None]:
    """Within it operators compute their definitions, to compare with; a backward pass follows its forward pass."""
    token = _definitions_only.set(True)
    try:
        yield
    finally:
        _definitions_only.reset(token)


def keeps_less(now: Situation, *args: Any) -> bool:
    """Where a form fits that keeps less for the backward pass."""
    return now.mode == "training" and not now.checkpointed


@dataclass(frozen=True)
class Form:
    """Another way to compute an operator.

    Attributes:
        name: What is special about it.
        compute: Called with the operator's arguments.
        fits: Called with the `Situation` and the operator's arguments; by default `keeps_less`.
    """

    name: str
    compute: Callable[..., Any]
    fits: Callable[..., bool] = keeps_less


@dataclass(frozen=True)
class Operator:
    """A formula and the forms of it, in the order in which they are asked."""

    definition: Callable[..., Any]
    forms: tuple[Form, ...]


OPERATORS: dict[str, Operator] = {}
"""Every operator by its qualified name, such as ``"tokenmix.ops.convolution.conv_act"``."""


def operator(*forms: Form, precise: bool = False) -> Callable[[Function], Function]:
    """Decorate a definition: calls then go to the first form that fits, else to the definition.

    Args:
        forms: In the order of preference.
        precise: Compute outside of autocast, in the precision of the tensors.
    """

    def decorate(formula: Function) -> Function:
        names = list(inspect.signature(formula).parameters)
        first = int(names[0] == "self")

        def choose_form(*args: Any, **kwargs: Any) -> Any:
            now = situation(args[first] if len(args) > first else kwargs[names[first]])
            outside = torch.autocast(now.device, enabled=False) if precise and now.autocast else None
            with outside or contextlib.nullcontext():
                for form in forms:
                    if form.fits(now, *args, **kwargs):
                        return form.compute(*args, **kwargs)
                return formula(*args, **kwargs)

        OPERATORS[f"{formula.__module__}.{formula.__qualname__}"] = Operator(formula, forms)
        return _with_source_of(formula, choose_form)

    return decorate


def definition(function: Callable[..., Any]) -> Callable[..., Any]:
    """The formula of an operator."""
    return inspect.unwrap(function)


def _with_source_of(formula: Function, choose_form: Callable[..., Any]) -> Function:
    """A function that calls ``choose_form``, and is the definition to whoever reads its source: so TorchScript does.

    It takes the source of what ``__wrapped__`` leads to, and the names in it from the function's globals.
    """

    def run(*args: Any, **kwargs: Any) -> Any:
        return choose_form(*args, **kwargs)

    names = formula.__globals__  # type: ignore[attr-defined]
    function = types.FunctionType(run.__code__, names, formula.__name__, None, run.__closure__)
    return functools.update_wrapper(function, formula)  # type: ignore[return-value]


def _under_autocast(x: Tensor) -> bool:
    return x.device.type != "meta" and torch.is_autocast_enabled(x.device.type)
