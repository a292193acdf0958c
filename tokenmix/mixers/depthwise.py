"""A depthwise convolution of large kernel, as in ConvNeXt (arXiv:2201.03545)."""

from __future__ import annotations

from torch import Tensor, nn

from tokenmix.mixers.slots import Slot, Slots


class Depthwise(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: depthwise convolution with a bias (ConvNeXt, arXiv:2201.03545: 7x7).

    Args:
        dim: Channels.
        kernel_size: In pixels, odd.
        device: Where the parameters are created.
        dtype: Their type.

    Raises:
        ValueError: If the kernel size is even or below 1.

    Examples:
        >>> sum(p.numel() for p in Depthwise(16, kernel_size=3).parameters())  # 16 x (3 x 3 + 1)
        160
    """

    output_layer = "conv"

    def __init__(self, dim: int, *, kernel_size: int = 7, device=None, dtype=None) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"the kernel size of depthwise must be odd and at least 1, not {kernel_size}")
        self.conv = nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`."""
        key = self.conv(x)
        return {"key": Slot(key), "value": Slot(key)}
