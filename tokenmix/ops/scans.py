"""A map read as four lines of pixels: by rows, by columns, and both backwards."""

from __future__ import annotations

import torch
from torch import Tensor


def in_all_orders(x: Tensor) -> Tensor:
    """``(B, C, H, W) -> (B, 4, C, N)``: the pixels by rows, by columns, by rows backwards, by columns backwards."""
    rows, columns = x.flatten(2), x.transpose(2, 3).flatten(2)
    return torch.stack([rows, columns, rows.flip([-1]), columns.flip([-1])], 1)


def sum_of_orders(lines: Tensor, height: int, width: int) -> Tensor:
    """``(B, 4, C, N) -> (B, C, H, W)``: the sum of maps that were read by `in_all_orders`."""
    by_rows, by_columns = lines[:, 0] + lines[:, 2].flip([-1]), lines[:, 1] + lines[:, 3].flip([-1])
    return by_rows.unflatten(-1, (height, width)) + by_columns.unflatten(-1, (width, height)).transpose(2, 3)


def sum_between_pixels(scans: Tensor, height: int, width: int) -> Tensor:
    """``(B, 4, heads, N, N) -> (B, heads, N, N)``: sums of matrices between the tokens of a line, by rows."""
    places = torch.arange(height * width, device=scans.device).view(1, 1, height, width)
    orders = [order.argsort() for order in in_all_orders(places)[0, :, 0]]
    parts = zip(scans.unbind(1), orders, strict=True)
    return torch.stack([scan[:, :, order][..., order] for scan, order in parts]).sum(0)
