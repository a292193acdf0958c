"""A product with what follows it, bias, dropout and GELU, in few passes over memory.

Most of a training step on a CPU is traffic, not products: PyTorch draws one 64-bit number for each element of a
dropout, and reads and writes the map once for each of a bias, a dropout, a GELU and a permutation. Here 16 bits decide
over an element (so that a rate is right to 1 / 65536), the map is worked on in parts that stay in the cache, and the
backward pass draws the same bits again instead of keeping masks. The seed of the bits comes from PyTorch's generator:
who seeds that gets the same training again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tokenmix.ops.dispatch import Form, Situation, operator, situation

PART = 1 << 18  # elements of a part: 1 MiB of float32, half of a usual second-level cache


def _gelu_in_parts(
    a: Tensor, b: Tensor, bias: Tensor, rate: float, shape: Sequence[int] | None = None, order: Sequence[int] = ()
) -> Tensor:
    return _Product.apply(*_autocast(a, b, bias), rate, True, shape, tuple(order), _seed(rate))


def _dropout_in_parts(a: Tensor, b: Tensor, bias: Tensor, rate: float) -> Tensor:
    return _Product.apply(*_autocast(a, b, bias), rate, False, None, (), _seed(rate))


def _fits_cpu(now: Situation, *args: object, **options: object) -> bool:
    return now.eager and now.device == "cpu"


@operator(Form("in parts", _gelu_in_parts, _fits_cpu))
def product_gelu(
    a: Tensor, b: Tensor, bias: Tensor, rate: float, shape: Sequence[int] | None = None, order: Sequence[int] = ()
) -> Tensor:
    """``(G, I, K), (G, K, J) -> (G, I, J)``: ``gelu(dropout(a @ b + bias))``, or its axes in another order.

    Args:
        a: The left factor.
        b: The right factor.
        bias: ``(G, I, 1)`` or ``(G, 1, 1)``.
        rate: Probability of zero; the others are divided by its complement. 0 outside of training.
        shape: To which the result is viewed.
        order: Axes of that view in the order that the result has, contiguous; empty for the same.
    """
    y = F.gelu(F.dropout(torch.baddbmm(bias, a, b), rate, training=rate > 0))
    y = y if shape is None else y.view(*shape)
    return y.permute(*order).contiguous() if order else y


@operator(Form("in parts", _dropout_in_parts, lambda now, a, b, bias, rate: rate > 0 and _fits_cpu(now)))
def product_dropout(a: Tensor, b: Tensor, bias: Tensor, rate: float) -> Tensor:
    """``(G, I, K), (G, K, J) -> (G, I, J)``: ``dropout(a @ b + bias)``; arguments as of `product_gelu`."""
    return F.dropout(torch.baddbmm(bias, a, b), rate, training=rate > 0)


def _autocast(*parts: Tensor) -> tuple[Tensor, ...]:
    """The parts in autocast's type where it is on, which functions with a backward pass of their own do not see."""
    if not situation(parts[0]).autocast:
        return parts
    dtype = torch.get_autocast_dtype(parts[0].device.type)
    return tuple(part.to(dtype) if part.dtype != torch.float64 else part for part in parts)


def _seed(rate: float) -> int:
    return int(torch.randint(1 << 62, ())) if rate > 0 else 0


def _parts(x: Tensor) -> Iterator[tuple[int, slice]]:
    """Indices of the first axis and ranges of the second that make parts of at most `PART` elements, or one row."""
    rows = max(1, PART // max(1, x.numel() // max(1, x.size(0) * x.size(1))))
    for first in range(x.size(0)):
        for start in range(0, x.size(1), rows):
            yield first, slice(start, start + rows)


class _Bits:
    """Random decisions about elements, the same again from the same seed."""

    def __init__(self, rate: float, seed: int) -> None:
        self.scale = 1 / (1 - rate) if rate < 1 else 0.0
        self.threshold = round(rate * 65536) - 32768
        self.generator = np.random.SFC64(seed) if rate > 0 else None

    def drop_(self, x: Tensor) -> Tensor:
        """Zero and scale a part in place."""
        if self.generator is None:
            return x
        words = self.generator.random_raw(-(-x.numel() // 4))
        # NumPy compares, PyTorch multiplies: each is several times as fast at it as the other; a masked fill is slower.
        keeps = torch.from_numpy((words.view(np.int16)[: x.numel()] >= self.threshold).view(np.uint8))
        return x.mul_(keeps.view(x.shape).to(x.dtype)).mul_(self.scale)


class _Product(torch.autograd.Function):
    """Both functions in parts; with a GELU it keeps what goes into that."""

    @staticmethod
    def forward(ctx: Any, a, b, bias, rate, gelu, shape, order, seed) -> Tensor:
        y = torch.bmm(a, b)
        view = y if shape is None else y.view(*shape)
        axes = order or tuple(range(view.ndim))
        out = view.new_empty([view.size(axis) for axis in axes]) if gelu else y
        target = out.permute([axes.index(axis) for axis in range(view.ndim)])
        shifts = bias.expand(-1, y.size(1), -1).reshape(*view.shape[:-1], 1)
        bits = _Bits(rate, seed)
        for first, rows in _parts(view):
            part = bits.drop_(view[first, rows].add_(shifts[first, rows]))
            if gelu:
                target[first, rows] = F.gelu(part)  # not with out=: oneDNN writes past the strides of a view
        ctx.save_for_backward(a, b, y if gelu else None)
        ctx.settings = rate, view.shape, axes, seed, bias.shape
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        a, b, y = ctx.saved_tensors
        rate, shape, axes, seed, bias_shape = ctx.settings
        source = grad.permute([axes.index(axis) for axis in range(len(shape))])
        grad_y = grad.new_empty(shape)
        bits = _Bits(rate, seed)
        for first, rows in _parts(grad_y):
            part, target = source[first, rows], grad_y[first, rows]
            if y is None:
                target.copy_(part)
            else:
                torch.ops.aten.gelu_backward.grad_input(part, y.view(shape)[first, rows], grad_input=target)
            bits.drop_(target)
        grad_y = grad_y.view(a.size(0), a.size(1), b.size(2))
        grad_bias = grad_y.sum((1, 2) if bias_shape[1] == 1 else 2).view(bias_shape)
        grads = torch.bmm(grad_y, b.transpose(1, 2)), torch.bmm(a.transpose(1, 2), grad_y), grad_bias
        return *grads, None, None, None, None, None
