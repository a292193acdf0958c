"""AFF's filter on a map in channels_last memory, for inference on a CPU.

A map is a matrix with one row of channels per pixel, its spectrum one with one row per frequency and part. Transforms
are products from the left, the complex maps products from the right, so that no step moves data between layouts.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from tokenmix.ops.fourier import axis_matrix

# Up to this size per axis two products per transform beat the FFT and the changes of layout that it asks for.
MOST_ROWS = 48


def row_form(kernel: Tensor, groups: int) -> Tensor:
    """A map of real planes, channels (group, channel, part), for rows of channels (group, part, channel).

    ``(2C, 2C / groups, 1, 1) -> (groups, 2C / groups, 2C / groups)``, input channels first.
    """
    width = kernel.size(1) // 2
    parts = kernel.view(groups, width, 2, width, 2)  # (G, out, part, in, part)
    return parts.permute(0, 4, 3, 2, 1).reshape(groups, 2 * width, 2 * width)


def row_bias(bias: Tensor, groups: int) -> Tensor:
    """The bias that goes with `row_form`: ``(2C,) -> (groups, 1, 2C / groups)``."""
    return bias.view(groups, -1, 2).transpose(1, 2).reshape(groups, 1, -1)


def filter_rows(x: Tensor, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], threshold: float) -> Tensor:
    """``(B, C, H, W) -> (B, C, H, W)`` in channels_last memory: ``irfft2(M * X)``, both maps as `row_form` gives them.

    ``X = rfft2(x)``, ``M = softshrink(second(silu(first(X))))``. One image after the other, so that everything between
    the transforms stays in the cache.
    """
    height, width = x.size(2), x.size(3)
    groups, wide, _ = first[0].shape
    block, columns = wide // 2, width // 2 + 1
    over_width, over_height, back_over_height, back_over_width = _matrices(height, width)
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


@functools.lru_cache(maxsize=32)
def _matrices(height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Both axes of the transform and of its inverse, in float32.

    ``(2V, W)``, ``(2H, 2H)`` from rows (height, part) to (part, height), its inverse, ``(W, 2V)``; V = W//2+1.
    """
    with torch.inference_mode(False):
        like = torch.float32, torch.device("cpu")
        rfft, irfft, fft = (axis_matrix(kind, height, width, *like) for kind in ("rfft", "irfft", "fft"))
        over_height = fft.view(2 * height, 2, height).transpose(1, 2).reshape(2 * height, 2 * height)
        return rfft.t().contiguous(), over_height, over_height.t().contiguous(), irfft.t().contiguous()
