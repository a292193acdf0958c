"""The pooling of PoolFormer (arXiv:2111.11418): mixing without a parameter."""

from __future__ import annotations

from torch import Tensor, nn

from tokenmix.mixers.slots import Slot, Slots


class Pooling(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: the mean of the neighbourhood minus the pixel.

    Source: arXiv:2111.11418 (PoolFormer), eq. 4.

    Args:
        dim: Channels; only for the common signature.
        size: Side of the neighbourhood in pixels, odd. Only pixels of the image count.
        device: Not used: there is no parameter.
        dtype: Not used.

    Raises:
        ValueError: If the size is even or below 1.

    Examples:
        >>> import torch
        >>> Pooling(1)(torch.ones(1, 1, 5, 5)).abs().max()  # of a constant map nothing stays
        tensor(0.)
    """

    def __init__(self, dim: int, *, size: int = 3, device=None, dtype=None) -> None:
        super().__init__()
        if size < 1 or size % 2 == 0:
            raise ValueError(f"the size of pool must be odd and at least 1, not {size}")
        self.pool = nn.AvgPool2d(size, 1, size // 2, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x) - x

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`: the means, and less the pixels."""
        mean = self.pool(x)
        return {"key": Slot(mean), "value": Slot(mean - x)}
