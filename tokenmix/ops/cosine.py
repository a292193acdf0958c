"""The orthonormal 2-D discrete cosine transform (DCT-II) and its inverse, by matrix products or by FFT.

Half precision is computed in float32, float64 stays float64. Definition: ``S = D_H X D_W^T`` with
``D_N[u, n] = a_u sqrt(2/N) cos(pi u (2n+1) / 2N)``, ``a_0 = 1/sqrt(2)``, else 1.

Forms: ``"matmul"``, ``"fft"``, ``"auto"`` (``"matmul"``, which is faster on a CPU up to 1024 x 1024 at least).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tokenmix.ops.constants import constant
from tokenmix.ops.dispatch import operator
from tokenmix.ops.fourier import uses_products, widen


def dct_matrix(n: int, dtype: torch.dtype = torch.float32, device: torch.device | None = None) -> Tensor:
    """``(n, n)``: the orthonormal DCT-II matrix, frequency first; its transpose is the inverse."""
    u = torch.arange(n, device=device)
    size = torch.full([], n, dtype=torch.int64, device=device)  # as a number ONNX cannot take a dynamic one
    # The phase is reduced in integers to one period, so that float32 stays accurate for large n.
    phase = torch.remainder(u[:, None] * (2 * u + 1) + 2 * size, 4 * size) - 2 * size
    scale = (torch.where(u == 0, 1.0, 2.0).to(dtype) / size.to(dtype)).sqrt()
    return torch.cos(phase.to(dtype) * (math.pi / 2) / size.to(dtype)) * scale[:, None]


@operator(precise=True)
def dct2(x: Tensor, form: str = "auto") -> Tensor:
    """``(..., H, W) -> (..., H, W)``: the orthonormal DCT-II over the last two axes.

    Raises:
        ValueError: If ``form`` is not ``"auto"``, ``"fft"`` or ``"matmul"``.
    """
    x = widen(x)
    if form == "auto" or uses_products(form):
        return axis_cosines(x, x.size(-2)) @ (x @ axis_cosines(x, x.size(-1)).t())
    return _dct(_dct(x).transpose(-1, -2)).transpose(-1, -2)


@operator(precise=True)
def idct2(spectrum: Tensor, form: str = "auto") -> Tensor:
    """``(..., H, W) -> (..., H, W)``: the inverse of `dct2`. Raises as there."""
    x = widen(spectrum)
    if form == "auto" or uses_products(form):
        return axis_cosines(x, x.size(-2)).t() @ (x @ axis_cosines(x, x.size(-1)))
    return _idct(_idct(x).transpose(-1, -2)).transpose(-1, -2)


def dct2_macs(height: int, width: int) -> float:
    """Multiply-accumulates per channel of one 2-D DCT or its inverse in the matrix form: ``H W (H + W)``."""
    return float(height * width * (height + width))


@constant
def axis_cosines(like: Tensor, size: int) -> Tensor:
    """``(size, size)``: `dct_matrix` in the dtype and on the device of ``like``."""
    return dct_matrix(size, like.dtype, like.device)


def _axis(n: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Indices 0..n-1, ``exp(-i pi u / 2n)`` and ``a_u sqrt(2/n)``."""
    u = torch.arange(n, device=like.device)
    angle = u.to(like.dtype) * (-math.pi / (2 * n))
    scale = torch.where(u == 0, 0.5, 1.0).to(like.dtype).sqrt() * (2 / n) ** 0.5
    return u, torch.complex(torch.cos(angle), torch.sin(angle)), scale


def _dct(x: Tensor) -> Tensor:
    """DCT-II over the last axis: one FFT of the even samples followed by the odd ones backwards (Makhoul 1980)."""
    n = x.size(-1)
    u, twiddle, scale = _axis(n, x)
    v = x.index_select(-1, torch.minimum(2 * u, 2 * n - 1 - 2 * u))
    return (torch.fft.fft(v) * twiddle).real * scale


def _idct(x: Tensor) -> Tensor:
    """Inverse of `_dct` over the last axis."""
    n = x.size(-1)
    u, twiddle, scale = _axis(n, x)
    z = x / scale
    mirrored = z.index_select(-1, torch.remainder(n - u, n)) * (u > 0)  # z_{n-u}, 0 where u = 0
    v = torch.fft.ifft(torch.complex(z, -mirrored) * twiddle.conj()).real
    return v.index_select(-1, torch.where(u % 2 == 0, u // 2, n - 1 - u // 2))
