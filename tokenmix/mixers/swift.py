"""The additive attention of SwiftFormer (arXiv:2303.15446): one global query, without keys times values."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.mixers.slots import Slot, Slots


def _unit(x: Tensor, dim: int) -> Tensor:
    """Vectors along a dimension at length 1; PyTorch's usual eps would be 0 in float16."""
    return F.normalize(x, dim=dim, eps=1e-6)


class SwiftAttention(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: ``out(proj(g * k) + q)``, g = sum_n a_n q_n: SwiftFormer's additive attention.

    q and k are normalised to length 1 over the channels, ``a = q . score / sqrt(C)`` over the tokens.
    Source: arXiv:2303.15446, section 3, and its official code. ``qk`` holds query and key in this order.

    Args:
        dim: Channels, C.
        device: Where the parameters are created.
        dtype: Their type.

    Examples:
        >>> import torch
        >>> SwiftAttention(16)(torch.zeros(2, 16, 7, 7)).shape
        torch.Size([2, 16, 7, 7])
    """

    input_layers = ("qk",)
    output_layer = "out"

    def __init__(self, dim: int, *, device=None, dtype=None) -> None:
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.scale = dim**-0.5
        self.qk = nn.Conv2d(dim, 2 * dim, 1, **dd)
        self.score = nn.Conv2d(dim, 1, 1, bias=False, **dd)
        self.proj = nn.Conv2d(dim, dim, 1, **dd)
        self.out = nn.Conv2d(dim, dim, 1, **dd)

    def forward(self, x: Tensor) -> Tensor:
        query, key = self.qk(x).chunk(2, 1)
        query, key = _unit(query, 1), _unit(key, 1)
        weights = _unit((self.score(query) * self.scale).flatten(2), -1)  # (B, 1, N)
        context = (query.flatten(2) @ weights.transpose(-1, -2)).unsqueeze(-1)  # (B, C, 1, 1)
        return self.out(self.proj(context * key) + query)

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`; and the tokens' weights."""
        query, key = (_unit(part, 1) for part in self.qk(x).chunk(2, 1))
        weights = _unit((self.score(query) * self.scale).flatten(2), -1)
        mixed = (query.flatten(2) @ weights.transpose(-1, -2)).unsqueeze(-1) * key
        return {
            "query": Slot(query),
            "key": Slot(mixed),
            "value": Slot(self.out(self.proj(mixed) + query)),
            "weights": Slot(weights.view(x.size(0), 1, x.size(2), x.size(3))),
        }
