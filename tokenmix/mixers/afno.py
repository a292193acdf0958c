"""The adaptive Fourier neural operator of AFNO (arXiv:2111.13587): a small complex network at every frequency."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tokenmix.mixers.frequency import grouped_pointwise, real_form, soft_shrink
from tokenmix.mixers.slots import Slot, Slots
from tokenmix.ops.fourier import irfft2_planes, rfft2_macs, rfft2_planes

# Leaves for torch.fx: they look at dtypes, devices and the autocast state.
torch.fx.wrap("rfft2_planes")
torch.fx.wrap("irfft2_planes")
torch.fx.wrap("grouped_pointwise")
torch.fx.wrap("soft_shrink")


class FourierOperator(nn.Module):
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
        ValueError: If the groups do not divide the channels.

    Examples:
        >>> FourierOperator(32).w1.shape  # 8 blocks of 4 x 4 channels
        torch.Size([2, 8, 4, 4])
    """

    def __init__(
        self, dim: int, *, groups: int | None = None, threshold: float = 0.01, device=None, dtype=None
    ) -> None:
        super().__init__()
        groups = math.gcd(dim, 8) if groups is None else groups
        if groups < 1 or dim % groups:
            raise ValueError(
                f"groups={groups} does not divide the {dim} channels of afno; leave it out for {math.gcd(dim, 8)}"
            )
        self.dim = dim
        self.groups = groups
        if threshold < 0:
            raise ValueError(f"the threshold of a soft-shrink must be 0 or more, not {threshold}")
        self.threshold = float(threshold)
        self.form = "auto"
        shape, dd = (2, groups, dim // groups), {"device": device, "dtype": dtype}
        self.w1 = nn.Parameter(0.02 * torch.randn(*shape, dim // groups, **dd))
        self.b1 = nn.Parameter(0.02 * torch.randn(*shape, **dd))
        self.w2 = nn.Parameter(0.02 * torch.randn(*shape, dim // groups, **dd))
        self.b2 = nn.Parameter(0.02 * torch.randn(*shape, **dd))

    def forward(self, x: Tensor) -> Tensor:
        planes = rfft2_planes(x, self.form).flatten(1, 2)  # (B, 2C, H, W//2+1), real beside imaginary
        kernel1, shift1 = real_form(self.w1, self.b1)
        kernel2, shift2 = real_form(self.w2, self.b2)
        hidden = torch.relu(grouped_pointwise(planes, kernel1, shift1, self.groups))
        planes = soft_shrink(grouped_pointwise(hidden, kernel2, shift2, self.groups), self.threshold)
        planes = planes.unflatten(1, (self.dim, 2))
        return irfft2_planes(planes, x.size(-2), x.size(-1), self.form).to(x.dtype)

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`: the spectrum, after the first map, after the ReLU, and the output."""
        planes = rfft2_planes(x, self.form)
        first, second = real_form(self.w1, self.b1), real_form(self.w2, self.b2)
        key = grouped_pointwise(planes.flatten(1, 2), *first, self.groups)
        act = torch.relu(key)
        out = soft_shrink(grouped_pointwise(act, *second, self.groups), self.threshold).unflatten(1, (self.dim, 2))
        key, act = (part.unflatten(1, (self.dim, 2)) for part in (key, act))
        spectra = {"query": planes, "key": key, "act": act}
        return {
            **{name: Slot(torch.complex(part[:, :, 0], part[:, :, 1]), "fourier") for name, part in spectra.items()},
            "value": Slot(irfft2_planes(out, x.size(-2), x.size(-1), self.form).to(x.dtype)),
        }

    def transform_macs(self, height: int, width: int) -> float:
        """Multiply-accumulates of the two transforms of one image of that size in pixels, counted as FFTs."""
        return 2 * self.dim * rfft2_macs(height, width)

    def extra_repr(self) -> str:
        return f"{self.dim}, groups={self.groups}, threshold={self.threshold:g}, form={self.form!r}"
