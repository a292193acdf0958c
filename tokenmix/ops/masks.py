"""The mask network of the adaptive frequency filter (arXiv:2307.14008) for training: it keeps the spectrum alone.

PyTorch keeps six maps of its size: input and output of both complex maps, of the soft-shrink and of the product.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tokenmix.ops.dispatch import situation
from tokenmix.ops.fourier import multiply_planes
from tokenmix.ops.recompute import differentiated, full_precision


def mask_product(
    planes: Tensor, kernel1: Tensor, shift1: Tensor, kernel2: Tensor, shift2: Tensor, threshold: float
) -> Tensor:
    """``(B, C, 2, H, V)`` to the same: ``X * softshrink(map2(silu(map1(X))))``, the product of complex numbers.

    Args:
        planes: A spectrum as real planes.
        kernel1: (2C, 2b, 1, 1): for each group of b channels a linear map of their real and imaginary parts.
        shift1: (2C,).
        kernel2: As ``kernel1``.
        shift2: As ``shift1``.
        threshold: Of the soft-shrink.
    """
    wide = kernel1.size(1)
    kernels = [kernel.view(-1, wide, wide) for kernel in (kernel1, kernel2)]
    shifts = [shift.view(-1, wide, 1) for shift in (shift1, shift2)]
    with torch.autocast(planes.device.type, enabled=False):
        return _Mask.apply(planes.contiguous(), kernels[0], shifts[0], kernels[1], shifts[1], threshold)


def _formula(
    planes: Tensor, kernel1: Tensor, shift1: Tensor, kernel2: Tensor, shift2: Tensor, threshold: float
) -> Tensor:
    hidden = F.silu(kernel1 @ _groups(planes, kernel1) + shift1)
    return multiply_planes(planes, F.softshrink(kernel2 @ hidden + shift2, threshold).view_as(planes))


def _groups(planes: Tensor, kernel: Tensor) -> Tensor:
    """``(B, C, 2, H, V) -> (B, G, 2b, H V)``."""
    return planes.reshape(planes.size(0), kernel.size(0), kernel.size(1), -1)


class _Mask(torch.autograd.Function):
    @staticmethod
    def forward(ctx, planes, kernel1, shift1, kernel2, shift2, threshold: float) -> Tensor:
        ctx.save_for_backward(planes, kernel1, shift1, kernel2, shift2)
        ctx.threshold = threshold
        hidden = F.silu(_affine(kernel1, shift1, _groups(planes, kernel1)), inplace=True)
        mask = _affine(kernel2, shift2, hidden)
        return _product(planes, torch.ops.aten.softshrink.out(mask, threshold, out=mask).view_as(planes))

    @staticmethod
    @full_precision
    def backward(ctx, *grads: Any):
        planes, kernel1, shift1, kernel2, shift2 = inputs = ctx.saved_tensors
        if situation(grads[0]).mode == "training":  # the gradients shall have gradients
            return differentiated(_formula, (*inputs, ctx.threshold), ctx.needs_input_grad, grads)
        (grad,) = grads
        x = _groups(planes, kernel1)
        before = _affine(kernel1, shift1, x)
        hidden = F.silu(before)
        raw = _affine(kernel2, shift2, hidden)
        mask = F.softshrink(raw, ctx.threshold).view_as(planes)
        to_planes = _product(grad, mask, conjugate=True)
        to_mask = _product(grad, planes, conjugate=True).view_as(raw)
        torch.ops.aten.softshrink_backward.grad_input(to_mask, raw, ctx.threshold, grad_input=to_mask)
        to_hidden = _product_of_batch(kernel2.mT, to_mask)
        torch.ops.aten.silu_backward.grad_input(to_hidden, before, grad_input=to_hidden)
        to_planes += _product_of_batch(kernel1.mT, to_hidden).view_as(planes)
        to_maps = []
        for to_output, given in ((to_hidden, x), (to_mask, hidden)):
            to_maps += [(to_output @ given.mT).sum(0), to_output.sum((0, 3), keepdim=True)[0]]
        return to_planes, *to_maps, None


def _affine(kernel: Tensor, shift: Tensor, x: Tensor) -> Tensor:
    """``(B, G, 2b, N)`` to the same, in fresh memory."""
    batch, groups = x.shape[:2]
    kernels, shifts = (each.expand(batch, -1, -1, -1).flatten(0, 1) for each in (kernel, shift))
    return torch.baddbmm(shifts, kernels, x.flatten(0, 1)).unflatten(0, (batch, groups))


def _product_of_batch(kernel: Tensor, x: Tensor) -> Tensor:
    return kernel.expand(x.size(0), -1, -1, -1) @ x


def _product(a: Tensor, b: Tensor, *, conjugate: bool = False) -> Tensor:
    """``a b`` or ``a conj(b)`` of complex numbers as planes, (B, C, 2, H, V)."""
    sign = -1 if conjugate else 1
    out = torch.empty_like(b)
    a_real, a_imag, b_real, b_imag = a[:, :, 0], a[:, :, 1], b[:, :, 0], b[:, :, 1]
    torch.mul(a_real, b_real, out=out[:, :, 0]).addcmul_(a_imag, b_imag, value=-sign)
    torch.mul(a_imag, b_real, out=out[:, :, 1]).addcmul_(a_real, b_imag, value=sign)
    return out
