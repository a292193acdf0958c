"""Focal modulation of FocalNet (arXiv:2203.11926): contexts from near to far, gated per pixel, modulate the query."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.mixers.slots import Slot, Slots


class FocalModulation(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: ``proj(q * modulator(sum_l g_l z_l))``.

    ``z_l = gelu(depthwise_l(z_{l-1}))`` for the levels l = 1 to L with kernels that grow by 2, and the last context is
    the whole map, ``z_{L+1} = gelu(mean(z_L))``. One 1x1 convolution ``qzg`` makes the query q (C channels), z_0 (C)
    and a gate g_l for each context (L + 1), in this order.

    Source: arXiv:2203.11926, section 3, and its official code, without the norm that some of its variants have.

    Args:
        dim: Channels.
        levels: L, the number of depthwise convolutions.
        window: Kernel of the first one in pixels, odd.
        device: Where the parameters are created.
        dtype: Their type.

    Raises:
        ValueError: If there is no level, or the window is even or below 1.

    Examples:
        >>> FocalModulation(16, levels=3).qzg.weight.shape  # query, z_0 and 4 gates
        torch.Size([36, 16, 1, 1])
    """

    input_layers = ("qzg",)
    output_layer = "proj"

    def __init__(self, dim: int, *, levels: int = 2, window: int = 3, device=None, dtype=None) -> None:
        super().__init__()
        if levels < 1:
            raise ValueError(f"focal needs at least 1 level, not {levels}")
        if window < 1 or window % 2 == 0:
            raise ValueError(f"the window of focal must be odd and at least 1, not {window}")
        dd = {"device": device, "dtype": dtype}
        self.parts = [dim, dim, levels + 1]
        self.qzg = nn.Conv2d(dim, sum(self.parts), 1, **dd)
        self.levels = nn.ModuleList(
            nn.Conv2d(dim, dim, size, padding=size // 2, groups=dim, bias=False, **dd)
            for size in range(window, window + 2 * levels, 2)
        )
        self.modulator = nn.Conv2d(dim, dim, 1, **dd)
        self.proj = nn.Conv2d(dim, dim, 1, **dd)

    def forward(self, x: Tensor) -> Tensor:
        query, context, gates = self.qzg(x).split(self.parts, 1)
        contexts = []
        for depthwise in self.levels:
            context = F.gelu(depthwise(context))
            contexts.append(context)
        total = F.gelu(context.mean([2, 3], keepdim=True)) * gates[:, -1:]
        for level, context in enumerate(contexts):
            total = total + context * gates[:, level : level + 1]
        return self.proj(query * self.modulator(total))

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`: the query, the last context, the modulator; and each context's gate."""
        query, context, gates = self.qzg(x).split(self.parts, 1)
        total = torch.zeros_like(query)
        for level, depthwise in enumerate(self.levels):
            context = F.gelu(depthwise(context))
            total = total + context * gates[:, level : level + 1]
        act = self.modulator(total + F.gelu(context.mean([2, 3], keepdim=True)) * gates[:, -1:])
        return {
            "query": Slot(query),
            "key": Slot(context),
            "act": Slot(act),
            "value": Slot(self.proj(query * act)),
            "gates": Slot(gates),
        }
