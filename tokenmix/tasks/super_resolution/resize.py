"""Bicubic resizing as MATLAB's ``imresize`` does it, which the super-resolution literature makes its pictures with.

Keys' cubic kernel with a = -1/2 (Keys, "Cubic convolution interpolation for digital image processing", 1981), stretched
by 1/scale where a picture becomes smaller (antialiasing), weights that sum to 1, the picture mirrored at its borders,
all in double precision. Pillow and torch clip the kernel at the borders instead, and Pillow rounds its weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[Any]
_STRIP = 2**20  # pixels of a strip


def resize(picture: Array, scale: float | tuple[float, float] | None = None, *, size: tuple[int, int] | None = None):
    """``(H, W)`` or ``(H, W, C)`` to ``(ceil(scale H), ceil(scale W))`` or to ``size``, whatever C.

    Args:
        picture: Floats, or integers of 8 or 16 bits, which stay what they are, rounded at the end and kept in range.
        scale: Above 0, of both sides or (of the height, of the width).
        size: (height, width) in pixels, in the place of ``scale`` or, with it, of the rounded product.

    Raises:
        ValueError: Neither scale nor size, one that is not positive, or no picture.

    Examples:
        >>> resize(np.ones((6, 9, 3)), 1 / 3).shape
        (2, 3, 3)
    """
    return np.concatenate(list(resized_strips(picture, scale, size=size)))


def resized_strips(
    picture: Array,
    scale: float | tuple[float, float] | None = None,
    *,
    size: tuple[int, int] | None = None,
) -> Iterator[Array]:
    """The same from the top down, in strips of which few are in memory at once. See `resize`."""
    if picture.ndim not in (2, 3) or 0 in picture.shape:
        raise ValueError(f"a picture to resize has the shape (H, W) or (H, W, C), not {picture.shape}")
    sides = picture.shape[:2]
    if scale is None:
        if size is None:
            raise ValueError("resize needs a scale or a size")
        scales = (size[0] / sides[0], size[1] / sides[1])
    else:
        scales = (scale, scale) if isinstance(scale, int | float) else scale
    if not all(math.isfinite(one) and one > 0 for one in scales):
        raise ValueError(f"a scale must be a number above 0, not {size if scale is None else scale}")
    lengths = size or (_length(sides[0], scales[0]), _length(sides[1], scales[1]))
    lines, line_weights = contributions(sides[0], lengths[0], scales[0])
    columns, column_weights = contributions(sides[1], lengths[1], scales[1])
    step = max(1, _STRIP // max(lengths[1], sides[1]))
    for begin in range(0, lengths[0], step):
        block = slice(begin, begin + step)
        first, last = int(lines[block].min()), int(lines[block].max())
        part = picture[first : last + 1].astype(np.float64)
        part = _along(part, 0, lines[block] - first, line_weights[block])
        yield _as_kind(_along(part, 1, columns, column_weights), picture.dtype)


def _as_kind(values: Array, kind: np.dtype[Any]) -> Array:
    """Doubles as the type of a picture; whole numbers rounded and kept in range."""
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        values = np.rint(values).clip(limits.min, limits.max)
    return values.astype(kind, copy=False)


def _length(side: int, scale: float) -> int:
    """The sides that MATLAB gives: rounded up, but not for the last digit of a product such as 9 * (1 / 3)."""
    return max(1, math.ceil(round(side * scale, 9)))


def contributions(side: int, length: int, scale: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Which pixels of a line make up each pixel of the new line, and how much of each.

    Args:
        side: Pixels of the line.
        length: Pixels of the new line.
        scale: New pixels for each pixel.

    Returns:
        Indices and weights, both ``(length, P)``.
    """
    reach = 2.0 / min(scale, 1.0)  # half the width of the kernel
    centres = (np.arange(length) + 0.5) / scale - 0.5
    first = np.floor(centres - reach).astype(np.int64)
    places = first[:, None] + np.arange(math.ceil(2 * reach) + 2)
    weights = cubic((centres[:, None] - places) * min(scale, 1.0))
    weights /= weights.sum(1, keepdims=True)
    used = np.flatnonzero((weights != 0).any(0))
    places, weights = places[:, used], weights[:, used]
    mirrored = places % (2 * side)
    return np.minimum(mirrored, 2 * side - 1 - mirrored), weights


def cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' kernel with a = -1/2: 1 at 0, and 0 at every other whole number and from 2 on."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def _along(picture: Array, axis: int, indices: NDArray[np.int64], weights: NDArray[np.float64]) -> Array:
    """The weighted sums along an axis."""
    lines = picture if axis == 0 else np.ascontiguousarray(picture.swapaxes(0, 1))
    shape = (len(indices), *lines.shape[1:])
    flat = lines.reshape(len(lines), -1)
    result = np.empty((len(indices), flat.shape[1]))
    # In blocks of lines whose sources stay in the processor's cache.
    step = max(1, 2**21 // (8 * flat.shape[1]))
    for begin in range(0, len(indices), step):
        block = slice(begin, begin + step)
        total = flat[indices[block, 0]] * weights[block, :1]
        for tap in range(1, indices.shape[1]):
            total += flat[indices[block, tap]] * weights[block, tap, None]
        result[block] = total
    result = result.reshape(shape)
    return result if axis == 0 else result.swapaxes(0, 1)


class Bicubic(nn.Module):
    """``(B, C, H, W) -> (B, C, s H, s W)``: bicubic enlargement as a model without parameters, to compare with.

    Args:
        scale: s.
    """

    radius = 3  # pixels to each side that a pixel depends on, see `tokenmix.tasks.super_resolution.receptive`

    def __init__(self, scale: int = 2) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        pictures = x.detach().to("cpu", torch.float64).flatten(0, 1).permute(1, 2, 0).numpy()
        enlarged = torch.from_numpy(resize(pictures, self.scale)).permute(2, 0, 1)
        return enlarged.unflatten(0, x.shape[:2]).to(x.device, x.dtype)
