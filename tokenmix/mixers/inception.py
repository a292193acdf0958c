"""The inception depthwise convolution of InceptionNeXt (arXiv:2303.16900): a square, a row and a column kernel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tokenmix.mixers.slots import Slot, Slots


class InceptionDepthwise(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: most channels stay, three groups of C / 8 get 3x3, 1x11 and 11x1 kernels.

    The groups are the last channels, in this order, each depthwise with a bias. Source: arXiv:2303.16900
    and its official code. Ours: below 8 channels a group has one channel, below 3 there are as many groups as channels.

    Args:
        dim: Channels.
        square: Side of the square kernel in pixels, odd.
        band: Length of the row and column kernels in pixels, odd.
        device: Where the parameters are created.
        dtype: Their type.

    Raises:
        ValueError: If a size is even or below 1.

    Examples:
        >>> InceptionDepthwise(64).parts  # what stays, then 3x3, 1x11 and 11x1
        [40, 8, 8, 8]
    """

    def __init__(self, dim: int, *, square: int = 3, band: int = 11, device=None, dtype=None) -> None:
        super().__init__()
        for size in (square, band):
            if size < 1 or size % 2 == 0:
                raise ValueError(f"a kernel size of inception must be odd and at least 1, not {size}")
        sizes = [(square, square), (1, band), (band, 1)][:dim]
        group = max(dim // 8, 1)
        self.parts = [dim - group * len(sizes), *(group for _ in sizes)]
        self.branches = nn.ModuleList(
            nn.Conv2d(group, group, (h, w), padding=(h // 2, w // 2), groups=group, device=device, dtype=dtype)
            for h, w in sizes
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = x.split(self.parts, 1)
        out = [parts[0]]
        for place, branch in enumerate(self.branches):
            out.append(branch(parts[place + 1]))
        return torch.cat(out, 1)

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`."""
        key = self.forward(x)
        return {"key": Slot(key), "value": Slot(key)}
