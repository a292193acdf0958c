"""Maps that training does not keep: the backward pass makes them anew from what their makers keep.

PyTorch keeps the inputs of a norm, of the activation behind it and of the convolution behind that: three maps of one
size. The last two follow from the first one by cheap passes. Modules are called as always, so that their hooks run and
any of them may be another one; only what autograd saves differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from tokenmix.ops.dispatch import situation
from tokenmix.ops.internals import saved

Make = Callable[[], Tensor]


def in_turn(x: Tensor, *steps: Callable[[Tensor], Any]) -> Any:
    """``x`` through all steps, none of which keeps its input where `without_keeping` can do without it."""
    for step in steps:
        x = without_keeping(x, step)
    return x


def without_keeping(x: Tensor, step: Callable[[Tensor], Any]) -> Any:
    """``step(x)``, for whose backward pass ``x`` is made anew where a norm, an activation or a product has made it.

    A ReLU of such an ``x`` does not keep its output either. Not for use under gradient checkpointing, where a node's
    tensors can be read once only.

    Args:
        x: Any tensor.
        step: A module or function that keeps ``x`` as it is, or parts of it; other copies of it are kept as usual.
    """
    if isinstance(step, nn.Conv2d) and x.dtype == torch.float32 and situation(x).autocast:
        x = x.to(torch.get_autocast_dtype(x.device.type))  # else the convolution keeps a copy of its own
    make = _maker(x.grad_fn, x)
    if make is None:
        return step(x)
    kept: list[_Kept] = []
    memory, whole = _memory(x), _Remade(x, make)

    def pack(tensor: Tensor) -> _Kept:  # autograd keeps it too: it must not hold the map
        kept.append(_Kept(tensor))
        kept[-1].replace(memory, whole)
        return kept[-1]

    with saved_tensors_hooks(pack, _Kept.get):
        y = step(x)
    node: Any = getattr(y, "grad_fn", None)
    if type(node).__name__ == "ReluBackward0" and node.next_functions[0][0] is x.grad_fn:
        whole = _Remade(y, lambda: F.relu(make()))
        for each in kept:
            each.replace(_memory(y), whole)
    return y


class _Remade:
    """A tensor that is made when the backward pass asks for it, once for all that need it, and goes with the last."""

    def __init__(self, like: Tensor, make: Make) -> None:
        self.make, self.layout, self.device = make, (like.size(), like.stride()), like.device.type
        self.made: Tensor | None = None

    def get(self) -> Tensor:
        if self.made is None:
            with torch.no_grad(), torch.autocast(self.device, enabled=False):
                made = self.make()
                if made.stride() != self.layout[1]:
                    made = torch.empty_strided(*self.layout, dtype=made.dtype, device=made.device).copy_(made)
                self.made = made
        return self.made


class _Kept:
    """What autograd keeps of a tensor: itself, or where it lies in one that is made anew."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor: Tensor | None = tensor.detach()  # an output would hold the node that keeps it
        self.version = tensor._version
        self.place = tensor.size(), tensor.stride(), tensor.storage_offset()

    def replace(self, memory: tuple[int, torch.dtype], remade: _Remade) -> None:
        """Keep ``remade`` instead of the tensor if that lies in this memory."""
        if self.tensor is not None and _memory(self.tensor) == memory:
            self.tensor, self.remade = None, remade

    def get(self) -> Tensor:
        if self.tensor is None:
            return self.remade.get().as_strided(*self.place)
        if self.tensor._version != self.version:
            raise RuntimeError("a tensor that the backward pass needs was modified by an in-place operation")
        return self.tensor


def _memory(tensor: Tensor) -> tuple[int, torch.dtype]:
    return tensor.untyped_storage().data_ptr(), tensor.dtype


def _maker(node: Any, like: Tensor) -> Make | None:
    """How the backward pass can make anew what this node made, or None. Only then is read what the node keeps."""
    kind = type(node).__name__
    if kind in ("NativeBatchNormBackward0", "CudnnBatchNormBackward0"):
        return _norm_maker(node)
    if kind == "GeluBackward0":
        return lambda: F.gelu(saved(node, "self"), approximate=saved(node, "approximate"))
    if kind == "SiluBackward0":
        return lambda: F.silu(saved(node, "self"))
    if kind == "ReluBackward0":
        return lambda: saved(node, "result")
    if kind == "MulBackward0" and all(edge is not None for edge, _ in node.next_functions):  # else it keeps one factor
        return lambda: saved(node, "self") * saved(node, "other")
    if kind in ("ToCopyBackward0", "PermuteBackward0"):
        before, dims = _maker(node.next_functions[0][0], like), saved(node, "dims")
        device, dtype = like.device, like.dtype
        if before is not None:
            return lambda: before().to(device, dtype) if dims is None else before().permute(dims)
    return None


def _norm_maker(node: Any) -> Make | None:
    weight, bias = (getattr(edge, "variable", None) for edge, _ in node.next_functions[1:3])
    if weight is None or bias is None:  # frozen or none: the node does not say which
        return None

    def make() -> Tensor:
        if saved(node, "training"):
            mean, var, eps = saved(node, "result1"), saved(node, "result2").pow(-2), 0.0
        else:
            mean, var, eps = saved(node, "running_mean"), saved(node, "running_var"), saved(node, "eps")
        # Not torch.nn.functional's, which in torch 2.11 wants an eps above zero.
        return torch.batch_norm(saved(node, "input"), weight, bias, mean, var, False, 0.0, eps, False)

    return make


def full_precision(backward: Callable[..., Any]) -> Callable[..., Any]:
    """A backward pass that computes in the types of what was saved also where it is called under autocast."""

    @wraps(backward)
    def outside(ctx: Any, *grads: Tensor) -> Any:
        with torch.autocast(grads[0].device.type, enabled=False):
            return backward(ctx, *grads)

    return outside


def differentiated(
    function: Callable[..., Any], inputs: Sequence[Any], needs: Sequence[bool], grads: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """What the backward pass of a function returns where its gradients shall have gradients: PyTorch differentiates.

    Args:
        function: The same in PyTorch's own operations; returns one tensor or several.
        inputs: As they were saved.
        needs: Of which inputs a gradient is needed.
        grads: Of the outputs.
    """
    wanted = [tensor for tensor, need in zip(inputs, needs, strict=True) if need]
    found = iter(torch.autograd.grad(function(*inputs), wanted, grads, create_graph=True))
    return tuple(next(found) if need else None for need in needs)
