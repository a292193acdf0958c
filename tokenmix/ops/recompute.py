"""Convolutions of an activated and normalised map, of which only the map is kept for the backward pass.

PyTorch keeps the input of every norm, activation and convolution: three maps of one size. The last two follow from the
first one by cheap passes, so the backward pass makes them anew. What the forward pass need not keep it overwrites, and
so does the backward pass; on a CPU, where fresh memory costs as much as the arithmetic on it, that pays for the passes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tokenmix.ops.fourier import under_autocast
from tokenmix.ops.layout import as_stored, is_channels_last

# Of a map that are made anew at a time: they stay in the processor's cache, and their memory is used again and again.
_PIECE_BYTES = 4 << 20


class Norm(NamedTuple):
    """A batch norm: its parameters, its running statistics (changed in training) and how it uses them."""

    weight: Tensor | None
    bias: Tensor | None
    mean: Tensor | None
    var: Tensor | None
    training: bool
    momentum: float
    eps: float


class Conv(NamedTuple):
    """A convolution: its parameters and the numbers of `torch.nn.functional.conv2d`."""

    weight: Tensor
    bias: Tensor | None
    stride: Sequence[int] = (1, 1)
    padding: Sequence[int] = (0, 0)
    dilation: Sequence[int] = (1, 1)
    groups: int = 1


def convolve_activated(x: Tensor, norm: Norm | None, act: str, convs: Sequence[Conv]) -> tuple[Tensor, ...]:
    """``conv(act(norm(x)))`` of each convolution, or ``act(norm(x))`` alone where there is none.

    It can be differentiated any number of times; from the second on as PyTorch does it, with everything kept.

    Args:
        x: (B, C, H, W).
        norm: Or None for none.
        act: ``"gelu"`` (exact), ``"silu"``, ``"relu"`` or ``""`` for none.
        convs: Each reads the activated map.
    """
    dtype = None
    if under_autocast(x) and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(x.device.type)
    settings = _Settings(
        None if norm is None else (norm.training, norm.momentum, norm.eps),
        act,
        tuple(conv[2:] for conv in convs),
        dtype,
    )
    given = (None,) * 4 if norm is None else norm[:4]
    parameters = [tensor for conv in convs for tensor in conv[:2]]
    with torch.autocast(x.device.type, enabled=False):  # the settings say what it would do
        return _Convolve.apply(settings, x, *given, *parameters)


class _Settings(NamedTuple):
    norm: tuple[bool, float, float] | None  # whether by the batch's statistics, momentum, eps
    act: str
    shapes: tuple[tuple[Any, ...], ...]  # stride, padding, dilation and groups of each convolution
    dtype: torch.dtype | None  # of the convolutions under autocast


def full_precision(backward: Callable[..., Any]) -> Callable[..., Any]:
    """A backward pass that computes in the types of what was saved also where it is called under autocast."""

    @wraps(backward)
    def outside(ctx, *grads: Tensor) -> Any:
        with torch.autocast(grads[0].device.type, enabled=False):
            return backward(ctx, *grads)

    return outside


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, settings: _Settings, x, weight, bias, running_mean, running_var, *parameters
    ) -> tuple[Tensor, ...]:
        mean = invstd = None
        inner = x
        if settings.norm is not None:
            training, momentum, eps = settings.norm
            inner, mean, invstd = torch.native_batch_norm(
                x, weight, bias, running_mean, running_var, training, momentum, eps
            )
            if not training:
                mean, invstd = running_mean.clone(), torch.rsqrt(running_var + eps)
        inner = _activated(inner, settings.act, inplace=inner is not x)
        ctx.settings = settings
        ctx.save_for_backward(x, weight, bias, mean, invstd, *parameters)
        if not settings.shapes:
            return (inner,)
        if settings.dtype is not None:
            inner = inner.to(settings.dtype)
        return tuple(_convolve(inner, conv) for conv in _convs(settings, parameters))

    @staticmethod
    @full_precision
    def backward(ctx, *grads: Any):
        settings = ctx.settings
        x, weight, bias, mean, invstd, *parameters = ctx.saved_tensors
        needs = ctx.needs_input_grad[1:]
        inputs = [x, weight, bias, None, None, *parameters]
        if torch.is_grad_enabled():  # the gradients shall have gradients
            return None, *differentiated(partial(_plain, settings, mean, invstd), inputs, needs, grads)
        results: list[Tensor | None] = [None] * len(inputs)
        before = partial(_normed, weight=weight, bias=bias, mean=mean, invstd=invstd)
        if settings.shapes:
            grad, results[5:] = _convs_backward(settings, x, before, parameters, grads, needs)
        else:
            grad = _act_backward(grads[0], before(x), settings.act)
        if settings.norm is not None and grad is not None:
            training, _, eps = settings.norm
            given = (None, None, mean, invstd) if training else (mean, invstd.pow(-2), None, None)
            grad, results[1], results[2] = torch.ops.aten.native_batch_norm_backward(
                grad, x, weight, *given, training, eps if training else 0.0, needs[:3]
            )
        return None, grad, *results[1:]


def _normed(x: Tensor, weight: Any, bias: Any, mean: Any, invstd: Any) -> Tensor:
    """What the activation read: the statistics are taken as running ones, so that it is one pass."""
    return x if mean is None else torch.batch_norm(x, weight, bias, mean, invstd.pow(-2), False, 0.0, 0.0, False)


def _convs_backward(
    settings: _Settings,
    x: Tensor,
    normed: Callable[[Tensor], Tensor],
    parameters: Sequence[Any],
    grads: Sequence[Tensor],
    needs: Sequence[bool],
) -> tuple[Tensor | None, list[Tensor | None]]:
    """The gradients of the norm's output and of the convolutions' parameters, some images at a time."""
    convs = _convs(settings, parameters)
    sums: list[Any] = [None] * len(parameters)
    result = torch.empty_like(x) if any(needs[:3]) else None
    images = len(x)
    if x.device.type == "cpu" and (settings.norm or settings.act):
        images = max(1, _PIECE_BYTES * images // (x.numel() * x.element_size()))
    for begin in range(0, len(x), images):
        piece = slice(begin, begin + images)
        before = normed(x[piece])
        inner = _activated(before, settings.act, inplace=False)
        if settings.dtype is not None:
            inner = inner.to(settings.dtype)
        to_inner: Any = None
        for i, conv in enumerate(convs):
            mask = [result is not None, needs[5 + 2 * i], needs[6 + 2 * i]]
            part, *found = _convolve_backward(grads[i][piece], inner, conv, mask)
            to_inner = part if to_inner is None else to_inner.add_(part)
            for at, value in zip((2 * i, 2 * i + 1), found, strict=True):
                sums[at] = value if sums[at] is None or value is None else sums[at].add_(value)
        if result is not None:
            _act_backward(to_inner.to(x.dtype), before, settings.act, out=result[piece])
    return result, sums


def _convs(settings: _Settings, parameters: Sequence[Any]) -> list[Conv]:
    """The convolutions, their parameters in the type in which they are computed."""
    convs = []
    for i, shape in enumerate(settings.shapes):
        weight, bias = parameters[2 * i : 2 * i + 2]
        if settings.dtype is not None:
            weight, bias = weight.to(settings.dtype), None if bias is None else bias.to(settings.dtype)
        convs.append(Conv(weight, bias, *shape))
    return convs


def _activated(x: Tensor, act: str, *, inplace: bool) -> Tensor:
    flat = as_stored(x)
    if act == "gelu":
        flat = torch.ops.aten.gelu_(flat) if inplace else F.gelu(flat)
    elif act == "silu":
        flat = F.silu(flat, inplace=inplace)
    elif act == "relu":
        flat = F.relu(flat, inplace=inplace)
    else:
        return x
    return flat.permute(0, 3, 1, 2) if is_channels_last(x) else flat


def _act_backward(grad: Tensor, x: Tensor, act: str, out: Tensor | None = None) -> Tensor:
    """The gradient of the activation's input ``x``, in memory of its layout."""
    out = torch.empty_like(x) if out is None else out
    if not act:
        return out.copy_(grad)
    if is_channels_last(x):
        grad, before, into = (each.permute(0, 2, 3, 1) for each in (grad, x, out))
    else:
        before, into = x, out
    if act == "gelu":
        torch.ops.aten.gelu_backward.grad_input(grad, before, grad_input=into)
    elif act == "silu":
        torch.ops.aten.silu_backward.grad_input(grad, before, grad_input=into)
    else:
        torch.ops.aten.threshold_backward.grad_input(grad, before, 0, grad_input=into)
    return out


def is_product(x: Tensor, conv: Conv) -> bool:
    """Whether a convolution is one product of the pixels' rows: faster than torch's convolution on a CPU."""
    one = conv.weight.size(2) == conv.weight.size(3) == 1 and conv.groups == 1
    plain = one and all(step == 1 for step in conv.stride) and not any(conv.padding)
    return plain and x.device.type == "cpu" and is_channels_last(x)


def _convolve(x: Tensor, conv: Conv) -> Tensor:
    if is_product(x, conv):
        if x.dtype == torch.float32 and torch.backends.mkldnn.is_available():
            return torch.mkldnn_convolution(x, conv.weight, conv.bias, (0, 0), (1, 1), (1, 1), 1)
        return F.linear(x.permute(0, 2, 3, 1), conv.weight[:, :, 0, 0], conv.bias).permute(0, 3, 1, 2)
    return F.conv2d(x, *conv)


def _convolve_backward(
    grad: Tensor, x: Tensor, conv: Conv, needs: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of input, weight and bias, those that are needed."""
    if not is_product(x, conv):
        sizes = None if conv.bias is None else [conv.weight.size(0)]
        shape = conv.stride, conv.padding, conv.dilation
        return torch.ops.aten.convolution_backward(
            grad, x, conv.weight, sizes, *shape, False, [0, 0], conv.groups, list(needs)
        )
    rows = grad.permute(0, 2, 3, 1).flatten(0, 2)
    to_x = to_weight = None
    if needs[0]:
        to_x = (rows @ conv.weight[:, :, 0, 0]).view(grad.size(0), *grad.shape[2:], -1).permute(0, 3, 1, 2)
    if needs[1]:
        to_weight = (rows.t() @ x.permute(0, 2, 3, 1).flatten(0, 2))[:, :, None, None]
    return to_x, to_weight, rows.sum(0) if needs[2] else None


def _plain(settings: _Settings, mean: Any, invstd: Any, x: Tensor, *others: Any) -> tuple[Tensor, ...]:
    """The chain in PyTorch's own operations, without a change of running statistics."""
    weight, bias, _, _, *parameters = others
    if settings.norm is not None:
        training, _, eps = settings.norm
        known = (None, None) if training else (mean, invstd.pow(-2))
        # Not torch.nn.functional's, which in torch 2.11 wants an eps above zero.
        x = torch.batch_norm(x, weight, bias, known[0], known[1], training, 0.0, eps if training else 0.0, False)
    act: Any = {"gelu": F.gelu, "silu": F.silu, "relu": F.relu, "": lambda x: x}[settings.act]
    x = act(x)
    if not settings.shapes:
        return (x,)
    x = x if settings.dtype is None else x.to(settings.dtype)
    return tuple(F.conv2d(x, *conv) for conv in _convs(settings, parameters))


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
