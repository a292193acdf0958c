"""Softmax attention (arXiv:1706.03762) among all tokens, as in ViT (arXiv:2010.11929)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.mixers.slots import Slot, Slots


class SoftmaxAttention(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: softmax(q k^T / sqrt(d)) v over the H W tokens, per head of d channels.

    Source: arXiv:1706.03762, eq. 1; arXiv:2010.11929. ``qkv`` holds query, key and value in this order.

    Args:
        dim: Channels.
        head_dim: Channels of a head, d; the largest divisor of ``dim`` up to it is taken.
        qkv_bias: Whether query, key and value have a bias.
        device: Where the parameters are created.
        dtype: Their type.

    Raises:
        ValueError: If ``head_dim`` is below 1.

    Examples:
        >>> SoftmaxAttention(48).head_dim  # the largest divisor of 48 up to 32
        24
    """

    input_layers = ("qkv",)
    output_layer = "proj"

    def __init__(self, dim: int, *, head_dim: int = 32, qkv_bias: bool = False, device=None, dtype=None) -> None:
        super().__init__()
        if head_dim < 1:
            raise ValueError(f"head_dim of attention must be at least 1, not {head_dim}")
        self.head_dim = max(d for d in range(1, min(head_dim, dim) + 1) if dim % d == 0)
        self.heads = dim // self.head_dim
        self.qkv = nn.Conv2d(dim, 3 * dim, 1, bias=qkv_bias, device=device, dtype=dtype)
        self.proj = nn.Conv2d(dim, dim, 1, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        # The channels of a token side by side: the kernel for attention is twice as fast on a CPU then.
        qkv = self.qkv(x).flatten(2).transpose(1, 2).contiguous()
        q, k, v = qkv.unflatten(-1, (3, self.heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)  # (B, heads, H W, head_dim)
        return self.proj(y.transpose(-1, -2).reshape(x.size(0), x.size(1), x.size(2), x.size(3)))

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`, in the frame of `attention_frame`."""
        q, k, v = self.qkv(x).flatten(2).unflatten(1, (3, self.heads, self.head_dim)).unbind(1)  # (B, heads, d, N)
        scores = q.transpose(-1, -2) @ k * self.head_dim**-0.5
        weights = torch.softmax(scores, -1)
        return {
            "query": Slot(q.reshape(x.shape)),
            "key": Slot(scores, "attention"),
            "act": Slot(weights, "attention"),
            "value": Slot(self.proj((v @ weights.transpose(-1, -2)).reshape(x.shape))),
        }
