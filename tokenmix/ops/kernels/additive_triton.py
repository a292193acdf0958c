"""Triton kernels of the gate-add-convolve-multiply chain of convolutional additive attention, for NCHW.

The means must read query and key, what follows them query, key and value, and write the output: 6 maps of ``B C H W``,
that is 12 bytes per output in half precision (the scores of a pixel serve all channels); PyTorch's operations move 18.
The sum under the convolution is made anew for each of its taps, from the L1 cache.

Planes rather than channels_last, because a tile of consecutive flat positions of several planes is read in full lines
at any map size, and because the 1x1 convolution in front writes planes. A tile spans many channels, since the
backward pass sums over them for the scores' gradient and writes one partial map for each block of channels.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from tokenmix.ops.kernels.planes_triton import shifted, tuned

TILE = 1024
"""Values of a tile: 8 for each thread of 4 warps, 4 of the backward pass's 8."""
POSITIONS = 64
"""Most positions of a tile: a line of 128 bytes in half precision."""


def mean(qkv: Tensor, score: Tensor) -> Tensor:
    """``(2, B, C)`` in float32: the mean of each channel of query and key, their pixels multiplied with the scores."""
    batch, channels, height, width = _shape(qkv)
    output = qkv.new_empty(2, batch, channels, dtype=torch.float32)
    blocks, options = _plan(channels, height * width)
    with torch.cuda.device_of(qkv):
        _mean[(batch * blocks,)](qkv, score, output, batch, blocks, channels, height * width, **options)
    return output


def forward(qkv: Tensor, score: Tensor, gate: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """What follows the gates ``(2, B, C)``: ``(B, C, H, W)``; all tensors are contiguous."""
    batch, channels, height, width = _shape(qkv)
    output = qkv.new_empty(batch, channels, height, width)
    blocks, options = _plan(channels, height * width)
    grid = (batch * blocks, triton.cdiv(height * width, options["BLOCK_P"]))
    with torch.cuda.device_of(qkv):
        _forward[grid](
            qkv, score, gate, weight, bias, output,
            batch, blocks, channels, height, width, SIZE=weight.size(-1), **options,
        )  # fmt: skip
    return output


def backward(
    upstream: Tensor, qkv: Tensor, score: Tensor, gate: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, ...]:
    """The gradients of what `forward` was given, in that order; all tensors are contiguous.

    Those of ``qkv`` and ``score`` still lack what reaches them through the gates, `add_gradient_of_mean`; that of
    ``score`` has one more axis, ``(B, blocks, 2, H, W)``, to be summed over.
    """
    batch, channels, height, width = _shape(qkv)
    blocks, options = _plan(channels, height * width)
    dqkv, dgate = torch.empty_like(qkv), torch.empty_like(gate)
    # Per block of channels and per image, summed later: no atomic additions, so that a run can be repeated.
    dscore = qkv.new_empty(batch, blocks, 2, height, width, dtype=torch.float32)
    size = weight.size(-1)
    dweight = qkv.new_empty(batch, channels, size**2 + 1, dtype=torch.float32)
    with torch.cuda.device_of(qkv):
        _backward[(batch * blocks,)](
            upstream, qkv, score, gate, weight, bias, dqkv, dscore, dgate, dweight,
            batch, blocks, channels, height, width,
            SIZE=size, TAPS=triton.next_power_of_2(size**2 + 1), num_warps=8, **options,
        )  # fmt: skip
    dweight = dweight.sum(0)
    return dqkv, dscore, dgate, dweight[:, :-1].contiguous(), dweight[:, -1]


def add_gradient_of_mean(dqkv: Tensor, dscore: Tensor, dmean: Tensor, qkv: Tensor, score: Tensor) -> None:
    """Add to the gradients of `backward`, in place, what reaches them through `mean`, of gradient ``dmean``."""
    batch, channels, height, width = _shape(qkv)
    blocks, options = _plan(channels, height * width)
    grid = (batch * blocks, triton.cdiv(height * width, options["BLOCK_P"]))
    with torch.cuda.device_of(qkv):
        _add_gradient_of_mean[grid](
            dqkv, dscore, dmean.contiguous(), qkv, score, batch, blocks, channels, height * width, **options
        )


def _shape(qkv: Tensor) -> tuple[int, int, int, int]:
    return qkv.size(0), qkv.size(1) // 3, qkv.size(2), qkv.size(3)


def _plan(channels: int, size: int) -> tuple[int, dict[str, int]]:
    """Blocks of channels, and the kernels' block sizes."""
    positions = min(POSITIONS, triton.next_power_of_2(size))
    block = min(TILE // positions, triton.next_power_of_2(channels))
    return triton.cdiv(channels, block), {"BLOCK_C": block, "BLOCK_P": positions}


@triton.jit
def _block(blocks, channels, BLOCK_C: tl.constexpr):
    """The image of a program and its channels ``[C, 1]``."""
    image = (tl.program_id(0) // blocks).to(tl.int64)
    return image, (tl.program_id(0) % blocks) * BLOCK_C + tl.arange(0, BLOCK_C)[:, None]


@triton.jit
def _mean(qkv, score, output, batch, blocks, channels, size, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr):
    image, channel = _block(blocks, channels, BLOCK_C)
    exists = channel < channels
    query, scores = qkv + (image * 3 * channels + channel) * size, score + image * 2 * size
    total_q = tl.zeros([BLOCK_C, BLOCK_P], tl.float32)
    total_k = tl.zeros([BLOCK_C, BLOCK_P], tl.float32)
    for begin in range(0, size, BLOCK_P):
        position = begin + tl.arange(0, BLOCK_P)[None, :]
        valid = position < size
        total_q += _scored(query, scores, position, exists & valid, valid)
        total_k += _scored(query + channels * size, scores + size, position, exists & valid, valid)
    there = output + image * channels + channel
    tl.store(there, tl.sum(total_q, 1)[:, None] / size, mask=exists)
    tl.store(there + batch * channels, tl.sum(total_k, 1)[:, None] / size, mask=exists)


@triton.jit
def _add_gradient_of_mean(
    dqkv, dscore, dmean, qkv, score, batch, blocks, channels, size, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr
):  # fmt: skip
    image, channel = _block(blocks, channels, BLOCK_C)
    exists = channel < channels
    position = tl.program_id(1) * BLOCK_P + tl.arange(0, BLOCK_P)[None, :]
    valid = position < size
    for part in tl.static_range(2):
        share = tl.load(dmean + (part * batch + image) * channels + channel, mask=exists, other=0.0) / size
        there = (image * 3 * channels + part * channels + channel) * size + position
        factor = tl.load(score + (image * 2 + part) * size + position, mask=valid, other=0.0).to(tl.float32)
        gradient = tl.load(dqkv + there, mask=exists & valid, other=0.0).to(tl.float32) + factor * share
        tl.store(dqkv + there, gradient.to(dqkv.dtype.element_ty), mask=exists & valid)
        x = tl.load(qkv + there, mask=exists & valid, other=0.0).to(tl.float32)
        there = dscore + (tl.program_id(0).to(tl.int64) * 2 + part) * size + position
        before = tl.load(there, mask=valid, other=0.0)
        tl.store(there, before + tl.sum(x * share, 0)[None, :], mask=valid)


@triton.jit
def _scored(x, score, there, mask, inside):
    """``[C, P]``: flat positions of planes times their scores, zero where they do not exist."""
    value = tl.load(x + there, mask=mask, other=0.0).to(tl.float32)
    return value * tl.load(score + there, mask=inside, other=0.0).to(tl.float32)


@tuned("SIZE", "BLOCK_C", "BLOCK_P")
@triton.jit
def _forward(
    qkv, score, gate, weight, bias, output,
    batch, blocks, channels, height, width,
    SIZE: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    size = height * width
    image, channel = _block(blocks, channels, BLOCK_C)
    exists = channel < channels
    position = tl.program_id(1) * BLOCK_P + tl.arange(0, BLOCK_P)[None, :]
    valid = position < size
    query = qkv + (image * 3 * channels + channel) * size
    key, value = query + channels * size, query + 2 * channels * size
    score_q, score_k = score + image * 2 * size, score + image * 2 * size + size
    gate_q = tl.load(gate + image * channels + channel, mask=exists, other=0.0)
    gate_k = tl.load(gate + (batch + image) * channels + channel, mask=exists, other=0.0)
    total = tl.load(bias + channel, mask=exists, other=0.0).to(tl.float32) + tl.zeros([BLOCK_C, BLOCK_P], tl.float32)
    for tap in range(SIZE * SIZE):
        there, inside = shifted(position, tap // SIZE - SIZE // 2, tap % SIZE - SIZE // 2, height, width)
        inside = inside & valid
        similarity = gate_q * _scored(query, score_q, there, exists & inside, inside)
        similarity += gate_k * _scored(key, score_k, there, exists & inside, inside)
        total += similarity * tl.load(weight + channel * (SIZE * SIZE) + tap, mask=exists, other=0.0).to(tl.float32)
    total *= tl.load(value + position, mask=exists & valid, other=0.0).to(tl.float32)
    there = output + (image * channels + channel) * size + position
    tl.store(there, total.to(output.dtype.element_ty), mask=exists & valid)


@triton.jit
def _backward(
    upstream, qkv, score, gate, weight, bias, dqkv, dscore, dgate, dweight,
    batch, blocks, channels, height, width,
    SIZE: tl.constexpr, TAPS: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    size = height * width
    image, channel = _block(blocks, channels, BLOCK_C)
    exists = channel < channels
    start = (image * 3 * channels + channel) * size
    query = qkv + start
    key, value = query + channels * size, query + 2 * channels * size
    upstream += (image * channels + channel) * size
    score_q, score_k = score + image * 2 * size, score + image * 2 * size + size
    gates = image * channels + channel
    gate_q = tl.load(gate + gates, mask=exists, other=0.0)
    gate_k = tl.load(gate + gates + batch * channels, mask=exists, other=0.0)
    shift = tl.load(bias + channel, mask=exists, other=0.0).to(tl.float32)
    dgate_q = tl.zeros([BLOCK_C, BLOCK_P], tl.float32)
    dgate_k = tl.zeros([BLOCK_C, BLOCK_P], tl.float32)
    taps = tl.arange(0, TAPS)[None, :]  # the kernel's, and behind them the bias
    dtaps = tl.zeros([BLOCK_C, TAPS], tl.float32)
    for begin in range(0, size, BLOCK_P):
        position = begin + tl.arange(0, BLOCK_P)[None, :]
        valid = position < size
        both = exists & valid
        dy = tl.load(upstream + position, mask=both, other=0.0).to(tl.float32)
        dconv = dy * tl.load(value + position, mask=both, other=0.0).to(tl.float32)
        conv = shift + tl.zeros([BLOCK_C, BLOCK_P], tl.float32)
        dsimilarity = tl.zeros([BLOCK_C, BLOCK_P], tl.float32)
        for tap in range(SIZE * SIZE):
            down, right = tap // SIZE - SIZE // 2, tap % SIZE - SIZE // 2
            factor = tl.load(weight + channel * (SIZE * SIZE) + tap, mask=exists, other=0.0).to(tl.float32)
            there, inside = shifted(position, down, right, height, width)
            inside = inside & valid
            similarity = gate_q * _scored(query, score_q, there, exists & inside, inside)
            similarity += gate_k * _scored(key, score_k, there, exists & inside, inside)
            conv += similarity * factor
            dtaps += tl.where(taps == tap, tl.sum(dconv * similarity, 1)[:, None], 0.0)
            there, inside = shifted(position, -down, -right, height, width)
            inside = inside & both
            dthere = tl.load(upstream + there, mask=inside, other=0.0).to(tl.float32)
            dthere *= tl.load(value + there, mask=inside, other=0.0).to(tl.float32)
            dsimilarity += dthere * factor
        dtaps += tl.where(taps == SIZE * SIZE, tl.sum(dconv, 1)[:, None], 0.0)
        q = tl.load(query + position, mask=both, other=0.0).to(tl.float32) * dsimilarity
        k = tl.load(key + position, mask=both, other=0.0).to(tl.float32) * dsimilarity
        factor_q = tl.load(score_q + position, mask=valid, other=0.0).to(tl.float32)
        factor_k = tl.load(score_k + position, mask=valid, other=0.0).to(tl.float32)
        dgate_q += q * factor_q
        dgate_k += k * factor_k
        partial = dscore + tl.program_id(0).to(tl.int64) * 2 * size + position
        tl.store(partial, tl.sum(q * gate_q, 0)[None, :], mask=valid)
        tl.store(partial + size, tl.sum(k * gate_k, 0)[None, :], mask=valid)
        output = dqkv + start + position
        kind = dqkv.dtype.element_ty
        tl.store(output, (dsimilarity * (factor_q * gate_q)).to(kind), mask=both)
        tl.store(output + channels * size, (dsimilarity * (factor_k * gate_k)).to(kind), mask=both)
        tl.store(output + 2 * channels * size, (dy * conv).to(kind), mask=both)
    tl.store(dgate + gates, tl.sum(dgate_q, 1)[:, None], mask=exists)
    tl.store(dgate + gates + batch * channels, tl.sum(dgate_k, 1)[:, None], mask=exists)
    output = dweight + (image * channels + channel) * (SIZE * SIZE + 1) + taps
    tl.store(output, dtaps, mask=exists & (taps <= SIZE * SIZE))
