"""Maps cut into squares, from which those at the borders reach out, and what has to do with their pixels' places."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def to_windows(x: Tensor, side: int, start: int, value: float = 0.0) -> Tensor:
    """``(..., H, W) -> (..., down, side, across, side)``: the map from pixel ``start`` of the first square on.

    Squares are filled up with ``value``.
    """
    height, width = x.size(-2), x.size(-1)
    down, across = (height + start + side - 1) // side, (width + start + side - 1) // side
    x = F.pad(x, [start, across * side - width - start, start, down * side - height - start], value=value)
    return x.unflatten(-1, (across, side)).unflatten(-3, (down, side))


def from_windows(windows: Tensor, height: int, width: int, start: int) -> Tensor:
    """``(..., down, side, across, side) -> (..., H, W)``: the inverse of `to_windows`."""
    return windows.flatten(-2).flatten(-3, -2)[..., start : start + height, start : start + width]


def between_all(windows: Tensor, height: int, width: int, side: int, start: int) -> Tensor:
    """``(B, down, across, heads, side^2, side^2) -> (B, heads, N, N)``: numbers between a square's pixels, of the map.

    Zero between pixels of different squares.
    """
    place = torch.arange(height * width, device=windows.device).view(height, width)
    place = to_windows(place, side, start, value=height * width).transpose(1, 2).flatten(2).flatten(0, 1)
    parts = windows.flatten(1, 2).transpose(1, 2)  # (B, heads, windows, side^2, side^2)
    size = height * width + 1  # the last is for the padding
    full = parts.new_zeros(*parts.shape[:2], size, size)
    full[:, :, place[:, :, None], place[:, None, :]] = parts
    return full[:, :, :-1, :-1]


@torch.fx.wrap
def offset_bias(offsets: Tensor) -> Tensor:
    """``(heads, 2w-1, 2w-1) -> (heads, w^2, w^2)``: for query (i, j), key (k, l) ``offsets[:, i-k+w-1, j-l+w-1]``."""
    sides = offsets.size(1)
    side = (sides + 1) // 2
    place = torch.arange(side, device=offsets.device)
    offset = place[:, None] - place + side - 1
    index = (offset[:, None, :, None] * sides + offset[None, :, None, :]).flatten()
    return offsets.flatten(1).index_select(1, index).unflatten(1, (side * side, side * side))
