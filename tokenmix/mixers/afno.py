"""The adaptive Fourier neural operator of AFNO (arXiv:2111.13587): a small complex network at every frequency."""

from __future__ import annotations

import torch
from torch import Tensor

from tokenmix.mixers.complex_maps import ComplexMaps, soft_shrink
from tokenmix.mixers.slots import Slot, Slots, spectrum_slot
from tokenmix.ops.fourier import irfft2_planes, rfft2_planes

# Leaves for torch.fx: they look at dtypes, devices and the autocast state.
torch.fx.wrap("rfft2_planes")
torch.fx.wrap("irfft2_planes")


class FourierOperator(ComplexMaps):
    """``(B, C, H, W) -> (B, C, H, W)``: ``irfft2(softshrink(map2(relu(map1(rfft2(x))))))``.

    Both maps are complex, linear in the channels and block-diagonal, the same at every frequency; ReLU and soft-shrink
    act on real and imaginary part separately. Where `tokenmix.mixers.frequency.FrequencyFilter` makes a mask of the
    spectrum, this makes the spectrum itself. Computed in float32 for half inputs and under autocast.

    Source: arXiv:2111.13587 and its official code, whose parameters these are: ``w1``, ``w2``
    ``(2, G, b, b)`` (part, group, input channel, output channel), ``b1``, ``b2`` ``(2, G, b)``, b = C / G. Ours: the
    input that the official code adds is left to the block, which has a skip, and all frequencies are kept.

    Args:
        dim: Channels.
        groups: Diagonal blocks; None means gcd(dim, 8).
        threshold: Of the soft-shrink.
        device: Where the parameters are created.
        dtype: Their type.

    Raises:
        ValueError: If the groups do not divide the channels or the threshold is negative.

    Examples:
        >>> FourierOperator(32).w1.shape  # 8 blocks of 4 x 4 channels
        torch.Size([2, 8, 4, 4])
    """

    def __init__(
        self, dim: int, *, groups: int | None = None, threshold: float = 0.01, device=None, dtype=None
    ) -> None:
        super().__init__("afno", dim, groups, threshold, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        # The spectrum, (B, 2C, H, W//2+1), real beside imaginary, has no name, so that it is freed.
        return self.back(torch.relu(self.map1(rfft2_planes(x, self.form).flatten(1, 2))), x)

    def back(self, hidden: Tensor, x: Tensor) -> Tensor:
        """``(B, 2C, H, W//2+1) -> (B, C, H, W)``: the second map and what follows it."""
        planes = soft_shrink(self.map2(hidden), self.threshold).unflatten(1, (self.dim, 2))
        return irfft2_planes(planes, x.size(-2), x.size(-1), self.form).to(x.dtype)

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`: the spectrum, after the first map, after the ReLU, and the output."""
        planes = rfft2_planes(x, self.form).flatten(1, 2)
        key = self.map1(planes)
        act = torch.relu(key)
        spectra = {"query": planes, "key": key, "act": act}
        return {
            **{name: spectrum_slot(part.unflatten(1, (self.dim, 2))) for name, part in spectra.items()},
            "value": Slot(self.back(act, x)),
        }
