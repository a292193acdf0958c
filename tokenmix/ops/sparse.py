"""Convolution, pooling and unpooling on sparse voxel grids, in plain PyTorch, on any device.

A batch of clouds is a matrix of features, one row per occupied voxel, and `Voxels`, which says where the rows lie.
Voxels are kept in the order of one number, ``((cloud * X + x) * Y + y) * Z + z``, so that a neighbour is found by a
search in sorted numbers, and rows that are neighbours mostly lie near one another in memory.

A submanifold convolution (arXiv:1711.10275) is, for each place of the kernel: gather the rows that have a neighbour
there, one matrix product, add the result to the rows of those neighbours. Within one such step no row is added to
twice, and the steps have a fixed order, so the sums do not depend on threads or chance, not on a GPU either.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from tokenmix.ops.dispatch import Form, definition, operator, situation

_T = TypeVar("_T")
# Rows that one step takes on a CPU: gathered rows and their products then stay in the cache. Measured with 32 to 128
# channels, a whole layer in steps of 4,096 to 32,768 rows takes 0.6 to 0.8 of the time of one step for all rows.
BLOCK_ROWS = 16_384
MAX_CELLS = 2**62  # of all grids of a batch together: what a 64-bit number tells apart


@dataclass(frozen=True)
class Neighbours:
    """Which voxels lie where in a kernel that is centred at others.

    Attributes:
        size: Places along each side of the kernel, odd.
        steps: (place, to, source): the voxels of the rows ``source`` (M,) lie, seen from those of the rows ``to`` (M,),
            at the place of that number in C order. A row is in ``to`` at most once, and in ``source`` too. The centre
            is left out, where each voxel is its own neighbour.
        counts: (N,) int64, how many voxels lie in the kernel around each, itself among them.
    """

    size: int
    steps: tuple[tuple[int, Tensor, Tensor], ...]
    counts: Tensor

    @property
    def centre(self) -> int:
        """The number of the kernel's middle place."""
        return self.size**3 // 2


@dataclass(frozen=True)
class Grouping:
    """Rows that belong together: the points of a voxel, the voxels of a larger cell, or the voxels of a cloud.

    Attributes:
        group: (N,) int64, the group of each row.
        order: (N,) int64, the rows group by group.
        lengths: (M,) int64, how many rows each group has.
    """

    group: Tensor
    order: Tensor
    lengths: Tensor


@dataclass(frozen=True)
class Voxels:
    """The occupied cells of a batch of clouds, each once, in order.

    Attributes:
        coords: (N, 3) int64, the cell in its cloud's grid.
        cloud: (N,) int64, which cloud of the batch, from 0.
        clouds: How many clouds there are, empty ones among them.
    """

    coords: Tensor
    cloud: Tensor
    clouds: int
    _known: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, coords: Tensor, cloud: Tensor, clouds: int) -> tuple[Voxels, Grouping]:
        """The voxels that points lie in, and which points lie in which.

        Args:
            coords: (P, 3) integers, the cell of each point; negative ones too.
            cloud: (P,) integers, the cloud of each point, 0 to clouds - 1.
            clouds: How many clouds there are.

        Raises:
            ValueError: The shapes are others, or the grids have more cells than can be numbered.
        """
        if coords.ndim != 2 or coords.shape[1] != 3 or cloud.shape != coords.shape[:1]:
            raise ValueError(
                f"coordinates must have the shape (N, 3), and their clouds (N,), not {tuple(coords.shape)} and "
                f"{tuple(cloud.shape)}"
            )
        coords, cloud = coords.long(), cloud.long()
        number, _ = _numbers(coords, cloud, clouds, 0)
        _, group, lengths = torch.unique(number, return_inverse=True, return_counts=True)
        order = torch.argsort(group, stable=True)
        first = order[lengths.cumsum(0) - lengths]
        return cls(coords[first], cloud[first], clouds), Grouping(group, order, lengths)

    def __len__(self) -> int:
        return self.coords.shape[0]

    def coarser(self, factor: int = 2) -> tuple[Voxels, Grouping]:
        """The voxels of ``factor`` times the side that hold these, and which of these lie in which."""
        return Voxels.of(self.coords.div(factor, rounding_mode="floor"), self.cloud, self.clouds)

    def neighbours(self, size: int) -> Neighbours:
        """The neighbours in a kernel of ``size`` x ``size`` x ``size`` cells; computed once.

        Raises:
            ValueError: The size is even or below 1.
        """
        if size < 1 or size % 2 == 0:
            raise ValueError(f"the kernel of a submanifold convolution must be odd and at least 1, not {size}")
        return self.once(("neighbours", size), lambda: _find_neighbours(self, size))

    def by_cloud(self) -> Grouping:
        """The voxels of each cloud together, as they lie already; clouds may be empty here."""
        lengths = torch.bincount(self.cloud, minlength=self.clouds)
        return Grouping(self.cloud, torch.arange(len(self), device=lengths.device), lengths)

    def once(self, key: Any, compute: Callable[[], _T]) -> _T:
        """What ``compute`` returned the first time that it was asked for these voxels by this key.

        All layers of a level ask for the same tables.
        """
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]

    def to(self, device: torch.device | str) -> Voxels:
        """The same on another device."""
        return Voxels(self.coords.to(device), self.cloud.to(device), self.clouds)


def _numbers(coords: Tensor, cloud: Tensor, clouds: int, margin: int) -> tuple[Tensor, tuple[int, int]]:
    """One number per cell, growing in the order of (cloud, x, y, z), and what a step along x and along y adds to it.

    With a margin, cells up to that far beyond a grid's border have numbers that no cell in a grid has.
    """
    if not len(coords):
        return cloud, (0, 0)
    low, high = coords.amin(0), coords.amax(0)
    x, y, z = (int(extent) + margin for extent in (high - low + 1).tolist())
    if clouds * x * y * z > MAX_CELLS:
        raise ValueError(
            f"the points of {clouds} clouds lie in a grid of {x} x {y} x {z} cells, which is more than can be "
            "numbered: take larger voxels, or remove points that lie far off"
        )
    place = coords - low
    return ((cloud * x + place[:, 0]) * y + place[:, 1]) * z + place[:, 2], (y * z, z)


def _find_neighbours(voxels: Voxels, size: int) -> Neighbours:
    """By one search in the sorted numbers for each column of the kernel along z.

    Where a voxel has a neighbour, that one has it as a neighbour on the opposite side: half of the kernel is searched.
    """
    reach, count = size // 2, len(voxels)
    number, (along_x, along_y) = _numbers(voxels.coords, voxels.cloud, voxels.clouds, reach)
    ended = F.pad(number, (0, 1), value=-1)  # what lies behind the last voxel is nobody's neighbour
    counts = torch.ones_like(number)
    # Whole steps on a GPU, which has no use for small ones.
    block = BLOCK_ROWS if number.device.type == "cpu" else max(count, 1)
    steps: list[tuple[int, int, Tensor, Tensor]] = []
    for dx in range(reach + 1):
        for dy in range(-reach if dx else 0, reach + 1):
            lowest = -reach if dx or dy else 1
            wanted = number + (dx * along_x + dy * along_y + lowest)
            position = torch.searchsorted(number, wanted)
            for dz in range(lowest, reach + 1):
                hit = ended[position] == wanted
                to = hit.nonzero()[:, 0]
                source = position[to]
                place = ((dx + reach) * size + dy + reach) * size + dz + reach
                steps += _blocks(place, to, source, block)
                steps += _blocks(size**3 - 1 - place, source, to, block)
                counts[to] += 1
                counts[source] += 1
                position, wanted = position + hit, wanted + 1
    steps.sort(key=lambda step: step[:2])
    return Neighbours(size, tuple((place, to, source) for _, place, to, source in steps), counts)


def _blocks(place: int, to: Tensor, source: Tensor, rows: int) -> list[tuple[int, int, Tensor, Tensor]]:
    """A step in parts, by (block, place): those that add to the first ``rows`` rows, to the next, and so on."""
    if not len(to):
        return []
    last = int(to[-1]) // rows
    if last == int(to[0]) // rows:
        return [(last, place, to, source)]
    cuts = torch.searchsorted(to, torch.arange(0, (last + 2) * rows, rows, device=to.device)).tolist()
    return [
        (block, place, to[begin:end], source[begin:end])
        for block, (begin, end) in enumerate(pairwise(cuts))
        if end > begin
    ]


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, neighbours: Neighbours) -> Tensor:
    """``(N, in) -> (N, out)``: a submanifold convolution, that is a dense one (`convolve_dense`) at occupied voxels.

    Args:
        x: Features of the voxels in their order.
        weight: (out, k, k, k, in), or (C, k, k, k): one kernel for each channel. The axes of the kernel are x, y and z;
            it is centred and, as everywhere in deep learning, not mirrored (cross-correlation).
        bias: (out,), or None.
        neighbours: Of the same kernel size.

    Sums of half-precision products are kept in float32. Under autocast the products have its type.

    Raises:
        ValueError: The kernel's size is not that of the neighbours.
    """
    size = (neighbours.size,) * 3
    if weight.shape[1:4] != size:
        raise ValueError(f"the weight has the shape {tuple(weight.shape)}, and the neighbours are those of {size}")
    if situation(x).autocast:
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
    out = _gather_and_add(x, weight.flatten(1, 3), neighbours)
    return out if bias is None else out + bias.to(out.dtype)


def _sum_type(x: Tensor) -> torch.dtype:
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


def _product(rows: Tensor, weight: Tensor) -> Tensor:
    """Rows times the weight of one place: (out, in) a matrix, (C,) a factor for each channel."""
    return rows * weight if weight.ndim == 1 else rows @ weight.T


class _GatheredAnew(torch.autograd.Function):
    """`_gather_and_add` that keeps its arguments alone: the backward pass gathers the rows anew."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, neighbours: Neighbours) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.neighbours = neighbours
        return definition(_gather_and_add)(x, weight, neighbours)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, _ = ctx.needs_input_grad
        dtype, neighbours = _sum_type(x), ctx.neighbours
        back = weight if weight.ndim == 2 else weight.transpose(0, 2)  # from the output's channels to the input's
        grad_x, grads = None, [None] * weight.shape[1]
        if wants_x:
            grad_x = _product(grad, back[:, neighbours.centre]).to(dtype)
        if wants_weight:
            grads[neighbours.centre] = _outer(grad, x, weight).to(dtype)
        for place, to, source in neighbours.steps:
            rows = grad.index_select(0, to)
            if grad_x is not None:
                grad_x.index_add_(0, source, _product(rows, back[:, place]).to(dtype))
            if wants_weight:
                part, before = _outer(rows, x.index_select(0, source), weight).to(dtype), grads[place]
                grads[place] = part if before is None else before.add_(part)
        if wants_weight:
            none = x.new_zeros((weight.shape[0], *weight.shape[2:]), dtype=dtype)
            grad_weight = torch.stack([none if part is None else part for part in grads], dim=1).to(weight.dtype)
        return None if grad_x is None else grad_x.to(x.dtype), grad_weight if wants_weight else None, None


def _outer(grad: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
    """The gradient of one place's weight, (out, in) or (C,)."""
    return (grad * rows).sum(0) if weight.ndim == 2 else grad.T @ rows


@operator(Form("keeps less", _GatheredAnew.apply, lambda now, *args: now.mode == "training"))
def _gather_and_add(x: Tensor, weight: Tensor, neighbours: Neighbours) -> Tensor:
    """``(N, in) -> (N, out)``: `convolve` without a bias, by a weight ``(out, K, in)`` or ``(C, K)``."""
    dtype = _sum_type(x)
    out = _product(x, weight[:, neighbours.centre]).to(dtype)
    for place, to, source in neighbours.steps:
        out.index_add_(0, to, _product(x.index_select(0, source), weight[:, place]).to(dtype))
    return out.to(x.dtype)


def average(x: Tensor, neighbours: Neighbours) -> Tensor:
    """``(N, C) -> (N, C)``: the mean over the occupied voxels in the kernel around each."""
    ones = x.new_ones((x.shape[1], *(neighbours.size,) * 3))
    return convolve(x, ones, None, neighbours) / neighbours.counts[:, None]


def pool(x: Tensor, grouping: Grouping, how: str = "max") -> Tensor:
    """``(N, C) -> (M, C)``: the ``"max"``, ``"mean"`` or ``"sum"`` over the rows of each group.

    Where several rows have the greatest value, they share its gradient equally.
    """
    rows = x.index_select(0, grouping.order)
    return torch.segment_reduce(rows, how, lengths=grouping.lengths, axis=0, unsafe=True)  # the lengths are right


def unpool(x: Tensor, grouping: Grouping) -> Tensor:
    """``(M, C) -> (N, C)``: to each row the value of its group."""
    return x.index_select(0, grouping.group)


def convolve_dense(x: Tensor, weight: Tensor, bias: Tensor | None, voxels: Voxels) -> Tensor:
    """The definition of `convolve`: a dense convolution of the whole grid, zero where no voxel is, read at the voxels.

    For small grids only: it holds every cell.
    """
    low = voxels.coords.amin(0)
    b, (i, j, k) = voxels.cloud, (voxels.coords - low).unbind(1)
    extent = [int(side) for side in (voxels.coords.amax(0) - low + 1).tolist()]
    assert math.prod(extent) * voxels.clouds <= 2**24, "too large for the definition"
    grid = x.new_zeros((voxels.clouds, *extent, x.shape[1])).index_put((b, i, j, k), x).movedim(-1, 1)
    kernel, groups = (weight[:, None], x.shape[1]) if weight.ndim == 4 else (weight.movedim(-1, 1), 1)
    return F.conv3d(grid, kernel, bias, padding=weight.shape[1] // 2, groups=groups)[b, :, i, j, k]
