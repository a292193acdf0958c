"""The 2-D selective scan of VMamba (arXiv:2401.10166) as one masked matrix product for each direction."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.layers import LayerNorm2d
from tokenmix.mixers.slots import Slots, named_slots
from tokenmix.ops.fourier import widen
from tokenmix.ops.scans import in_all_orders, sum_between_pixels, sum_of_orders

# A leaf for torch.fx: it looks at the dtype.
torch.fx.wrap("widen")


class SelectiveScan(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: ``proj(norm(sum of four scans of u))``, ``u = silu(depthwise3x3(expand(x)))``.

    A scan walks over the N = H W pixels by rows or columns, forwards or backwards, with a state h for each channel:
    ``h_t = exp(-s_t a) h_{t-1} + s_t b_t u_t``, ``y_t = c_t . h_t + skip u_t``. Step s, input b and output c are linear
    in u, ``s = softplus(.. + step_bias)``; ``a = exp(log_decay)`` and s are shared by the d channels of a head.

    Source: arXiv:2401.10166 (the form without a gate) and arXiv:2312.00752, algorithm 2. Ours: decay and step per head,
    as in Mamba-2 (arXiv:2405.21060), so that ``y_t = sum_{s <= t} exp(S_t - S_s) (c_t . b_s) step_s u_s`` with S the
    sums of ``-s a``: a matrix product, which runs and exports everywhere, and is quadratic in N in time and memory,
    where a kernel for the recurrence is linear.

    Args:
        dim: Channels.
        state: Numbers of a channel's state.
        head_dim: Channels of a head, d; the largest divisor of ``dim`` up to it is taken.
        device: Where the parameters are created.
        dtype: Their type.

    Raises:
        ValueError: If ``state`` or ``head_dim`` is below 1.

    Examples:
        >>> SelectiveScan(16, state=8).select.shape  # of each direction: one step, 8 numbers b and 8 numbers c
        torch.Size([4, 17, 16])
    """

    input_layers = ("expand",)
    output_layer = "proj"

    def __init__(self, dim: int, *, state: int = 16, head_dim: int = 32, device=None, dtype=None) -> None:
        super().__init__()
        if state < 1 or head_dim < 1:
            raise ValueError(f"state and head_dim of selective_scan must be at least 1, not {state} and {head_dim}")
        self.heads = dim // max(d for d in range(1, min(head_dim, dim) + 1) if dim % d == 0)
        self.parts = [self.heads, state, state]
        dd = {"device": device, "dtype": dtype}
        self.expand = nn.Conv2d(dim, dim, 1, bias=False, **dd)
        self.depthwise = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, **dd)
        self.select = nn.Parameter(torch.randn(4, sum(self.parts), dim, **dd) * dim**-0.5)  # step, b, c
        steps = torch.exp(torch.empty(4, self.heads, **dd).uniform_(math.log(0.001), math.log(0.1)))
        self.step_bias = nn.Parameter(torch.log(torch.expm1(steps)))  # the inverse of softplus
        self.log_decay = nn.Parameter(torch.log(torch.empty(4, self.heads, **dd).uniform_(1, 16)))
        self.skip = nn.Parameter(torch.ones(4, dim, **dd))
        self.norm = LayerNorm2d(dim, **dd)
        self.proj = nn.Conv2d(dim, dim, 1, bias=False, **dd)

    def forward(self, x: Tensor) -> Tensor:
        u = F.silu(self.depthwise(self.expand(x)))
        lines = in_all_orders(u)  # (B, 4, C, N)
        y = lines.unflatten(2, (self.heads, -1)) @ self.scans(lines).transpose(-1, -2).to(u.dtype)
        return self.proj(
            self.norm(sum_of_orders(y.flatten(2, 3) + self.skip[:, :, None] * lines, x.size(2), x.size(3)))
        )

    def scans(self, lines: Tensor) -> Tensor:
        """``(B, 4, C, N) -> (B, 4, heads, N, N)``: what each token takes from those before it, for each direction."""
        step, write, read = (self.select @ lines).split(self.parts, 2)
        step = F.softplus(widen(step) + self.step_bias[:, :, None])  # (B, 4, heads, N)
        total = torch.cumsum(-step * torch.exp(widen(self.log_decay))[:, :, None], -1)
        # What is left at t of what came in at s; later s are cut off, their clamp keeps them finite.
        left = torch.tril(torch.exp((total.unsqueeze(-1) - total.unsqueeze(-2)).clamp(max=0)))
        return (read.transpose(-1, -2) @ write).unsqueeze(2) * left * step.unsqueeze(-2)

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`: u, what its pixels take from one another in all four scans, the output."""
        u = F.silu(self.depthwise(self.expand(x)))
        act = sum_between_pixels(self.scans(in_all_orders(u)), x.size(2), x.size(3))  # (B, heads, N, N)
        y = u.flatten(2).unflatten(1, (self.heads, -1)) @ act.transpose(-1, -2).to(u.dtype)
        y = y.reshape(u.shape) + self.skip.sum(0)[:, None, None] * u
        return named_slots("query act value", (u, act, self.proj(self.norm(y))), act="attention")
