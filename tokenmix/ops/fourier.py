"""Orthonormal real 2-D Fourier transforms, and the same as real matrix products for runtimes without an FFT.

A spectrum is either complex or *planes*: ``(..., 2, H, W//2+1)``, real parts before imaginary parts, so that a network
can work on it with real arithmetic. Half precision is computed in float32, float64 stays float64.

Forms of the transforms on planes:

* ``"fft"``: ``torch.fft``.
* ``"matmul"``: real matrix products only, one per axis; exact for every size. What exports take.
* ``"auto"``: ``"fft"``.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tokenmix.ops.constants import constant
from tokenmix.ops.dispatch import operator


def widen(x: Tensor) -> Tensor:
    """The tensor itself, or in float32 where its dtype is narrower."""
    if x.dtype == torch.float16 or x.dtype == torch.bfloat16:
        return x.float()
    return x


def uses_products(form: str) -> bool:
    """Whether a form means matrix products here.

    Raises:
        ValueError: If ``form`` is not ``"auto"``, ``"fft"`` or ``"matmul"``.
    """
    if form != "auto" and form != "fft" and form != "matmul":
        raise ValueError(f"unknown form '{form}' of a transform; known: auto, fft, matmul")
    return form == "matmul"


def rfft2(x: Tensor) -> Tensor:
    """``(..., H, W) -> (..., H, W//2+1)`` complex: the orthonormal transform of a real tensor."""
    return torch.fft.rfft2(widen(x), norm="ortho")


def irfft2(spectrum: Tensor, size: tuple[int, int]) -> Tensor:
    """``(..., H, W//2+1)`` complex to ``(..., H, W)``, ``size = (H, W)``; ``torch.fft.irfft2``, orthonormal."""
    return torch.fft.irfft2(spectrum, s=[size[0], size[1]], norm="ortho")


@operator(precise=True)
def rfft2_planes(x: Tensor, form: str = "fft") -> Tensor:
    """``(..., H, W) -> (..., 2, H, W//2+1)``: the orthonormal transform as real planes.

    Raises:
        ValueError: If ``form`` is not ``"auto"``, ``"fft"`` or ``"matmul"``.
    """
    x = widen(x)
    if not uses_products(form):
        spectrum = torch.fft.rfft2(x, norm="ortho")
        return torch.stack([spectrum.real, spectrum.imag], -3)
    height, columns = x.size(-2), x.size(-1) // 2 + 1
    half = x.contiguous() @ axis_matrix(x, "rfft", x.size(-1))  # (..., H, 2 * (W//2+1)); strided maps go slice by slice
    half = torch.cat([half[..., :columns], half[..., columns:]], -2)  # (..., 2H, W//2+1)
    return (axis_matrix(x, "fft", height) @ half).unflatten(-2, (2, height))


@operator(precise=True)
def irfft2_planes(planes: Tensor, height: int, width: int, form: str = "fft") -> Tensor:
    """``(..., 2, H, W//2+1) -> (..., H, W)``: the inverse of `rfft2_planes`, as ``torch.fft.irfft2`` defines it.

    The imaginary parts of the columns that a real signal makes self-conjugate (0, and W/2 for even W) are ignored after
    the transform over H, as there.

    Raises:
        ValueError: If ``form`` is not ``"auto"``, ``"fft"`` or ``"matmul"``.
    """
    planes = widen(planes)
    if not uses_products(form):
        return torch.fft.irfft2(to_complex(planes), s=[height, width], norm="ortho")
    half = axis_matrix(planes, "fft", height).t() @ planes.flatten(-3, -2)  # (..., 2H, W//2+1)
    half = torch.cat([half[..., :height, :], half[..., height:, :]], -1)  # (..., H, 2 * (W//2+1))
    return half @ axis_matrix(planes, "irfft", width)


def filter_planes(planes: Tensor, mask: Tensor, height: int, width: int, form: str = "fft") -> Tensor:
    """``(..., 2, H, W//2+1)`` twice to ``(..., H, W)``: ``irfft2(mask * spectrum)``, both given as planes.

    ``mask`` broadcasts against ``planes``. Raises as `irfft2_planes`.
    """
    if not uses_products(form):
        # The complex product makes fewer passes over memory than six real operations.
        product = to_complex(widen(mask)) * to_complex(widen(planes))
        return irfft2(product, (height, width))
    return irfft2_planes(multiply_planes(planes, mask), height, width, form)


def resize_kernel(kernel: Tensor, height: int, columns: int) -> Tensor:
    """``(2, C, h, w) -> (1, C, 2, H, V)``: a complex grid resized bilinearly with aligned corners, as planes."""
    kernel = F.interpolate(widen(kernel), size=[height, columns], mode="bilinear", align_corners=True)
    return kernel.transpose(0, 1).unsqueeze(0)


def multiply_planes(a: Tensor, b: Tensor) -> Tensor:
    """``(..., 2, H, W)`` twice to ``(..., 2, H, W)``: the complex product of two tensors of planes."""
    a_real, a_imag = a.select(-3, 0), a.select(-3, 1)
    b_real, b_imag = b.select(-3, 0), b.select(-3, 1)
    return torch.stack([a_real * b_real - a_imag * b_imag, a_real * b_imag + a_imag * b_real], -3)


def rfft2_macs(height: int, width: int) -> float:
    """Multiply-accumulates per channel that we count for one real 2-D FFT or its inverse: ``1.25 H W log2(H W)``."""
    return 1.25 * height * width * math.log2(height * width)


def to_complex(planes: Tensor) -> Tensor:
    """``(..., 2, H, W) -> (..., H, W)``: planes as complex numbers."""
    return torch.complex(planes.select(-3, 0), planes.select(-3, 1))


@constant
def axis_matrix(like: Tensor, kind: str, size: int) -> Tensor:
    """The matrix of one axis of N values: ``rfft`` (N, 2V), ``irfft`` (2V, N), V = N//2+1; ``fft`` (2N, 2N)."""
    dtype, device = like.dtype, like.device
    place = torch.arange(size, device=device)
    if kind == "fft":  # orthogonal
        cos, sin = _cos_sin(place[:, None] * place, size, dtype)
        return torch.cat([torch.cat([cos, sin], 1), torch.cat([-sin, cos], 1)])
    column = torch.arange(size // 2 + 1, device=device)
    cos, sin = _cos_sin(place[:, None] * column, size, dtype)
    if kind == "irfft":
        # Every column but the self-conjugate ones stands for its mirror image too.
        weight = 2 - ((column == 0) | (column * 2 == size)).to(dtype)
        return torch.cat([cos * weight, -sin * weight], 1).t()
    return torch.cat([cos, -sin], 1)


def _cos_sin(phase: Tensor, period: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine of ``2 pi phase / period``, over sqrt(period).

    The phase is reduced in integers, so that float32 stays accurate.
    """
    n = torch.full([], period, dtype=torch.int64, device=phase.device)  # as a number ONNX cannot take a dynamic one
    half = torch.div(n, 2, rounding_mode="floor")
    angle = (torch.remainder(phase + half, n) - half).to(dtype) * (2 * math.pi) / n.to(dtype)
    scale = n.to(dtype).rsqrt()
    return torch.cos(angle) * scale, torch.sin(angle) * scale
