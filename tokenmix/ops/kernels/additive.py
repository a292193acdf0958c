"""The chain of convolutional additive attention (arXiv:2408.03703): gate, add, convolve, multiply.

No norm stands in it, so that it is fused in training as in inference. What makes the pixels' scores is not: its batch
norm needs the statistics of the whole map in training, and its sum over all channels of a pixel must be complete before
the gates.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from tokenmix.ops.dispatch import Form, Situation, definition, operator
from tokenmix.ops.kernels.rule import can_run, proved, same_precision


class _Chain(torch.autograd.Function):
    @staticmethod
    def forward(ctx, qkv: Tensor, score: Tensor, channel_score: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        from tokenmix.ops.kernels import additive_triton

        score, weight = score.contiguous(), weight.contiguous()
        mean = additive_triton.mean(qkv, score)  # (2, B, C)
        with torch.autocast(qkv.device.type, enabled=False):
            gate = torch.sigmoid(mean @ _matrices(channel_score).mT)
        ctx.save_for_backward(qkv, score, channel_score, weight, bias, mean, gate)
        return additive_triton.forward(qkv, score, gate, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream: Tensor):
        from tokenmix.ops.kernels import additive_triton

        qkv, score, channel_score, weight, bias, mean, gate = ctx.saved_tensors
        given = upstream.contiguous(), qkv, score, gate, weight, bias
        dqkv, dscore, dgate, dweight, dbias = additive_triton.backward(*given)
        dlogits = dgate * gate * (1 - gate)
        dchannel_score = dlogits.mT @ mean
        additive_triton.add_gradient_of_mean(dqkv, dscore, dlogits @ _matrices(channel_score), qkv, score)
        return (
            dqkv,
            dscore.sum(1).to(score.dtype),
            dchannel_score.view_as(channel_score).to(channel_score.dtype),
            dweight.view_as(weight).to(weight.dtype),
            dbias.to(bias.dtype),
        )


def _matrices(channel_score: Tensor) -> Tensor:
    """``(2C, C, 1, 1) -> (2, C, C)`` in float32: output and input channels of query and key."""
    return channel_score.float().flatten(1).unflatten(0, (2, -1))


def _sample() -> list[Tensor]:
    """Two images of 18 channels on 9 x 8: neither channels nor positions fill their blocks."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 54, 9, 8), (2, 2, 9, 8), (36, 18, 1, 1), (18, 1, 3, 3), (18,)]
    return [torch.randn(shape, generator=generator) for shape in shapes]


def _fits(now: Situation, *given: Tensor) -> bool:
    runs = can_run(now, *given) and given[0].is_contiguous() and same_precision(now, *given)
    return runs and proved("gate_convolve", _Chain.apply, definition(gate_convolve), _sample, given[0].device)


@operator(Form("kernel", _Chain.apply, _fits))
def gate_convolve(qkv: Tensor, score: Tensor, channel_score: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``(B, 3C, H, W) -> (B, C, H, W)``: ``(weight * (gate(q) + gate(k)) + bias) v``, zeros outside of the map.

    A gate is ``y sigmoid(channel_score mean(y))``, ``y = x score``. The kernels compute in float32 and keep of the
    forward pass what was given and two numbers per channel. They cannot be differentiated twice. Memory format
    channels_last takes the PyTorch form.

    Args:
        qkv: Query, key and value, C channels each.
        score: ``(B, 2, H, W)``: factors of the pixels of query and key.
        channel_score: ``(2C, C, 1, 1)``: for the query, then for the key.
        weight: ``(C, 1, k, k)``, k odd.
        bias: ``(C,)``.
    """
    channels = qkv.size(1) // 3
    query_key, value = qkv.split([2 * channels, channels], 1)
    gated = query_key.unflatten(1, (2, channels)) * score.unsqueeze(2)  # (B, 2, C, H, W)
    mean = gated.mean([3, 4], keepdim=True).flatten(1, 2)  # (B, 2C, 1, 1)
    gate = torch.sigmoid(F.conv2d(mean, channel_score, groups=2)).unflatten(1, (2, channels))
    return F.conv2d((gated * gate).sum(1), weight, bias, padding=weight.size(-1) // 2, groups=channels) * value
