"""The adaptive frequency filter of AFFNet (arXiv:2307.14008): a convolution as large as the image, made from it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tokenmix.layers import activation
from tokenmix.mixers.complex_maps import ComplexMaps, soft_shrink
from tokenmix.mixers.frequency_forms import FORMS
from tokenmix.mixers.slots import Slot, Slots, spectrum_slot
from tokenmix.ops.dispatch import operator
from tokenmix.ops.fourier import filter_planes, rfft2_planes

# Leaves for torch.fx: they look at dtypes, devices and the autocast state.
torch.fx.wrap("rfft2_planes")
torch.fx.wrap("filter_planes")


class FrequencyFilter(ComplexMaps):
    """``(B, C, H, W) -> (B, C, H, W)``: ``irfft2(M * X)``, ``X = rfft2(x)``, ``M = softshrink(map2(act(map1(X))))``.

    Both maps are complex, linear in the channels and block-diagonal, the same at every frequency; activation and
    soft-shrink act on real and imaginary part separately. By the convolution theorem this is a circular convolution
    with the kernel ``irfft2(M, norm="backward")``. Computed in float32 for half inputs and under autocast.

    Source: arXiv:2307.14008 and its official code, whose parameters these are: ``w1``, ``w2`` ``(2, G, b, b)`` (part,
    group, input channel, output channel), ``b1``, ``b2`` ``(2, G, b)``, b = C / G. Its residual is left to the block.

    Args:
        dim: Channels.
        groups: Diagonal blocks; None means gcd(dim, 8).
        threshold: Of the soft-shrink.
        act: See `tokenmix.layers.activation`; ``"prelu"`` learns one slope for each part. Released networks have SiLU.
        device: Where the parameters are created.
        dtype: Their type.

    Raises:
        ValueError: If the groups do not divide the channels, the threshold is negative or the activation is unknown.

    Examples:
        >>> FrequencyFilter(32, groups=4).w1.shape  # 4 blocks of 8 x 8 channels
        torch.Size([2, 4, 8, 8])
    """

    def __init__(
        self,
        dim: int,
        *,
        groups: int | None = None,
        threshold: float = 0.01,
        act: str | Callable[[], nn.Module] = "silu",
        device=None,
        dtype=None,
    ) -> None:
        dd = {"device": device, "dtype": dtype}
        super().__init__("aff", dim, groups, threshold, **dd)
        self.act, self.act2 = activation(act, **dd), activation(act, **dd)  # of real and imaginary parts
        # One call for both parts where they cannot differ.
        self.shared_act = type(self.act) is type(self.act2) and not [*self.act.parameters(), *self.act2.parameters()]

    @operator(*FORMS)
    def forward(self, x: Tensor) -> Tensor:
        planes = rfft2_planes(x, self.form)  # (B, C, 2, H, W//2+1)
        mask = soft_shrink(self.mapped(planes), self.threshold)
        return filter_planes(planes, mask, x.size(-2), x.size(-1), self.form).to(x.dtype)

    def mapped(self, planes: Tensor) -> Tensor:
        """``(B, C, 2, H, W//2+1)`` to the same: both maps of a spectrum; the mask before it is shrunk."""
        hidden = self.map1(planes.flatten(1, 2))
        if self.shared_act:
            hidden = self.act(hidden)
        else:
            parts = hidden.unflatten(1, (self.dim, 2))
            hidden = torch.stack([self.act(parts.select(2, 0)), self.act2(parts.select(2, 1))], 2).flatten(1, 2)
        return self.map2(hidden).unflatten(1, (self.dim, 2))

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`: spectrum, the mask before and after the soft-shrink, output."""
        planes = rfft2_planes(x, self.form)
        mapped = self.mapped(planes)
        mask = soft_shrink(mapped, self.threshold)
        return {
            "query": spectrum_slot(planes),
            "key": spectrum_slot(mapped),
            "act": spectrum_slot(mask, "filter"),
            "value": Slot(filter_planes(planes, mask, x.size(-2), x.size(-1), self.form).to(x.dtype)),
        }
