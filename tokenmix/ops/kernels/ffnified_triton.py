"""Triton kernels of depthwise convolution, GELU, depthwise convolution, for NCHW.

The chain must read its input and write its output: 2 maps of ``B C H W``, that is 4 bytes per output in half precision;
PyTorch's three operations move 6. A program owns whole planes and keeps the map in between in planes of its own, which
it uses again and again, so that they stay in the L2 cache and cost no memory traffic.

Planes rather than channels_last, because a plane is one stretch of memory: a tile of consecutive flat positions is read
in full lines at 7 x 7 as at 56 x 56 (only masks know the borders), planes follow each other without gaps, and the taps
of a kernel are one number per plane. With two 7 x 7 kernels, 98 multiply-adds per 4 bytes, arithmetic is the limit, not
memory.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from tokenmix.ops.kernels.planes_triton import depthwise, shifted, tuned

TILE = 512
"""Values of a tile: 4 for each thread of 4 warps."""


def forward(x: Tensor, key: Tensor, key_bias: Tensor, value: Tensor, value_bias: Tensor) -> Tensor:
    """`tokenmix.ops.kernels.ffnified.depthwise_gelu_depthwise` of a contiguous ``x``."""
    y = torch.empty_like(x)
    shape, programs, scratch = _plan(x, maps=1)
    with torch.cuda.device_of(x):
        _forward[(programs,)](
            x, key.contiguous(), key_bias, value.contiguous(), value_bias, y, scratch,
            x.size(1), x.size(0) * x.size(1), x.size(2), x.size(3),
            KEY=key.size(-1), VALUE=value.size(-1), **shape,
        )  # fmt: skip
    return y


def backward(
    upstream: Tensor, x: Tensor, key: Tensor, key_bias: Tensor, value: Tensor, value_bias_dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """The gradients of what `forward` was given, in that order; ``upstream`` is contiguous."""
    batch, channels, height, width = x.shape
    shape, programs, scratch = _plan(x, maps=2)
    dx = torch.empty_like(x)
    taps = [weight.size(-1) ** 2 for weight in (key, value)]
    # Per plane, summed over the batch below: no atomic additions, so that a run can be repeated.
    dkey, dvalue = (x.new_empty(batch, channels, count + 1, dtype=torch.float32) for count in taps)
    with torch.cuda.device_of(x):
        _backward[(programs,)](
            upstream, x, key.contiguous(), key_bias, value.contiguous(), dx, dkey, dvalue, scratch,
            channels, batch * channels, height, width,
            KEY=key.size(-1), VALUE=value.size(-1), num_warps=4, **shape,
        )  # fmt: skip
    dkey, dvalue = dkey.sum(0), dvalue.sum(0)
    return (
        dx,
        dkey[:, :-1].reshape(key.shape).to(key.dtype),
        dkey[:, -1].to(key_bias.dtype),
        dvalue[:, :-1].reshape(value.shape).to(value.dtype),
        dvalue[:, -1].to(value_bias_dtype),
    )


def _plan(x: Tensor, maps: int) -> tuple[dict[str, int], int, Tensor]:
    """Block sizes, number of programs, and their planes for ``maps`` maps in between."""
    planes, size = x.size(0) * x.size(1), x.size(2) * x.size(3)
    positions = min(TILE, triton.next_power_of_2(size))
    block = TILE // positions
    # Eight programs of four warps fill a multiprocessor half, as many as their registers allow.
    limit = 8 * torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 2
    programs = min(triton.cdiv(planes, block), limit)
    scratch = x.new_empty(programs, maps, block, size, dtype=torch.float32)
    return {"BLOCK_C": block, "BLOCK_P": positions}, programs, scratch


@triton.jit
def _gelu(x):
    return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def _gelu_slope(x):
    normal = 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))
    return normal + x * 0.3989422804014327 * tl.exp(-0.5 * x * x)


@tuned("KEY", "VALUE", "BLOCK_P")
@triton.jit
def _forward(
    x, key, key_bias, value, value_bias, y, scratch,
    channels, planes, height, width,
    KEY: tl.constexpr, VALUE: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    size = height * width
    lane = tl.arange(0, BLOCK_C)[:, None]
    hidden = scratch + (tl.program_id(0).to(tl.int64) * BLOCK_C + lane) * size
    for first in range(tl.program_id(0) * BLOCK_C, planes, tl.num_programs(0) * BLOCK_C):
        plane = first + lane
        exists = plane < planes
        channel = plane % channels
        start = plane.to(tl.int64) * size
        bias = tl.load(key_bias + channel, mask=exists, other=0.0).to(tl.float32)
        for begin in range(0, size, BLOCK_P):
            position = begin + tl.arange(0, BLOCK_P)[None, :]
            valid = exists & (position < size)
            inner = bias + depthwise(
                x + start, key + channel * (KEY * KEY), position, valid, exists, height, width, KEY, False
            )
            tl.store(hidden + position, _gelu(inner), mask=valid)
        tl.debug_barrier()  # all warps have written the map in between
        bias = tl.load(value_bias + channel, mask=exists, other=0.0).to(tl.float32)
        for begin in range(0, size, BLOCK_P):
            position = begin + tl.arange(0, BLOCK_P)[None, :]
            valid = exists & (position < size)
            outer = bias + depthwise(
                hidden, value + channel * (VALUE * VALUE), position, valid, exists, height, width, VALUE, False
            )
            tl.store(y + start + position, outer.to(y.dtype.element_ty), mask=valid)
        tl.debug_barrier()  # all warps have read it


@triton.jit
def _kernel_gradient(
    upstream, source, output, exists, height, width, SIZE: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr
):
    """Write the gradient of each tap of a depthwise kernel and, behind them, of its bias, for these planes."""
    size = height * width
    for tap in range(SIZE * SIZE + 1):
        total = tl.zeros([BLOCK_C, BLOCK_P], tl.float32)
        for begin in range(0, size, BLOCK_P):
            position = begin + tl.arange(0, BLOCK_P)[None, :]
            valid = exists & (position < size)
            gradient = tl.load(upstream + position, mask=valid, other=0.0).to(tl.float32)
            if tap < SIZE * SIZE:
                there, inside = shifted(position, tap // SIZE - SIZE // 2, tap % SIZE - SIZE // 2, height, width)
                gradient *= tl.load(source + there, mask=valid & inside, other=0.0).to(tl.float32)
            total += gradient
        tl.store(output + tap, tl.sum(total, 1)[:, None], mask=exists)


@triton.jit
def _backward(
    upstream, x, key, key_bias, value, dx, dkey, dvalue, scratch,
    channels, planes, height, width,
    KEY: tl.constexpr, VALUE: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    size = height * width
    lane = tl.arange(0, BLOCK_C)[:, None]
    hidden = scratch + (tl.program_id(0).to(tl.int64) * 2 * BLOCK_C + lane) * size
    dinner = hidden + BLOCK_C * size
    for first in range(tl.program_id(0) * BLOCK_C, planes, tl.num_programs(0) * BLOCK_C):
        plane = first + lane
        exists = plane < planes
        channel = plane % channels
        start = plane.to(tl.int64) * size
        keys, values = key + channel * (KEY * KEY), value + channel * (VALUE * VALUE)
        bias = tl.load(key_bias + channel, mask=exists, other=0.0).to(tl.float32)
        for begin in range(0, size, BLOCK_P):
            position = begin + tl.arange(0, BLOCK_P)[None, :]
            valid = exists & (position < size)
            inner = bias + depthwise(x + start, keys, position, valid, exists, height, width, KEY, False)
            dhidden = depthwise(upstream + start, values, position, valid, exists, height, width, VALUE, True)
            tl.store(hidden + position, _gelu(inner), mask=valid)
            tl.store(dinner + position, dhidden * _gelu_slope(inner), mask=valid)
        tl.debug_barrier()
        for begin in range(0, size, BLOCK_P):
            position = begin + tl.arange(0, BLOCK_P)[None, :]
            valid = exists & (position < size)
            inner = depthwise(dinner, keys, position, valid, exists, height, width, KEY, True)
            tl.store(dx + start + position, inner.to(dx.dtype.element_ty), mask=valid)
        _kernel_gradient(
            dinner, x + start, dkey + plane.to(tl.int64) * (KEY * KEY + 1), exists, height, width, KEY, BLOCK_C, BLOCK_P
        )
        _kernel_gradient(
            upstream + start,
            hidden,
            dvalue + plane.to(tl.int64) * (VALUE * VALUE + 1),
            exists,
            height,
            width,
            VALUE,
            BLOCK_C,
            BLOCK_P,
        )
        tl.debug_barrier()
