"""The shift of ShiftViT (arXiv:2201.10801): a few channels moved by one pixel each way, nothing computed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.mixers.slots import Slot, Slots


class Shift(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: four groups of C / 12 channels move left, right, up and down by one pixel.

    They are the first channels, in this order; zeros move in from outside, the other channels stay. No parameters.
    Source: arXiv:2201.10801 (gamma = 1/12) and its official code. Ours: below 12 channels a group has one
    channel, below 4 there are as many groups as channels.

    Args:
        dim: Channels.
        device: Not used: there is no parameter.
        dtype: Not used.

    Examples:
        >>> import torch
        >>> row = torch.tensor([1.0, 2.0, 3.0]).expand(1, 12, 1, 3)
        >>> Shift(12)(row)[0, :2, 0]  # the first channel moves left, the second right
        tensor([[2., 3., 0.],
                [0., 1., 2.]])
    """

    def __init__(self, dim: int, *, device=None, dtype=None) -> None:
        super().__init__()
        self.sources = [(0, 1), (0, -1), (1, 0), (-1, 0)][:dim]  # where a pixel comes from: rows below, columns right
        self.group = max(dim // 12, 1)

    def forward(self, x: Tensor) -> Tensor:
        moved = self.group * len(self.sources)
        padded = F.pad(x[:, :moved], [1, 1, 1, 1])
        out = []
        for place, (below, right) in enumerate(self.sources):
            part = padded.narrow(1, place * self.group, self.group)
            out.append(part.narrow(2, 1 + below, x.size(2)).narrow(3, 1 + right, x.size(3)))
        out.append(x[:, moved:])
        return torch.cat(out, 1)

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`."""
        key = self.forward(x)
        return {"key": Slot(key), "value": Slot(key)}
