"""The partial convolution of FasterNet (arXiv:2303.03667): a full convolution of few channels, the others stay."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tokenmix.mixers.slots import Slot, Slots


class PartialConvolution(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: a full 3x3 convolution, without a bias, of the first C / 4 channels.

    Source: arXiv:2303.03667 (a partial ratio of 1/4) and its official code. Ours: below 4 channels it takes one.

    Args:
        dim: Channels.
        kernel_size: In pixels, odd.
        device: Where the parameters are created.
        dtype: Their type.

    Raises:
        ValueError: If the kernel size is even or below 1.

    Examples:
        >>> PartialConvolution(16).conv.weight.shape
        torch.Size([4, 4, 3, 3])
    """

    def __init__(self, dim: int, *, kernel_size: int = 3, device=None, dtype=None) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"the kernel size of partial must be odd and at least 1, not {kernel_size}")
        some = max(dim // 4, 1)
        self.parts = [some, dim - some]
        self.conv = nn.Conv2d(some, some, kernel_size, padding=kernel_size // 2, bias=False, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        some, others = x.split(self.parts, 1)
        return torch.cat([self.conv(some), others], 1)

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`."""
        key = self.forward(x)
        return {"key": Slot(key), "value": Slot(key)}
