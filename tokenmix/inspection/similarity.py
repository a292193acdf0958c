"""Centred kernel alignment: how alike two layers' features are, whatever their widths and rotations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 7  # of the grid on which maps are compared, at most: rows are its cells, of all pictures


def rows_of(maps: Sequence[Tensor], side: int) -> Tensor:
    """Maps (B, C, H, W) -> (n, C) float64: the mean of each cell of a grid of ``side`` x ``side``.

    No two cells share a pixel, which would make their rows alike: the maps are at least as large as the grid.
    """
    rows = []
    for x in maps:
        across, down = (_cells(length, side).to(x.device) for length in (x.size(-1), x.size(-2)))
        cells = torch.einsum("...hw,hi,wj->...ij", x.detach().double(), down, across)
        rows.append(cells.flatten(2).transpose(1, 2).flatten(0, 1))
    return torch.cat(rows)


def _cells(length: int, side: int) -> Tensor:
    """(length, side) float64: what each pixel of an axis weighs in the mean of its cell, and 0 in all others."""
    place = F.one_hot(torch.arange(length) * side // length, side).double()
    return place / place.sum(0)


def alignment(one: Tensor, other: Tensor) -> float:
    """(n, p), (n, q) -> the unbiased linear CKA: 1 where they are equal up to rotation, scale and shift, else less.

    Source: arXiv:1905.00414, eq. 5, with the unbiased estimator of HSIC (Song et al. 2012, eq. 5; arXiv:2010.15327,
    eq. 3), so that few rows and many channels do not look alike by themselves; it may be slightly below 0.

    Raises:
        ValueError: There are other numbers of rows, or fewer than 4.
    """
    if len(one) != len(other) or len(one) < 4:
        raise ValueError(f"CKA compares the same rows, at least 4, not {len(one)} and {len(other)}")
    first, second = (_hollow(x.double() - x.double().mean(0)) for x in (one, other))
    norm = _hsic(first, first) * _hsic(second, second)
    return float(_hsic(first, second) / norm.sqrt()) if norm > 0 else float("nan")


def alignments(ones: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> list[list[float]]:
    """Rows by layer, twice -> the alignment of each layer of the first with each of the second; NaN of too few rows."""
    return [
        [alignment(one, other) if len(one) >= 4 else float("nan") for other in others.values()] for one in ones.values()
    ]


def _hollow(x: Tensor) -> Tensor:
    """(n, p) -> (n, n): inner products, without those of a row with itself."""
    return (x @ x.t()).fill_diagonal_(0)


def _hsic(one: Tensor, other: Tensor) -> Tensor:
    """The unbiased estimator for two hollow kernels."""
    n = len(one)
    trace = (one * other).sum()
    sums = one.sum() * other.sum() / ((n - 1) * (n - 2))
    rows = 2 * (one.sum(0) @ other.sum(0)) / (n - 2)
    return (trace + sums - rows) / (n * (n - 3))
