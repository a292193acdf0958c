"""What the kernels on NCHW share: neighbours in a plane, the depthwise convolution, and the choice of warps."""

from __future__ import annotations

import os

import triton
import triton.language as tl


def tuned(*key: str):
    """Decorate a kernel with a choice between few numbers of warps, made once for each set of block sizes.

    Only for kernels each of whose sums lies within one thread: elsewhere another choice would be another rounding, and
    a run could not be repeated.
    """
    warps = (4,) if os.environ.get("TRITON_INTERPRET") == "1" else (2, 4, 8)  # the interpreter cannot measure
    return triton.autotune([triton.Config({}, num_warps=number) for number in warps], key=list(key))


@triton.jit
def shifted(position, dy, dx, height, width):
    """The flat positions ``(dy, dx)`` further on in a plane, and whether they lie in it."""
    row, column = position // width + dy, position % width + dx
    return row * width + column, (row >= 0) & (row < height) & (column >= 0) & (column < width)


@triton.jit
def depthwise(source, weight, position, valid, exists, height, width, SIZE: tl.constexpr, FLIP: tl.constexpr):
    """``[C, P]``: a depthwise convolution at these positions, zeros outside; with ``FLIP`` its transpose.

    Args:
        source: ``[C, 1]`` pointers to planes of ``height x width``.
        weight: ``[C, 1]`` pointers to kernels of ``SIZE x SIZE``.
        position: ``[1, P]``, flat.
        valid: ``[C, P]``: whether plane and position exist.
        exists: ``[C, 1]``: whether the plane exists.
        height: Of a plane in pixels.
        width: Of a plane in pixels.
        SIZE: Odd.
        FLIP: Turn the kernel by 180 degrees.
    """
    total = tl.zeros(valid.shape, tl.float32)
    for dy in range(SIZE):
        for dx in tl.static_range(SIZE):
            there, inside = shifted(position, dy - SIZE // 2, dx - SIZE // 2, height, width)
            tap = dy * SIZE + dx
            if FLIP:
                tap = SIZE * SIZE - 1 - tap
            value = tl.load(source + there, mask=valid & inside, other=0.0).to(tl.float32)
            total += value * tl.load(weight + tap, mask=exists, other=0.0).to(tl.float32)
    return total
