"""Orthonormal real 2-D Fourier transforms, and the same as real matrix products for runtimes without an FFT.

A spectrum is either complex or *planes*: ``(..., 2, H, W//2+1)``, real parts before imaginary parts, so that a network
can work on it with real arithmetic. Half precision is computed in float32, float64 stays float64.

Forms of the transforms on planes:

* ``"fft"``: ``torch.fft``.
* ``"matmul"``: real matrix products only; exact for every size, one product up to 8x8, one per axis above.
* ``"auto"``: the faster one in eager mode (products up to 16x16 on the CPU, otherwise the FFT).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# Above this size per axis one product with the whole 2-D transform costs more than the FFT or one product per axis.
SINGLE_PRODUCT_SIZE = 8
# Up to this size per axis products are as fast as the FFT on a CPU in eager mode, or faster.
MATMUL_SIZE = 16
MOST_KEPT = 256  # matrices; the oldest goes
_KEPT: dict[tuple[Any, ...], Tensor] = {}


def widen(x: Tensor) -> Tensor:
    """The tensor itself, or in float32 where its dtype is narrower."""
    if x.dtype == torch.float16 or x.dtype == torch.bfloat16:
        return x.float()
    return x


def under_autocast(x: Tensor) -> bool:
    """Whether autocast would change the precision of operations on ``x``; never asked by TorchScript."""
    return x.device.type != "meta" and torch.is_autocast_enabled(x.device.type)


def cacheable(x: Tensor) -> bool:
    """Whether constants for ``x`` may be kept between calls: plain eager tensors, nothing that is being traced."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return type(x) in (torch.Tensor, torch.nn.Parameter)


def is_known(height: int, width: int) -> bool:
    """Whether a choice may depend on a size: looking at a symbolic one would tie an exported program to it."""
    return not torch.compiler.is_dynamo_compiling() and type(height) is int and type(width) is int


def rfft2(x: Tensor) -> Tensor:
    """``(..., H, W) -> (..., H, W//2+1)`` complex: the orthonormal transform of a real tensor."""
    return torch.fft.rfft2(widen(x), norm="ortho")


def irfft2(spectrum: Tensor, size: tuple[int, int]) -> Tensor:
    """``(..., H, W//2+1)`` complex to ``(..., H, W)``, ``size = (H, W)``; ``torch.fft.irfft2``, orthonormal."""
    return torch.fft.irfft2(spectrum, s=[size[0], size[1]], norm="ortho")


def rfft2_planes(x: Tensor, form: str = "fft") -> Tensor:
    """``(..., H, W) -> (..., 2, H, W//2+1)``: the orthonormal transform as real planes.

    Raises:
        ValueError: If ``form`` is not ``"auto"``, ``"fft"`` or ``"matmul"``.
    """
    x = widen(x)
    if torch.jit.is_scripting():
        return _rfft2_planes(x, _transform(x, x.size(-2), x.size(-1), form))
    if under_autocast(x):
        with torch.autocast(x.device.type, enabled=False):
            return _rfft2_planes(x, _transform(x, x.size(-2), x.size(-1), form))
    return _rfft2_planes(x, _transform(x, x.size(-2), x.size(-1), form))


def irfft2_planes(planes: Tensor, height: int, width: int, form: str = "fft") -> Tensor:
    """``(..., 2, H, W//2+1) -> (..., H, W)``: the inverse of `rfft2_planes`, as ``torch.fft.irfft2`` defines it.

    The imaginary parts of the columns that a real signal makes self-conjugate (0, and W/2 for even W) are ignored after
    the transform over H, as there.

    Raises:
        ValueError: If ``form`` is not ``"auto"``, ``"fft"`` or ``"matmul"``.
    """
    planes = widen(planes)
    if torch.jit.is_scripting():
        return _irfft2_planes(planes, height, width, _transform(planes, height, width, form))
    if under_autocast(planes):
        with torch.autocast(planes.device.type, enabled=False):
            return _irfft2_planes(planes, height, width, _transform(planes, height, width, form))
    return _irfft2_planes(planes, height, width, _transform(planes, height, width, form))


def filter_planes(planes: Tensor, mask: Tensor, height: int, width: int, form: str = "fft") -> Tensor:
    """``(..., 2, H, W//2+1)`` twice to ``(..., H, W)``: ``irfft2(mask * spectrum)``, both given as planes.

    ``mask`` broadcasts against ``planes``. Raises as `irfft2_planes`.
    """
    if _transform(planes, height, width, form) == "fft":
        # The complex product makes fewer passes over memory than six real operations.
        product = _to_complex(widen(mask)) * _to_complex(widen(planes))
        return irfft2(product, (height, width))
    return irfft2_planes(multiply_planes(planes, mask), height, width, form)


def multiply_planes(a: Tensor, b: Tensor) -> Tensor:
    """``(..., 2, H, W)`` twice to ``(..., 2, H, W)``: the complex product of two tensors of planes."""
    a_real, a_imag = a.select(-3, 0), a.select(-3, 1)
    b_real, b_imag = b.select(-3, 0), b.select(-3, 1)
    return torch.stack([a_real * b_real - a_imag * b_imag, a_real * b_imag + a_imag * b_real], -3)


def rfft2_macs(height: int, width: int) -> float:
    """Multiply-accumulates per channel that we count for one real 2-D FFT or its inverse: ``1.25 H W log2(H W)``."""
    return 1.25 * height * width * math.log2(height * width)


def _transform(x: Tensor, height: int, width: int, form: str) -> str:
    """Which computation a form means here: ``"fft"``, ``"single"`` (one product) or ``"axes"`` (one per axis)."""
    if form == "fft":
        return "fft"
    if form != "auto" and form != "matmul":
        raise ValueError(f"unknown form '{form}' of a transform; known: auto, fft, matmul")
    large = "fft" if form == "auto" else "axes"
    if torch.jit.is_scripting():
        return large
    if not is_known(height, width):
        return large
    if form == "auto" and (x.device.type != "cpu" or not cacheable(x) or max(height, width) > MATMUL_SIZE):
        return "fft"
    return "single" if max(height, width) <= SINGLE_PRODUCT_SIZE else "axes"


def _to_complex(planes: Tensor) -> Tensor:
    return torch.complex(planes.select(-3, 0), planes.select(-3, 1))


def _rfft2_planes(x: Tensor, transform: str) -> Tensor:
    height, width = x.size(-2), x.size(-1)
    columns = width // 2 + 1
    if transform == "fft":
        spectrum = torch.fft.rfft2(x, norm="ortho")
        return torch.stack([spectrum.real, spectrum.imag], -3)
    x = x.contiguous()  # a strided map would be multiplied slice by slice
    if transform == "single":
        planes = x.flatten(-2) @ _constant("rfft2", x, height, width)
        return planes.unflatten(-1, (2, height, columns))
    half = x @ _constant("rfft", x, 0, width)  # (..., H, 2 * (W//2+1))
    half = torch.cat([half[..., :columns], half[..., columns:]], -2)  # (..., 2H, W//2+1)
    return (_constant("fft", x, height, 0) @ half).unflatten(-2, (2, height))


def _irfft2_planes(planes: Tensor, height: int, width: int, transform: str) -> Tensor:
    if transform == "fft":
        return torch.fft.irfft2(_to_complex(planes), s=[height, width], norm="ortho")
    if transform == "single":
        return (planes.flatten(-3) @ _constant("irfft2", planes, height, width)).unflatten(-1, (height, width))
    half = _constant("fft", planes, height, 0).t() @ planes.flatten(-3, -2)  # (..., 2H, W//2+1)
    half = torch.cat([half[..., :height, :], half[..., height:, :]], -1)  # (..., H, 2 * (W//2+1))
    return half @ _constant("irfft", planes, 0, width)


def _constant(kind: str, like: Tensor, height: int, width: int) -> Tensor:
    """The matrix of that kind in the dtype and on the device of ``like``; see `constant`."""
    if torch.jit.is_scripting():
        return _build(kind, height, width, like.dtype, like.device)
    return constant(_build, like, kind, height, width)


def constant(build: Callable[..., Tensor], like: Tensor, *key: Any) -> Tensor:
    """``build(*key, dtype, device)`` of ``like``, kept between eager calls.

    An export of a fixed size stores the matrix that an eager call has left: computing it in the graph would take the
    exporters more time than all else that they do for the transform.
    """
    full = (build, *key, like.dtype, like.device)
    if cacheable(like):
        if full not in _KEPT:
            if len(_KEPT) >= MOST_KEPT:
                _KEPT.pop(next(iter(_KEPT)))
            with torch.inference_mode(False):  # else training after inference could not save it for the backward pass
                _KEPT[full] = build(*key, like.dtype, like.device)
        return _KEPT[full]
    fixed = not torch.compiler.is_dynamo_compiling() and not any(isinstance(part, torch.SymInt) for part in key)
    if fixed and torch.compiler.is_exporting() and full in _KEPT:
        return _KEPT[full]
    return build(*key, like.dtype, like.device)


def _build(kind: str, height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    if kind == "rfft2" or kind == "irfft2":
        return _single_matrix(kind, height, width, dtype, device)
    return axis_matrix(kind, height, width, dtype, device)


def axis_matrix(kind: str, height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The matrices for one axis; the unused size is 0.

    ``rfft`` (W, 2V), ``irfft`` (2V, W), ``fft`` (2H, 2H, orthogonal), V = W//2+1.
    """
    if kind == "fft":
        row = torch.arange(height, device=device)
        cos, sin = _cos_sin(row[:, None] * row, height, dtype)
        return torch.cat([torch.cat([cos, sin], 1), torch.cat([-sin, cos], 1)])
    column = torch.arange(width // 2 + 1, device=device)
    cos, sin = _cos_sin(torch.arange(width, device=device)[:, None] * column, width, dtype)
    if kind == "irfft":
        # Every column but the self-conjugate ones stands for its mirror image too.
        weight = 2 - ((column == 0) | (column * 2 == width)).to(dtype)
        return torch.cat([cos * weight, -sin * weight], 1).t()
    return torch.cat([cos, -sin], 1)


def _single_matrix(kind: str, height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Both axes at once: ``rfft2`` (HW, 2HV) and ``irfft2`` (2HV, HW), V = W//2+1."""
    columns = width // 2 + 1
    rows = axis_matrix("fft", height, 0, dtype, device).view(2, height, 2, height, 1, 1)  # (p, u, q, h, 1, 1)
    if kind == "rfft2":
        half = axis_matrix("rfft", 0, width, dtype, device).view(width, 2, columns).permute(1, 2, 0)  # (q, v, w)
    else:
        half = axis_matrix("irfft", 0, width, dtype, device).view(2, columns, width)
    both = (rows * half[:, None]).sum(2)  # (p, u, h, v, w)
    if kind == "rfft2":
        return both.permute(2, 4, 0, 1, 3).flatten(2).flatten(0, 1)
    return both.permute(0, 1, 3, 2, 4).flatten(0, 2).flatten(1)


def _cos_sin(phase: Tensor, period: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine of ``2 pi phase / period``, over sqrt(period).

    The phase is reduced in integers, so that float32 stays accurate.
    """
    n = torch.full([], period, dtype=torch.int64, device=phase.device)  # as a number ONNX cannot take a dynamic one
    half = torch.div(n, 2, rounding_mode="floor")
    angle = (torch.remainder(phase + half, n) - half).to(dtype) * (2 * math.pi) / n.to(dtype)
    scale = n.to(dtype).rsqrt()
    return torch.cos(angle) * scale, torch.sin(angle) * scale
