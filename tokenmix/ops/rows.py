"""AFF's filter on a map in channels_last memory, for inference on a CPU.

A map is a matrix with one row of channels per pixel, its spectrum one with one row per frequency and part. Transforms
are products from the left, the complex maps products from the right, so that no step moves data between layouts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tokenmix.ops.constants import constant
from tokenmix.ops.derived import derived
from tokenmix.ops.fourier import axis_matrix

# Up to this size per axis two products per transform beat the FFT and the changes of layout that it asks for.
MOST_ROWS = 48


def filter_rows(
    x: Tensor, kernel1: Tensor, shift1: Tensor, kernel2: Tensor, shift2: Tensor, groups: int, threshold: float
) -> Tensor:
    """``(B, C, H, W) -> (B, C, H, W)`` in channels_last memory: ``irfft2(M * X)``.

    ``X = rfft2(x)``, ``M = softshrink(map2(silu(map1(X))))``. One image after the other, so that everything between the
    transforms stays in the cache.

    Args:
        x: In channels_last memory.
        kernel1: (2C, 2C / groups, 1, 1), of real planes, channels (group, channel, part).
        shift1: (2C,).
        kernel2: As ``kernel1``.
        shift2: As ``shift1``.
        groups: Of both maps.
        threshold: Of the soft-shrink.
    """
    first, second = (
        (derived(_on_rows, kernel, groups), derived(_bias, shift, groups))
        for kernel, shift in ((kernel1, shift1), (kernel2, shift2))
    )
    height, width = x.size(2), x.size(3)
    block, columns = x.size(1) // groups, width // 2 + 1
    over_width, over_height, back_over_width = (
        _over_width(x, width),
        _over_height(x, height),
        _back_over_width(x, width),
    )
    back_over_height = over_height.t()
    out = torch.empty_like(x)
    for image, filtered in zip(x.permute(0, 2, 3, 1), out.permute(0, 2, 3, 1), strict=True):  # (H, W, C)
        half = torch.bmm(over_width.expand(height, -1, -1), image)  # (H, part and column, C)
        spectrum = (over_height @ half.view(2 * height, -1)).view(2, height * columns, groups, block)
        real, imag = spectrum.transpose(1, 2)  # (G, frequency, b) each
        hidden = torch.baddbmm(first[1], real, first[0][:, :block]).baddbmm_(imag, first[0][:, block:])
        mask = F.softshrink(torch.baddbmm(second[1], F.silu(hidden, inplace=True), second[0]), threshold)
        mask_real, mask_imag = mask[..., :block], mask[..., block:]
        product = torch.empty_like(spectrum)
        product_real, product_imag = product.transpose(1, 2)
        torch.mul(real, mask_real, out=product_real).addcmul_(imag, mask_imag, value=-1)
        torch.mul(real, mask_imag, out=product_imag).addcmul_(imag, mask_real)
        half = (back_over_height @ product.view(2 * height, -1)).view(height, 2 * columns, -1)
        torch.bmm(back_over_width.expand(height, -1, -1), half, out=filtered)
    return out


def _on_rows(kernel: Tensor, groups: int) -> Tensor:
    """``(2C, 2C / groups, 1, 1) -> (groups, 2C / groups, 2C / groups)``: channels (part, channel), input first."""
    width = kernel.size(1) // 2
    parts = kernel.view(groups, width, 2, width, 2)  # (G, out, part, in, part)
    return parts.permute(0, 4, 3, 2, 1).reshape(groups, 2 * width, 2 * width)


def _bias(shift: Tensor, groups: int) -> Tensor:
    """The same for a bias: ``(2C,) -> (groups, 1, 2C / groups)``."""
    return shift.view(groups, -1, 2).transpose(1, 2).reshape(groups, 1, -1)


@constant
def _over_width(like: Tensor, width: int) -> Tensor:
    return axis_matrix(like, "rfft", width).t().contiguous()  # (2V, W), V = W//2+1


@constant
def _back_over_width(like: Tensor, width: int) -> Tensor:
    return axis_matrix(like, "irfft", width).t().contiguous()  # (W, 2V)


@constant
def _over_height(like: Tensor, height: int) -> Tensor:
    """``(2H, 2H)``: from rows (height, part) to (part, height)."""
    return axis_matrix(like, "fft", height).view(2 * height, 2, height).transpose(1, 2).reshape(2 * height, 2 * height)
