"""Window attention of Swin (arXiv:2103.14030): softmax attention inside squares of the map."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tokenmix.mixers.slots import Slots, named_slots
from tokenmix.ops.windows import between_all, from_windows, offset_bias, to_windows

torch.fx.wrap("offset_bias")  # a leaf for torch.fx


class WindowAttention(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: ``proj(softmax(q k^T / sqrt(d) + bias) v)`` among the pixels of each window.

    The map is cut into ``window`` x ``window`` squares; ``bias`` depends on the head and on the offset between the two
    pixels: ``offsets`` (heads, 2 window - 1, 2 window - 1). ``qkv`` holds query, key and value in this order.

    Source: arXiv:2103.14030, section 3.2 and eq. 4. Ours: a map that windows do not divide is padded, and nothing
    attends to the padding (the official code lets it take part); a shift moves the grid of windows, which is what the
    paper's cyclic shift with its mask computes. Swin alternates shifts of 0 and ``window // 2``; here it is an option.

    Args:
        dim: Channels.
        window: Side of a window in pixels.
        shift: How far the grid of windows is moved, from 0 to ``window - 1`` pixels.
        head_dim: Channels of a head, d; the largest divisor of ``dim`` up to it is taken.
        device: Where the parameters are created.
        dtype: Their type.

    Raises:
        ValueError: If ``window`` or ``head_dim`` is below 1, or the shift reaches the window.

    Examples:
        >>> WindowAttention(64, shift=3).offsets.shape  # 2 heads of 32 channels, windows of 7 x 7 pixels
        torch.Size([2, 13, 13])
    """

    input_layers = ("qkv",)
    output_layer = "proj"

    def __init__(
        self, dim: int, *, window: int = 7, shift: int = 0, head_dim: int = 32, device=None, dtype=None
    ) -> None:
        super().__init__()
        if window < 1 or head_dim < 1:
            raise ValueError(f"window and head_dim of window must be at least 1, not {window} and {head_dim}")
        if not 0 <= shift < window:
            raise ValueError(f"the shift of window must be from 0 to {window - 1}, not {shift}")
        self.window = window
        self.before = (window - shift) % window
        self.head_dim = max(d for d in range(1, min(head_dim, dim) + 1) if dim % d == 0)
        self.heads = dim // self.head_dim
        self.qkv = nn.Conv2d(dim, 3 * dim, 1, device=device, dtype=dtype)
        sides = 2 * window - 1
        self.offsets = nn.Parameter(0.02 * torch.randn(self.heads, sides, sides, device=device, dtype=dtype))
        self.proj = nn.Conv2d(dim, dim, 1, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(x)[0]

    def attend(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What ``forward`` returns; the query, scores and weights (B, down, across, heads, side^2, ...) of windows."""
        height, width, side, start = x.size(2), x.size(3), self.window, self.before
        qkv = to_windows(self.qkv(x), side, start).unflatten(1, (3, self.heads, self.head_dim))
        q, k, v = qkv.permute(1, 0, 4, 6, 2, 5, 7, 3).flatten(5, 6).unbind(0)  # (B, down, across, heads, side^2, d)
        real = to_windows(x.new_ones(height, width), side, start).transpose(1, 2).flatten(2)  # (down, across, side^2)
        scores = q @ k.transpose(-1, -2) * self.head_dim**-0.5 + offset_bias(self.offsets)
        weights = torch.softmax(scores.masked_fill(real[:, :, None, None] == 0, float("-inf")), -1)
        return self.proj(self.as_map(weights @ v, height, width)), q, scores, weights

    def as_map(self, windows: Tensor, height: int, width: int) -> Tensor:
        """``(B, down, across, heads, side^2, d) -> (B, C, H, W)``."""
        parts = windows.unflatten(4, (self.window, self.window)).permute(0, 3, 6, 1, 4, 2, 5).flatten(1, 2)
        return from_windows(parts, height, width, self.before)

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`, of the whole map: zero between pixels of different windows."""
        y, q, scores, weights = self.attend(x)
        size = x.size(2), x.size(3)
        key, act = (between_all(each, *size, self.window, self.before) for each in (scores, weights))
        pieces = self.as_map(q, *size), key, act, y
        return named_slots("query key act value", pieces, key="attention", act="attention")
