"""Modules one after the other, of whose maps training keeps only those that the backward pass cannot make anew."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from tokenmix.ops.fourier import cacheable
from tokenmix.ops.recompute import Conv, Norm, convolve_activated, is_product

_keeps_all: ContextVar[bool] = ContextVar("keeps_all", default=False)
_ACTS: dict[type[nn.Module], str] = {nn.SiLU: "silu", nn.ReLU: "relu", nn.GELU: "gelu"}


@contextlib.contextmanager
def keep_all() -> Iterator[None]:
    """Within it, forward passes keep for the backward pass what PyTorch keeps; to compare with."""
    token = _keeps_all.set(True)
    try:
        yield
    finally:
        _keeps_all.reset(token)


def recomputes(x: Tensor) -> bool:
    """Whether a forward pass of ``x`` is for a backward pass, and nobody traces or transforms what happens.

    Inductor, torch.func, TorchScript and counters see the modules as they are.
    """
    return (
        torch.is_grad_enabled()
        and cacheable(x)
        and x.ndim == 4
        and x.device.type in ("cpu", "cuda")
        and x.is_floating_point()
        and x.numel() > 0
        and not _keeps_all.get()
        and torch._C._len_torch_dispatch_stack() == 0
        and not torch._C._are_functorch_transforms_active()
    )


def is_silent(module: nn.Module) -> bool:
    """Whether a call of ``module`` runs its class's ``forward`` and nothing else: no hooks."""
    hooks = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    return not hooks and "forward" not in vars(module)


def run(modules: Iterable[nn.Module], x: Tensor) -> Tensor:
    """``(B, C, H, W)`` through all modules in turn.

    In training a convolution keeps, instead of its input, the input of the batch norm and the activation before it. A
    module that is such a chain itself says so by a method ``links()``, its parts in order; a subclass with a
    ``forward`` of its own is not asked. One that begins with convolutions may have a method ``after_norm(norm, x)``
    that computes ``self(norm(x))``. Modules with hooks are called as they are.
    """
    if not recomputes(x):
        for module in modules:
            x = module(x)
        return x
    x, pending = _read(modules, x)
    return pending.settle(x)


def then_convolve(modules: Iterable[nn.Module], x: Tensor, convs: Sequence[Conv]) -> tuple[Tensor, ...]:
    """The same, then several convolutions of the result; for an ``x`` that `recomputes`."""
    x, pending = _read(modules, x)
    return pending.compute(x, convs)


def _read(modules: Iterable[nn.Module], x: Tensor) -> tuple[Tensor, _Pending]:
    pending = _Pending()
    for module in _leaves(modules):
        x = pending.read(module, x)
    return x, pending


class _Pending:
    """A norm and an activation that were read and not yet computed."""

    def __init__(self) -> None:
        self.norm: nn.Module | None = None
        self.act: nn.Module | None = None

    def read(self, module: nn.Module, x: Tensor) -> Tensor:
        """Note the module, or compute everything up to it."""
        if _is_conv(module) and (self.norm or self.act or is_product(x, _conv(module))):
            return self.compute(x, [_conv(module)])[0]
        if self.act is None and act_kind(module):
            self.act = module
            return x
        if self.norm and "after_norm" in vars(type(module)) and is_silent(module):
            norm, self.norm = self.norm, None
            return module.after_norm(norm, x)  # type: ignore[operator]
        x = self.settle(x)
        if _is_norm(module, x):
            self.norm = module
        elif act_kind(module):
            self.act = module
        else:
            x = module(x)
        return x

    def settle(self, x: Tensor) -> Tensor:
        """Compute what is pending."""
        if self.act is not None and (self.norm is not None or act_kind(self.act) != "relu"):  # a ReLU keeps its output
            return self.compute(x, [])[0]
        for module in (self.norm, self.act):
            if module is not None:
                x = module(x)
        self.norm = self.act = None
        return x

    def compute(self, x: Tensor, convs: Sequence[Conv]) -> tuple[Tensor, ...]:
        """What is pending and these convolutions of it."""
        norm = None if self.norm is None else _norm(self.norm)
        act = "" if self.act is None else act_kind(self.act) or ""
        self.norm = self.act = None
        return convolve_activated(x, norm, act, convs)


def _leaves(modules: Iterable[nn.Module]) -> Iterator[nn.Module]:
    module: Any
    for module in modules:
        kind = type(module)
        if kind is nn.Identity and is_silent(module):
            continue
        if kind is nn.Sequential and is_silent(module):
            yield from _leaves(module)
        elif "links" in vars(kind) and is_silent(module):
            yield from _leaves(module.links())
        else:
            yield module


def act_kind(module: nn.Module) -> str | None:
    """The name of an activation that `convolve_activated` knows."""
    exact = getattr(module, "approximate", "none") == "none"
    return _ACTS.get(type(module)) if exact and is_silent(module) else None


def _is_norm(module: Any, x: Tensor) -> bool:
    return (
        type(module) is nn.BatchNorm2d
        and is_silent(module)
        and module.running_mean is not None
        and module.momentum is not None
        and module.num_features == x.size(1)
        and x.numel() > x.size(1)  # else it is an error in training, for which the module has words
    )


def _norm(module: Any) -> Norm:
    if module.training:
        module.num_batches_tracked.add_(1)
    given = module.weight, module.bias, module.running_mean, module.running_var
    return Norm(*given, module.training, module.momentum, module.eps)


def _is_conv(module: Any) -> bool:
    plain = type(module) is nn.Conv2d and is_silent(module)
    return plain and module.padding_mode == "zeros" and not isinstance(module.padding, str)


def _conv(module: Any) -> Conv:
    return Conv(module.weight, module.bias, module.stride, module.padding, module.dilation, module.groups)
