"""The gated convolution of MambaOut (arXiv:2405.07992): what is left of Mamba's block without its scan."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.mixers.slots import Slot, Slots


class GatedConvolution(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: ``proj(gelu(g) * [i, depthwise(c)])``, ``g, i, c = expand(x)``.

    The gate g has ``int(ratio * C)`` channels, the convolved part c has C, the part i in between has the rest.
    Source: arXiv:2405.07992 and its official code, which has no MLP beside this.

    Args:
        dim: Channels.
        ratio: Channels of the gate over ``dim``, at least 1.
        kernel_size: Of the depthwise convolution, odd.
        device: Where the parameters are created.
        dtype: Their type.

    Raises:
        ValueError: If the ratio is below 1, or the kernel size is even or below 1.

    Examples:
        >>> GatedConvolution(24, ratio=2).parts  # of g, i and c
        [48, 24, 24]
    """

    input_layers = ("expand",)
    output_layer = "proj"

    def __init__(self, dim: int, *, ratio: float = 8 / 3, kernel_size: int = 7, device=None, dtype=None) -> None:
        super().__init__()
        if ratio < 1:
            raise ValueError(f"the ratio of gated_conv must be at least 1, not {ratio}")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"the kernel size of gated_conv must be odd and at least 1, not {kernel_size}")
        hidden, dd = int(ratio * dim), {"device": device, "dtype": dtype}
        self.parts = [hidden, hidden - dim, dim]
        self.expand = nn.Conv2d(dim, 2 * hidden, 1, **dd)
        self.depthwise = nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim, **dd)
        self.proj = nn.Conv2d(hidden, dim, 1, **dd)

    def forward(self, x: Tensor) -> Tensor:
        gate, kept, convolved = self.expand(x).split(self.parts, 1)
        return self.proj(F.gelu(gate) * torch.cat([kept, self.depthwise(convolved)], 1))

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`: what is convolved, convolved, the output; and the gate."""
        gate, kept, convolved = self.expand(x).split(self.parts, 1)
        gate, key = F.gelu(gate), torch.cat([kept, self.depthwise(convolved)], 1)
        return {
            "query": Slot(torch.cat([kept, convolved], 1)),
            "key": Slot(key),
            "value": Slot(self.proj(gate * key)),
            "gate": Slot(gate),
        }
