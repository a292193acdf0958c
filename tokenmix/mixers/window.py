"""Window attention of Swin (arXiv:2103.14030): softmax attention inside squares of the map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.layers import fold_norm_before
from tokenmix.mixers.slots import Slot, Slots


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
        down, across = (height + start + side - 1) // side, (width + start + side - 1) // side
        pad = [start, across * side - width - start, start, down * side - height - start]
        qkv = F.pad(self.qkv(x), pad).reshape(x.size(0), 3, self.heads, self.head_dim, down, side, across, side)
        q, k, v = qkv.permute(1, 0, 4, 6, 2, 5, 7, 3).flatten(5, 6).unbind(0)  # (B, down, across, heads, side^2, d)
        real = F.pad(x.new_ones(1, height, width), pad).view(down, side, across, side)
        real = real.permute(0, 2, 1, 3).flatten(2)[:, :, None, None]  # (down, across, 1, 1, side^2)
        scores = q @ k.transpose(-1, -2) * self.head_dim**-0.5 + offset_bias(self.offsets)
        weights = torch.softmax(scores.masked_fill(real == 0, float("-inf")), -1)
        y = weights @ v
        y = y.unflatten(4, (side, side)).permute(0, 3, 6, 1, 4, 2, 5)  # (B, heads, d, down, side, across, side)
        y = y.reshape(x.size(0), x.size(1), down * side, across * side)
        return self.proj(y[:, :, start : start + height, start : start + width]), q, scores, weights

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`, of the whole map: zero between pixels of different windows."""
        value, q, scores, weights = self.attend(x)
        (height, width), side, start = x.shape[-2:], self.window, self.before
        down, across = scores.shape[1:3]
        place = torch.arange(height * width, device=x.device).view(height, width)
        pad = [start, across * side - width - start, start, down * side - height - start]
        place = F.pad(place, pad, value=height * width).view(down, side, across, side)
        place = place.transpose(1, 2).reshape(down * across, side * side)  # of each window's pixels in the map

        def whole(windows: Tensor) -> Tensor:  # (B, down, across, heads, side^2, side^2) -> (B, heads, N, N)
            parts = windows.flatten(1, 2).transpose(1, 2)  # (B, heads, windows, side^2, side^2)
            size = height * width + 1  # the last is for the padding
            full = parts.new_zeros(*parts.shape[:2], size, size)
            full[:, :, place[:, :, None], place[:, None, :]] = parts
            return full[:, :, :-1, :-1]

        query = q.permute(0, 3, 5, 1, 2, 4).unflatten(-1, (side, side)).transpose(4, 5)  # as in ``attend``
        query = query.reshape(x.size(0), x.size(1), down * side, across * side)
        return {
            "query": Slot(query[:, :, start : start + height, start : start + width]),
            "key": Slot(whole(scores), "attention"),
            "act": Slot(whole(weights), "attention"),
            "value": Slot(value),
        }

    def fold_input_norm(self, norm: nn.BatchNorm2d) -> bool:
        """Fold a norm before the mixer into ``qkv``, in place. True: padding follows it."""
        self.qkv = fold_norm_before(self.qkv, norm)
        return True


@torch.fx.wrap
def offset_bias(offsets: Tensor) -> Tensor:
    """``(heads, 2w-1, 2w-1) -> (heads, w^2, w^2)``: for query (i, j), key (k, l) ``offsets[:, i-k+w-1, j-l+w-1]``."""
    sides = offsets.size(1)
    side = (sides + 1) // 2
    place = torch.arange(side, device=offsets.device)
    offset = place[:, None] - place + side - 1
    index = (offset[:, None, :, None] * sides + offset[None, :, None, :]).flatten()
    return offsets.flatten(1).index_select(1, index).unflatten(1, (side * side, side * side))
