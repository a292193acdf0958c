"""ReLU linear attention of EfficientViT (arXiv:2205.14756): attention without softmax, at two scales."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tokenmix.mixers.slots import Slot, Slots


class ReluLinearAttention(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: ``proj`` of ``relu(q) (relu(K)^T V) / (relu(q) relu(K)^T 1)`` at two scales.

    The second scale's query, key and value are a depthwise ``size`` x ``size`` (``nearby``) and a 1x1 convolution
    inside each of their heads (``blend``) of the first scale's, which ``qkv`` makes: C channels, d for a head, query,
    key and value of a head side by side. ``proj`` reads the heads of the first, then of the second scale.

    Source: arXiv:2205.14756, section 3.1, and its official code. Ours: both sums are divided by the number
    of tokens, so that half precision does not overflow; ``proj`` has a bias instead of the batch norm.

    Args:
        dim: Channels.
        head_dim: Channels of a head, d; the largest divisor of ``dim`` up to it is taken.
        size: Kernel of the second scale in pixels, odd.
        device: Where the parameters are created.
        dtype: Their type.

    Raises:
        ValueError: If ``head_dim`` is below 1, or the size is even or below 1.

    Examples:
        >>> import torch
        >>> ReluLinearAttention(16)(torch.zeros(2, 16, 7, 7)).shape
        torch.Size([2, 16, 7, 7])
    """

    input_layers = ("qkv",)
    output_layer = "proj"

    def __init__(self, dim: int, *, head_dim: int = 16, size: int = 5, device=None, dtype=None) -> None:
        super().__init__()
        if head_dim < 1:
            raise ValueError(f"head_dim of relu_linear must be at least 1, not {head_dim}")
        if size < 1 or size % 2 == 0:
            raise ValueError(f"the size of relu_linear must be odd and at least 1, not {size}")
        self.head_dim = max(d for d in range(1, min(head_dim, dim) + 1) if dim % d == 0)
        self.eps = 1e-5
        wide, dd = 3 * dim, {"device": device, "dtype": dtype}
        self.qkv = nn.Conv2d(dim, wide, 1, bias=False, **dd)
        self.nearby = nn.Conv2d(wide, wide, size, padding=size // 2, groups=wide, bias=False, **dd)
        self.blend = nn.Conv2d(wide, wide, 1, groups=wide // self.head_dim, bias=False, **dd)
        self.proj = nn.Conv2d(2 * dim, dim, 1, **dd)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x)
        both = torch.cat([qkv, self.blend(self.nearby(qkv))], 1).flatten(2)
        q, k, v = both.unflatten(1, (-1, 3, self.head_dim)).unbind(2)  # (B, heads of both scales, d, N)
        q, k = torch.relu(q), torch.relu(k)
        key_value = v @ (k / k.size(-1)).transpose(-1, -2)  # (B, heads, d of v, d of k)
        weight = (q * k.mean(-1, keepdim=True)).sum(2, keepdim=True)
        y = (key_value @ q) / (weight + self.eps)
        return self.proj(y.flatten(1, 2).unflatten(-1, (x.size(2), x.size(3))))

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`; ``act`` has the weights of all tokens, which ``forward`` never makes."""
        qkv, size = self.qkv(x), x.shape[-2:]
        both = torch.cat([qkv, self.blend(self.nearby(qkv))], 1).flatten(2)
        q, k, v = both.unflatten(1, (-1, 3, self.head_dim)).unbind(2)
        q, k = torch.relu(q), torch.relu(k)
        weight = (q * k.mean(-1, keepdim=True)).sum(2, keepdim=True)
        act = (q.transpose(-1, -2) @ (k / k.size(-1))) / (weight + self.eps).transpose(-1, -2)  # (B, heads, N, N)
        return {
            "query": Slot(q.flatten(1, 2).unflatten(-1, size)),
            "key": Slot(k.flatten(1, 2).unflatten(-1, size)),
            "act": Slot(act, "attention"),
            "value": Slot(self.proj((v @ act.transpose(-1, -2)).flatten(1, 2).unflatten(-1, size))),
        }
