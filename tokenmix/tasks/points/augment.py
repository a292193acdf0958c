"""What training does at random to clouds, each change a function of (seed, epoch, index)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tokenmix.data.random_numbers import uniforms
from tokenmix.tasks.points.cloud import Cloud, VoxelTable, floor_centre
from tokenmix.tasks.points.options import CloudAugment


class Draws:
    """Random numbers of one cloud in one epoch: each kind of change has its own, whatever the others do."""

    def __init__(self, seed: int, epoch: int, index: int) -> None:
        self.keys = (seed, epoch, index)

    def uniform(self, what: str, count: int = 1) -> NDArray[np.float64]:
        """(count,) from 0 to 1."""
        return uniforms(count, *self.keys, _code(what))[0]

    def rows(self, what: str, rows: int, count: int) -> NDArray[np.float64]:
        """(rows, count) from 0 to 1."""
        return uniforms(count, *self.keys, _code(what), np.arange(rows))

    def normals(self, what: str, rows: int, count: int) -> NDArray[np.float64]:
        """(rows, count), standard normal."""
        level = torch.from_numpy(self.rows(what, rows, count).clip(1e-300, 1 - 2**-53))
        return torch.special.ndtri(level).numpy()


def _code(what: str) -> int:
    return int.from_bytes(what.encode(), "big")


def augmented(cloud: Cloud, augment: CloudAugment, draws: Draws) -> Cloud:
    """The cloud changed at random, before it is cut into voxels."""
    coord = cloud.coord - floor_centre(cloud.coord)
    cloud = dataclasses.replace(cloud, coord=coord)
    if draws.uniform("drop")[0] < augment.drop:
        keep = int(len(cloud) * (1 - augment.drop_ratio))
        lots = draws.rows("which drop", len(cloud), 1)[:, 0]
        cloud = cloud.take(np.sort(np.argsort(lots, kind="stable")[: max(keep, 1)]))
    moved = _moved(cloud, augment, draws)
    return dataclasses.replace(moved, color=_recoloured(moved, augment, draws))


def _moved(cloud: Cloud, augment: CloudAugment, draws: Draws) -> Cloud:
    """Turned, scaled, mirrored, jittered and bent."""
    matrix = np.eye(3)
    for axis, share, angle in ((2, augment.turn, 180.0), *((a, augment.tilt, augment.tilt_angle) for a in (0, 1))):
        chance, turn = draws.uniform(f"turn {axis}", 2)
        if chance < share:
            matrix = rotation(axis, math.radians((2 * turn - 1) * angle)) @ matrix
    for axis in (0, 1):
        if draws.uniform(f"flip {axis}")[0] < augment.flip:
            matrix = np.diag([1.0 - 2 * (i == axis) for i in range(3)]) @ matrix
    low, high = augment.scale
    factor = low + (high - low) * draws.uniform("scale")[0]
    coord = cloud.coord @ (matrix.T * factor)
    if augment.jitter:
        limit = 4 * augment.jitter
        coord = coord + (draws.normals("jitter", len(cloud), 3) * augment.jitter).clip(-limit, limit)
    if augment.elastic and draws.uniform("elastic")[0] < 0.95:
        pairs = zip(augment.elastic[::2], augment.elastic[1::2], strict=True)
        for number, (granularity, magnitude) in enumerate(pairs):
            coord = coord + magnitude * smooth_field(coord, granularity, draws, f"elastic {number}")
    normal = None if cloud.normal is None else (cloud.normal @ matrix.T).astype(np.float32)
    return dataclasses.replace(cloud, coord=coord.astype(np.float32), normal=normal)


def rotation(axis: int, angle: float) -> NDArray[np.float64]:
    """(3, 3): a turn about an axis by an angle in radians, counter-clockwise seen from its tip."""
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = np.eye(3)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = cos, -sin, sin, cos
    return matrix


def smooth_field(coord: NDArray[Any], granularity: float, draws: Draws, what: str) -> NDArray[np.float64]:
    """(P, 3): a random vector field at the points: normal numbers on a grid, smoothed twice, linear in between.

    Source: as in Pointcept, from SparseConvNet and MinkowskiEngine: a box of three grid points along each axis.
    """
    low = coord.min(0)
    shape = [int(side) + 3 for side in ((coord.max(0) - low) // granularity)]
    while math.prod(shape) > 2_000_000:  # of a cloud far larger than a room: a coarser field
        granularity *= 2
        shape = [int(side) + 3 for side in ((coord.max(0) - low) // granularity)]
    field = torch.from_numpy(draws.normals(what, math.prod(shape), 3).reshape(*shape, 3))
    for _ in range(2):
        for axis in range(3):
            padded = torch.nn.functional.pad(field.movedim(axis, -1), (1, 1)).movedim(-1, axis)
            parts = [padded.narrow(axis, begin, shape[axis]) for begin in range(3)]
            field = torch.stack(parts).mean(0)
    place = (coord - low) / granularity + 1  # the grid begins one step before the first point
    first = np.floor(place).astype(int)
    share, grid, total = place - first, field.numpy(), np.zeros((len(coord), 3))
    for corner in np.ndindex(2, 2, 2):
        weight = np.where(corner, share, 1 - share).prod(1)
        total += weight[:, None] * grid[tuple((first + corner).clip(max=np.array(shape) - 1).T)]
    return total


def _recoloured(cloud: Cloud, augment: CloudAugment, draws: Draws) -> NDArray[np.float32] | None:
    """The colours stretched, shifted and with noise, 0 to 255."""
    if cloud.color is None:
        return None
    color = cloud.color.astype(np.float64)
    chance, part = draws.uniform("contrast", 2)
    if chance < augment.contrast:
        low, high = color.min(0), color.max(0)
        stretched = (color - low) * (255 / np.maximum(high - low, 1e-6))
        color = (1 - part) * color + part * stretched
    chance, *tint = draws.uniform("shift", 4)
    if chance < augment.shift:
        color = (color + (np.array(tint) - 0.5) * 2 * 255 * augment.shift_ratio).clip(0, 255)
    if draws.uniform("noise")[0] < augment.noise:
        color = (color + draws.normals("which noise", len(color), 3) * 255 * augment.noise_std).clip(0, 255)
    return color.astype(np.float32)


def voxelised(cloud: Cloud, voxel: float, augment: CloudAugment, draws: Draws) -> tuple[Cloud, NDArray[np.int64]]:
    """One drawn point of each voxel, perhaps those of a crop alone, and their voxels (V, 3)."""
    table = VoxelTable.of(cloud.coord, voxel)
    lots = draws.rows("point of voxel", len(table.counts), 1)[:, 0]
    rows = table.pick((lots * table.counts).astype(np.int64))
    keep = max(int(augment.sample_rate * len(rows)), 1)
    if augment.max_voxels:
        keep = min(keep, augment.max_voxels)
    if keep < len(rows):
        centre = cloud.coord[rows[int(draws.uniform("crop")[0] * len(rows))]]
        distance = np.square(cloud.coord[rows] - centre).sum(1)
        rows = rows[np.sort(np.argsort(distance, kind="stable")[:keep])]
    return cloud.take(rows), table.grid[rows]
