"""Softmax attention in the frame of the MetaMixer paper (arXiv:2406.02021), of dynamic interactions."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from tokenmix.mixers.attention import SoftmaxAttention
from tokenmix.mixers.metamixer import MetaMixer


class AttentionKey(nn.Module):
    """``(B, C, H, W), (B, C, H, W) -> (B, heads, H W, H W)``: ``q k(x)^T / sqrt(d)``, attention's key interaction."""

    def __init__(self, proj: nn.Module, heads: int) -> None:
        super().__init__()
        self.proj = proj
        self.heads = heads

    def forward(self, q: Tensor, x: Tensor) -> Tensor:
        query = q.flatten(2).unflatten(1, (self.heads, -1))  # (B, heads, d, N)
        key = self.proj(x).flatten(2).unflatten(1, (self.heads, -1))
        return query.transpose(-1, -2) @ key * query.size(2) ** -0.5


class AttentionValue(nn.Module):
    """``(B, heads, H W, H W), (B, C, H, W) -> (B, C, H, W)``: ``out(a v(x))``, attention's value interaction."""

    def __init__(self, proj: nn.Module, out: nn.Module, heads: int) -> None:
        super().__init__()
        self.proj = proj
        self.out = out
        self.heads = heads

    def forward(self, weights: Tensor, x: Tensor) -> Tensor:
        value = self.proj(x).flatten(2).unflatten(1, (self.heads, -1))  # (B, heads, d, N)
        return self.out((value @ weights.transpose(-1, -2)).reshape(x.size(0), x.size(1), x.size(2), x.size(3)))


@torch.no_grad()
def attention_frame(attention: SoftmaxAttention) -> MetaMixer:
    """The same function as a `MetaMixer` of dynamic interactions, with copies of the parameters."""
    convs = []
    for index in range(3):
        source, dim = attention.qkv, attention.qkv.in_channels
        conv = nn.Conv2d(
            dim, dim, 1, bias=source.bias is not None, device=source.weight.device, dtype=source.weight.dtype
        )
        conv.weight.copy_(source.weight[index * dim : (index + 1) * dim])
        if source.bias is not None and conv.bias is not None:
            conv.bias.copy_(source.bias[index * dim : (index + 1) * dim])
        convs.append(conv)
    query, key, value = convs
    return MetaMixer(
        query=query,
        key=AttentionKey(key, attention.heads),
        act=nn.Softmax(dim=-1),
        value=AttentionValue(value, copy.deepcopy(attention.proj), attention.heads),
    )
