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
from typing import Any, TypeVar

import torch
from torch import Tensor

from tokenmix.ops.internals import is_any_autocast, is_checkpointed, is_observed

PLAIN = (Tensor, torch.nn.Parameter)
Function = TypeVar("Function", bound=Callable[..., Any])
_definitions_only: ContextVar[bool] = ContextVar("definitions_only", default=False)


class Situation:
    """What happens to a tensor; all but the mode is looked up when a form asks for it.

    Attributes:
        mode: ``"inference"`` or ``"training"`` (without or with gradients) where PyTorch runs each operation at once;
            ``"compiling"`` and ``"exporting"`` by torch.compile and torch.export; ``"tracing"`` by torch.fx or
            torch.jit; ``"observed"`` where something else looks at each operation (counters, torch.func, fake tensors),
            or within `definitions`.
        eager: PyTorch runs each operation at once, and nobody looks.
    """

    __slots__ = ("eager", "mode", "x")

    def __init__(self, mode: str, x: Any) -> None:
        self.mode, self.x = mode, x
        self.eager = mode == "inference" or mode == "training"

    @property
    def device(self) -> str:
        """Its type, ``"cpu"`` or ``"cuda"``."""
        return "cpu" if self.x.is_cpu else self.x.device.type

    @property
    def dtype(self) -> torch.dtype:
        """Of the tensor."""
        return self.x.dtype

    @property
    def channels_last(self) -> bool:
        """Its memory is NHWC and not also NCHW."""
        return is_channels_last(self.x)

    @property
    def autocast(self) -> bool:
        """Autocast would change the precision of operations on it."""
        if self.mode == "tracing" or (self.eager and not is_any_autocast()):  # the name of a device costs a microsecond
            return False
        return self.device != "meta" and torch.is_autocast_enabled(self.device)

    @property
    def checkpointed(self) -> bool:
        """In training, torch.utils.checkpoint keeps nothing of this and computes it once more."""
        return is_checkpointed()


def situation(x: Tensor) -> Situation:
    """What happens to ``x`` now: the one place that asks."""
    if torch.compiler.is_compiling():
        plain = torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling()
        return Situation("exporting" if plain else "compiling", x)
    if not isinstance(x, Tensor) or torch.jit.is_tracing():
        return Situation("tracing", x)
    if type(x) not in PLAIN or is_observed() or _definitions_only.get():
        return Situation("observed", x)
    return Situation("training" if torch.is_grad_enabled() else "inference", x)


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
    return now.mode == "training" and not now.checkpointed and now.device != "meta"


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
    # Dynamo calls no `staticmethod`, which is what a form's ``fits`` is that stands in a class.
    choices = [(inspect.unwrap(form.fits), form.compute) for form in forms]

    def decorate(formula: Function) -> Function:
        names = list(inspect.signature(formula).parameters)
        first = int(names[0] == "self")
        name = names[first]

        # Only what the function closes over: its globals are the definition's, see `_with_source_of`.
        def choose_form(*args: Any, **kwargs: Any) -> Any:
            now = look(args[first] if len(args) > first else kwargs[name])
            if precise and now.autocast:
                with autocast(now.device, enabled=False):
                    return choose_form(*args, **kwargs)
            for fits, compute in choices:
                if fits(now, *args, **kwargs):
                    return compute(*args, **kwargs)
            return formula(*args, **kwargs)

        look, autocast = situation, torch.autocast
        OPERATORS[f"{formula.__module__}.{formula.__qualname__}"] = Operator(formula, forms)
        return _with_source_of(formula, choose_form)

    return decorate


def definition(function: Callable[..., Any]) -> Callable[..., Any]:
    """The formula of an operator."""
    return inspect.unwrap(function)


def _with_source_of(formula: Function, choose_form: Any) -> Function:
    """``choose_form``, which is the definition to whoever reads its source: so TorchScript does.

    It takes the source of what ``__wrapped__`` leads to, and the names in it from the function's globals.
    """
    names = formula.__globals__
    function = types.FunctionType(choose_form.__code__, names, formula.__name__, None, choose_form.__closure__)
    return functools.update_wrapper(function, formula)  # type: ignore[return-value]
