"""Separable self-attention of MobileViTv2 (arXiv:2206.02680): one context vector for all tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tokenmix.mixers.slots import Slot, Slots


class SeparableAttention(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: ``proj(relu(v) * sum_n softmax_n(s) k_n)``, one score s per token, linear cost.

    Source: arXiv:2206.02680 (MobileViTv2), section 3. ``qkv`` holds the score (1 channel), key (C) and value (C).

    Args:
        dim: Channels, C.
        device: Where the parameters are created.
        dtype: Their type.

    Examples:
        >>> SeparableAttention(16).qkv.weight.shape
        torch.Size([33, 16, 1, 1])
    """

    input_layers = ("qkv",)
    output_layer = "proj"

    def __init__(self, dim: int, *, device=None, dtype=None) -> None:
        super().__init__()
        self.dim = dim
        self.qkv = nn.Conv2d(dim, 1 + 2 * dim, 1, device=device, dtype=dtype)
        self.proj = nn.Conv2d(dim, dim, 1, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        score, key, value = self.qkv(x).split([1, self.dim, self.dim], 1)
        weights = torch.softmax(score.flatten(2), -1)  # (B, 1, N)
        context = key.flatten(2) @ weights.transpose(-1, -2)  # (B, C, 1)
        return self.proj(torch.relu(value) * context.unsqueeze(-1))

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`: scores, their softmax over the tokens, the context that they make."""
        score, key, value = self.qkv(x).split([1, self.dim, self.dim], 1)
        weights = torch.softmax(score.flatten(2), -1)
        context = key.flatten(2) @ weights.transpose(-1, -2)  # (B, C, 1)
        return {
            "query": Slot(score),
            "key": Slot(weights.view_as(score)),
            "act": Slot(context.transpose(1, 2), "gates"),
            "value": Slot(self.proj(torch.relu(value) * context.unsqueeze(-1))),
        }
