"""Mixers whose weights come from the tokens themselves: softmax attention and CAS-ViT's additive attention."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tokenmix.mixers import Slot, Slots
from tokenmix.tasks.forecasting.mixers.convolutions import DepthwiseConv


class SoftmaxAttention(nn.Module):
    """``(B, C, N) -> (B, C, N)``: softmax(q k^T / sqrt(d)) v over the tokens, per head of d channels.

    Source: arXiv:1706.03762, eq. 1. ``qkv`` holds query, key and value in this order.

    Args:
        dim: Channels.
        head_dim: Channels of a head, d; the largest divisor of ``dim`` up to it is taken.
        qkv_bias: Whether query, key and value have a bias.
        device: Where the parameters are created.
        dtype: Their type.

    Raises:
        ValueError: If ``head_dim`` is below 1.
    """

    def __init__(self, dim: int, *, head_dim: int = 32, qkv_bias: bool = False, device=None, dtype=None) -> None:
        super().__init__()
        if head_dim < 1:
            raise ValueError(f"head_dim of attention must be at least 1, not {head_dim}")
        self.head_dim = max(d for d in range(1, min(head_dim, dim) + 1) if dim % d == 0)
        self.qkv = nn.Conv1d(dim, 3 * dim, 1, bias=qkv_bias, device=device, dtype=dtype)
        self.proj = nn.Conv1d(dim, dim, 1, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(-1, -2).flatten(1, 2))

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """``(B, C, N)`` to query, key and value ``(B, heads, N, d)``."""
        qkv = self.qkv(x).transpose(1, 2).contiguous().unflatten(-1, (3, -1, self.head_dim))
        return qkv.permute(2, 0, 3, 1, 4).unbind(0)

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`."""
        q, k, v = self.heads(x)
        scores = q @ k.transpose(-1, -2) * self.head_dim**-0.5
        weights = torch.softmax(scores, -1)
        return {
            "query": Slot(q.transpose(-1, -2).flatten(1, 2)),
            "key": Slot(scores, "attention"),
            "act": Slot(weights, "attention"),
            "value": Slot(self.proj((weights @ v).transpose(-1, -2).flatten(1, 2))),
        }


class AdditiveAttention(nn.Module):
    """``(B, C, N) -> (B, C, N)``: ``proj(dwc(gate(q) + gate(k)) * v)``, the mixer of CAS-ViT.

    Source: arXiv:2408.03703 in one dimension. ``qkv``, the gates' depthwise ``spatial`` with its norm, ``token_score``
    (one number for each token) and ``channel_score`` hold the parts of query and key side by side.

    Args:
        dim: Channels.
        device: Where the parameters are created.
        dtype: Their type.
    """

    def __init__(self, dim: int, *, device=None, dtype=None) -> None:
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.dim = dim
        self.qkv = nn.Conv1d(dim, 3 * dim, 1, bias=False, **dd)
        self.spatial = DepthwiseConv(2 * dim, 3, **dd)
        self.norm: nn.Module = nn.BatchNorm1d(2 * dim, **dd)
        self.token_score = nn.Conv1d(2 * dim, 2, 1, groups=2, bias=False, **dd)
        self.channel_score = nn.Conv1d(2 * dim, 2 * dim, 1, groups=2, bias=False, **dd)
        self.dwc = DepthwiseConv(dim, 3, **dd)
        self.proj = DepthwiseConv(dim, 3, **dd)

    def forward(self, x: Tensor) -> Tensor:
        query_key, value = self.qkv(x).split([2 * self.dim, self.dim], 1)
        score = torch.sigmoid(self.token_score(F.relu(self.norm(self.spatial(query_key)))))  # (B, 2, N)
        gated = query_key * score.repeat_interleave(self.dim, 1)
        gated = gated * torch.sigmoid(self.channel_score(gated.mean(2, keepdim=True)))
        return self.proj(self.dwc(gated[:, : self.dim] + gated[:, self.dim :]) * value)

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`; and the gates of tokens and channels, the query's first."""
        query_key, value = self.qkv(x).split([2 * self.dim, self.dim], 1)
        score = torch.sigmoid(self.token_score(F.relu(self.norm(self.spatial(query_key)))))  # (B, 2, N)
        gated = query_key * score.repeat_interleave(self.dim, 1)
        gate = torch.sigmoid(self.channel_score(gated.mean(2, keepdim=True)))  # (B, 2 C, 1)
        key = (gated * gate).unflatten(1, (2, self.dim)).sum(1)
        act = self.dwc(key)
        return {
            "query": Slot(query_key[:, : self.dim]),
            "key": Slot(key),
            "act": Slot(act),
            "value": Slot(self.proj(act * value)),
            "token_gate": Slot(score),
            "channel_gate": Slot(gate.view(-1, 2, self.dim), "gates"),
        }

    @torch.no_grad()
    def fuse(self) -> AdditiveAttention:
        """A copy with the norm folded into the depthwise convolution before it."""
        new = copy.deepcopy(self)
        if isinstance(new.norm, nn.BatchNorm1d):
            new.spatial = fuse_conv_bn_eval(self.spatial, new.norm)
            new.norm = nn.Identity()
        return new
