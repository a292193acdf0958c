"""Triton kernels of the mask network of the adaptive frequency filter.

The chain must read the spectrum and write the product: 16 bytes per complex value. PyTorch's operations move a spectrum
17 times instead of twice. A tile is all channels of a group at consecutive frequencies of one image: the frequencies of
a channel are one stretch of memory, 8 bytes each, so that 16 of them are a full line of 128 bytes; channels stand in
rows, as the products of matrices want them.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

SPAN = 16
"""Frequencies of a tile. Of 32 the backward pass would no longer fit into the registers."""


def forward(spectrum: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, threshold: float) -> Tensor:
    """`tokenmix.ops.kernels.frequency.filter_spectrum` of a contiguous spectrum."""
    output = torch.empty_like(spectrum)
    programs, numbers, options = _plan(spectrum, w1, b1, w2, b2, threshold)
    with torch.cuda.device_of(spectrum):
        _forward[(programs, w1.size(-3))](
            torch.view_as_real(spectrum), w1, b1, w2, b2, torch.view_as_real(output), *numbers, **options
        )
    return output


def backward(
    upstream: Tensor, spectrum: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, threshold: float
) -> tuple[Tensor, ...]:
    """The gradients of spectrum, ``w1``, ``b1``, ``w2``, ``b2``; ``upstream`` and spectrum are contiguous."""
    output = torch.empty_like(spectrum)
    programs, numbers, options = _plan(spectrum, w1, b1, w2, b2, threshold)
    # Per program, summed below: no atomic additions, so that a run can be repeated.
    dw1, dw2 = (spectrum.new_empty(programs, *w1.shape, dtype=torch.float32) for _ in range(2))
    db1, db2 = (spectrum.new_empty(programs, *b1.shape, dtype=torch.float32) for _ in range(2))
    with torch.cuda.device_of(spectrum):
        _backward[(programs, w1.size(-3))](
            torch.view_as_real(upstream), torch.view_as_real(spectrum), w1, b1, w2, b2,
            torch.view_as_real(output), dw1, db1, dw2, db2, *numbers, **options,
        )  # fmt: skip
    pairs = ((dw1, w1), (db1, b1), (dw2, w2), (db2, b2))
    return output, *(found.sum(0).to(weight.dtype) for found, weight in pairs)


def _plan(
    spectrum: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, threshold: float
) -> tuple[int, tuple[float, ...], dict[str, int]]:
    """Programs for each group, the kernels' plain numbers, and their block sizes and options."""
    assert w1.stride() == w2.stride()
    assert b1.stride() == b2.stride()
    groups, width = w1.size(-3), w1.size(-1)
    positions = spectrum.size(2) * spectrum.size(3)
    block = max(16, triton.next_power_of_2(width))  # a product of matrices has sides of at least 16
    tiles = spectrum.size(0) * triton.cdiv(positions, SPAN)
    limit = 4 * torch.cuda.get_device_properties(spectrum.device).multi_processor_count if spectrum.is_cuda else 4
    strides = w1.stride() if w1.ndim == 5 else (w1.stride(0), 0, *w1.stride()[1:])
    numbers = (threshold, tiles, positions, width, *strides, *b1.stride())
    # Found by compiling: so no register is spilt, and a program takes at most 53 KB of shared memory.
    options = {"COMPLEX": w1.ndim == 4, "WIDTH": block, "SPAN": SPAN, "num_warps": block // 4, "num_stages": 1}
    return min(tiles, triton.cdiv(limit, groups)), numbers, options


@triton.jit
def _matrix(weight, group, width, wgroup, win, wout, WIDTH: tl.constexpr):
    """One part of a group's weights, ``[out, in]``, filled up with zeros."""
    row, column = tl.arange(0, WIDTH)[:, None], tl.arange(0, WIDTH)[None, :]
    there = weight + group * wgroup + column * win + row * wout
    return tl.load(there, mask=(row < width) & (column < width), other=0.0).to(tl.float32)


@triton.jit
def _bias(bias, group, width, bpart, bgroup, bout, WIDTH: tl.constexpr):
    """Real and imaginary part of a group's bias, ``[out, 1]``, filled up with zeros."""
    row = tl.arange(0, WIDTH)[:, None]
    there = bias + group * bgroup + row * bout
    real = tl.load(there, mask=row < width, other=0.0).to(tl.float32)
    return real, tl.load(there + bpart, mask=row < width, other=0.0).to(tl.float32)


@triton.jit
def _real_map(rr, ri, ir, ii, xr, xi):
    """``(rr xr + ri xi, ir xr + ii xi)``: products of matrices."""
    real = tl.dot(rr, xr, input_precision="ieee") + tl.dot(ri, xi, input_precision="ieee")
    imag = tl.dot(ir, xr, input_precision="ieee") + tl.dot(ii, xi, input_precision="ieee")
    return real, imag


@triton.jit
def _product(ar, ai, br, bi):
    """The complex product of two matrices."""
    return _real_map(ar, -ai, ai, ar, br, bi)


@triton.jit
def _silu(x):
    return x * tl.sigmoid(x)


@triton.jit
def _silu_slope(x):
    gate = tl.sigmoid(x)
    return gate * (1.0 + x * (1.0 - gate))


@triton.jit
def _shrink(x, threshold):
    return tl.where(x > threshold, x - threshold, tl.where(x < -threshold, x + threshold, 0.0))


@triton.jit
def _place(tile, group, positions, width, WIDTH: tl.constexpr, SPAN: tl.constexpr):
    """Offsets ``[WIDTH, SPAN, 2]`` of a tile's real and imaginary parts, and which of them exist."""
    spans = tl.cdiv(positions, SPAN)
    row = tl.arange(0, WIDTH)[:, None]
    position = (tile % spans) * SPAN + tl.arange(0, SPAN)[None, :]
    channel = ((tile // spans) * tl.num_programs(1) + group).to(tl.int64) * width + row
    at = ((channel * positions + position) * 2)[:, :, None] + tl.arange(0, 2)[None, None, :]
    inside = ((row < width) & (position < positions))[:, :, None] & (tl.arange(0, 2)[None, None, :] < 2)
    return at, inside


@triton.jit
def _forward(
    spectrum, w1, b1, w2, b2, output,
    threshold, tiles, positions, width, wto, wfrom, wgroup, win, wout, bpart, bgroup, bout,
    COMPLEX: tl.constexpr, WIDTH: tl.constexpr, SPAN: tl.constexpr,
):  # fmt: skip
    group = tl.program_id(1)
    w1rr = _matrix(w1, group, width, wgroup, win, wout, WIDTH)
    w1ir = _matrix(w1 + wto, group, width, wgroup, win, wout, WIDTH)
    w2rr = _matrix(w2, group, width, wgroup, win, wout, WIDTH)
    w2ir = _matrix(w2 + wto, group, width, wgroup, win, wout, WIDTH)
    if COMPLEX:
        w1ri, w1ii, w2ri, w2ii = -w1ir, w1rr, -w2ir, w2rr
    else:
        w1ri = _matrix(w1 + wfrom, group, width, wgroup, win, wout, WIDTH)
        w1ii = _matrix(w1 + wto + wfrom, group, width, wgroup, win, wout, WIDTH)
        w2ri = _matrix(w2 + wfrom, group, width, wgroup, win, wout, WIDTH)
        w2ii = _matrix(w2 + wto + wfrom, group, width, wgroup, win, wout, WIDTH)
    b1r, b1i = _bias(b1, group, width, bpart, bgroup, bout, WIDTH)
    b2r, b2i = _bias(b2, group, width, bpart, bgroup, bout, WIDTH)
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        at, inside = _place(tile, group, positions, width, WIDTH, SPAN)
        xr, xi = tl.split(tl.load(spectrum + at, mask=inside, other=0.0))
        hr, hi = _real_map(w1rr, w1ri, w1ir, w1ii, xr, xi)
        mr, mi = _real_map(w2rr, w2ri, w2ir, w2ii, _silu(hr + b1r), _silu(hi + b1i))
        mr, mi = _shrink(mr + b2r, threshold), _shrink(mi + b2i, threshold)
        tl.store(output + at, tl.join(mr * xr - mi * xi, mr * xi + mi * xr), mask=inside)


@triton.jit
def _backward(
    upstream, spectrum, w1, b1, w2, b2, output, dw1, db1, dw2, db2,
    threshold, tiles, positions, width, wto, wfrom, wgroup, win, wout, bpart, bgroup, bout,
    COMPLEX: tl.constexpr, WIDTH: tl.constexpr, SPAN: tl.constexpr,
):  # fmt: skip
    group = tl.program_id(1)
    w1r = _matrix(w1, group, width, wgroup, win, wout, WIDTH)
    w1i = _matrix(w1 + wto, group, width, wgroup, win, wout, WIDTH)
    w2r = _matrix(w2, group, width, wgroup, win, wout, WIDTH)
    w2i = _matrix(w2 + wto, group, width, wgroup, win, wout, WIDTH)
    b1r, b1i = _bias(b1, group, width, bpart, bgroup, bout, WIDTH)
    b2r, b2i = _bias(b2, group, width, bpart, bgroup, bout, WIDTH)
    dw1r = tl.zeros([WIDTH, WIDTH], tl.float32)
    dw1i = tl.zeros([WIDTH, WIDTH], tl.float32)
    dw2r = tl.zeros([WIDTH, WIDTH], tl.float32)
    dw2i = tl.zeros([WIDTH, WIDTH], tl.float32)
    db1r = tl.zeros([WIDTH], tl.float32)
    db1i = tl.zeros([WIDTH], tl.float32)
    db2r = tl.zeros([WIDTH], tl.float32)
    db2i = tl.zeros([WIDTH], tl.float32)
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        at, inside = _place(tile, group, positions, width, WIDTH, SPAN)
        # The forward pass anew.
        xr, xi = tl.split(tl.load(spectrum + at, mask=inside, other=0.0))
        zr, zi = _product(w1r, w1i, xr, xi)
        zr, zi = zr + b1r, zi + b1i
        hr, hi = _silu(zr), _silu(zi)
        mr, mi = _product(w2r, w2i, hr, hi)
        mr, mi = mr + b2r, mi + b2i
        # The product and the soft-shrink; beyond the map the upstream gradient is zero, and so is all that follows.
        gr, gi = tl.split(tl.load(upstream + at, mask=inside, other=0.0))
        dmr = tl.where(tl.abs(mr) > threshold, gr * xr + gi * xi, 0.0)
        dmi = tl.where(tl.abs(mi) > threshold, gi * xr - gr * xi, 0.0)
        mr, mi = _shrink(mr, threshold), _shrink(mi, threshold)
        dxr, dxi = gr * mr + gi * mi, gi * mr - gr * mi
        # The second map, the activation, the first map: what is transposed is conjugated.
        db2r += tl.sum(dmr, 1)
        db2i += tl.sum(dmi, 1)
        stepr, stepi = _product(hr, -hi, tl.trans(dmr), tl.trans(dmi))
        dw2r += stepr
        dw2i += stepi
        dzr, dzi = _product(tl.trans(w2r), -tl.trans(w2i), dmr, dmi)
        dzr, dzi = dzr * _silu_slope(zr), dzi * _silu_slope(zi)
        db1r += tl.sum(dzr, 1)
        db1i += tl.sum(dzi, 1)
        # Read again, from the cache: kept until here the spectrum would cost more registers than there are.
        xr, xi = tl.split(tl.load(spectrum + at, mask=inside, other=0.0))
        stepr, stepi = _product(xr, -xi, tl.trans(dzr), tl.trans(dzi))
        dw1r += stepr
        dw1i += stepi
        stepr, stepi = _product(tl.trans(w1r), -tl.trans(w1i), dzr, dzi)
        tl.store(output + at, tl.join(dxr + stepr, dxi + stepi), mask=inside)
    _store(dw1, db1, dw1r, dw1i, db1r, db1i, group, width, WIDTH)
    _store(dw2, db2, dw2r, dw2i, db2r, db2i, group, width, WIDTH)


@triton.jit
def _store(dw, db, dwr, dwi, dbr, dbi, group, width, WIDTH: tl.constexpr):
    """Write a program's gradients of a group's matrix ``[in, out]`` and bias ``[out]``."""
    row, column = tl.arange(0, WIDTH)[:, None], tl.arange(0, WIDTH)[None, :]
    inside = (row < width) & (column < width)
    part = tl.num_programs(1) * width
    matrix = dw + (tl.program_id(0) * 2 * tl.num_programs(1) + group).to(tl.int64) * width * width
    matrix += row * width + column
    tl.store(matrix, dwr, mask=inside)
    tl.store(matrix + part * width, dwi, mask=inside)
    lane = tl.arange(0, WIDTH)
    shift = db + tl.program_id(0) * 2 * part + group * width + lane
    tl.store(shift, dbr, mask=lane < width)
    tl.store(shift + part, dbi, mask=lane < width)
