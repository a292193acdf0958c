"""The star operation of StarNet (arXiv:2403.19967): the product of two linear maps, between depthwise convolutions."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.layers import ConvNorm
from tokenmix.mixers.slots import Slot, Slots


class StarOperation(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: ``spread(gather(relu6(first(y)) * second(y)))``, ``y = local(x)``.

    ``local`` and ``spread`` are depthwise 7x7, ``first`` and ``second`` 1x1 to ``ratio`` C channels, ``gather`` 1x1
    back; ``local`` and ``gather`` end with a batch norm. Source: arXiv:2403.19967 and its official code,
    which has no MLP beside this: in a skeleton that has one, a ratio of 1 is closer in cost to the other mixers.

    Args:
        dim: Channels.
        ratio: Channels of the product over ``dim``.
        kernel_size: Of the depthwise convolutions, odd.
        device: Where the parameters are created.
        dtype: Their type.

    Raises:
        ValueError: If the ratio is below 1, or the kernel size is even or below 1.

    Examples:
        >>> StarOperation(16, ratio=2).first.weight.shape
        torch.Size([32, 16, 1, 1])
    """

    output_layer = "spread"

    def __init__(self, dim: int, *, ratio: int = 4, kernel_size: int = 7, device=None, dtype=None) -> None:
        super().__init__()
        if ratio < 1:
            raise ValueError(f"the ratio of star must be at least 1, not {ratio}")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"the kernel size of star must be odd and at least 1, not {kernel_size}")
        dd = {"device": device, "dtype": dtype}
        self.local = ConvNorm(dim, dim, kernel_size, groups=dim, **dd)
        self.first = nn.Conv2d(dim, ratio * dim, 1, **dd)
        self.second = nn.Conv2d(dim, ratio * dim, 1, **dd)
        self.gather = ConvNorm(ratio * dim, dim, **dd)
        self.spread = nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim, **dd)

    def forward(self, x: Tensor) -> Tensor:
        y = self.local(x)
        return self.spread(self.gather(F.relu6(self.first(y)) * self.second(y)))

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`; and the other factor of the product."""
        y = self.local(x)
        key, other = self.first(y), self.second(y)
        act = F.relu6(key)
        value = self.spread(self.gather(act * other))
        return {"query": Slot(y), "key": Slot(key), "act": Slot(act), "value": Slot(value), "other": Slot(other)}
