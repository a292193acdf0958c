"""The chain of FFNified attention (arXiv:2406.02021): depthwise convolution, exact GELU, depthwise convolution.

Fused wherever both convolutions are single ones: kernels up to 3 (``"plain"``) in training and inference, larger ones
only re-parameterised (`fuse`). In training their branches end in batch norms, whose statistics need the whole first
convolution before the GELU can begin.
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
    def forward(ctx, x: Tensor, key: Tensor, key_bias: Tensor, value: Tensor, value_bias: Tensor) -> Tensor:
        from tokenmix.ops.kernels import ffnified_triton

        ctx.save_for_backward(x, key, key_bias, value)
        ctx.value_bias_dtype = value_bias.dtype
        return ffnified_triton.forward(x, key, key_bias, value, value_bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream: Tensor):
        from tokenmix.ops.kernels import ffnified_triton

        x, key, key_bias, value = ctx.saved_tensors
        return ffnified_triton.backward(upstream.contiguous(), x, key, key_bias, value, ctx.value_bias_dtype)


def _sample() -> list[Tensor]:
    """Two planes of 23 x 25: each is more than one tile, and tiles end within its rows."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, 2, 23, 25), (2, 1, 3, 3), (2,), (2, 1, 3, 3), (2,)]
    return [torch.randn(shape, generator=generator) for shape in shapes]


def _fits(now: Situation, *given: Tensor) -> bool:
    runs = can_run(now, *given) and given[0].is_contiguous() and same_precision(now, *given)
    chain = definition(depthwise_gelu_depthwise)
    return runs and proved("depthwise_gelu_depthwise", _Chain.apply, chain, _sample, given[0].device)


@operator(Form("kernel", _Chain.apply, _fits))
def depthwise_gelu_depthwise(x: Tensor, key: Tensor, key_bias: Tensor, value: Tensor, value_bias: Tensor) -> Tensor:
    """``(B, C, H, W) -> (B, C, H, W)``: ``value * gelu(key * x + key_bias) + value_bias``, zeros outside of the map.

    The kernels compute in float32 and keep of the forward pass only what was given: the backward pass makes the map in
    between anew. They cannot be differentiated twice. Memory format channels_last takes the PyTorch form.

    Args:
        x: The query.
        key: ``(C, 1, k, k)``, k odd.
        key_bias: ``(C,)``.
        value: ``(C, 1, k, k)``, k odd, of another size if need be.
        value_bias: ``(C,)``.
    """
    hidden = F.gelu(F.conv2d(x, key, key_bias, padding=key.size(-1) // 2, groups=x.size(1)))
    return F.conv2d(hidden, value, value_bias, padding=value.size(-1) // 2, groups=x.size(1))
