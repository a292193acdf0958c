"""No mixing: what a skeleton reaches by itself."""

from __future__ import annotations

from torch import Tensor, nn

from tokenmix.mixers.slots import Slot, Slots


class Identity(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: the input; what a skeleton reaches without any mixing. No parameters.

    Args:
        dim: Channels; only for the common signature.
        device: Not used: there is no parameter.
        dtype: Not used.

    Examples:
        >>> import torch
        >>> x = torch.randn(2, 16, 7, 7)
        >>> torch.equal(Identity(16)(x), x)
        True
    """

    def __init__(self, dim: int, *, device=None, dtype=None) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`."""
        return {"value": Slot(x)}
