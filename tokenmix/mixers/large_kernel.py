"""Large-kernel attention of VAN (arXiv:2202.09741): a 21 x 21 kernel in three cheap parts weighs the map."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.mixers.slots import Slot, Slots


class LargeKernelAttention(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: ``proj(u * attend(dilated(local(u))))``, ``u = gelu(query(x))``.

    ``local`` is a depthwise 5x5, ``dilated`` a depthwise 7x7 with dilation 3, ``attend`` a 1x1 convolution: together
    they approximate a 21x21 convolution (arXiv:2202.09741, section 3.1). Source: the paper and its
    official code, whose residual around this is left to the block.

    Args:
        dim: Channels.
        device: Where the parameters are created.
        dtype: Their type.

    Examples:
        >>> import torch
        >>> LargeKernelAttention(16)(torch.zeros(2, 16, 7, 7)).shape
        torch.Size([2, 16, 7, 7])
    """

    input_layers = ("query",)
    output_layer = "proj"

    def __init__(self, dim: int, *, device=None, dtype=None) -> None:
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.query = nn.Conv2d(dim, dim, 1, **dd)
        self.local = nn.Conv2d(dim, dim, 5, padding=2, groups=dim, **dd)
        self.dilated = nn.Conv2d(dim, dim, 7, padding=9, dilation=3, groups=dim, **dd)
        self.attend = nn.Conv2d(dim, dim, 1, **dd)
        self.proj = nn.Conv2d(dim, dim, 1, **dd)

    def forward(self, x: Tensor) -> Tensor:
        u = F.gelu(self.query(x))
        return self.proj(u * self.attend(self.dilated(self.local(u))))

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`: u, what weighs it, and the output."""
        u = F.gelu(self.query(x))
        key = self.attend(self.dilated(self.local(u)))
        return {"query": Slot(u), "key": Slot(key), "value": Slot(self.proj(u * key))}
