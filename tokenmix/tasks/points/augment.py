"""What training does at random to clouds, each change a function of (seed, epoch, index).

``augment`` is a name that a recipe can hold:

* ``none``: nothing.
* ``standard``: turned about the vertical, tilted a little, scaled, mirrored, jittered; points dropped; colours changed.
* ``elastic``: as ``standard``, and bent elastically: Pointcept's changes for ScanNet, which FFNet's 3-D recipe has.

`CloudAugment` has their parts one by one. Numbers and order are those of Pointcept's configurations.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tokenmix.data.random_numbers import uniforms
from tokenmix.tasks.points.cloud import Cloud, VoxelTable, floor_centre
from tokenmix_runtime.names import unknown


@dataclass(frozen=True, kw_only=True)
class CloudAugment:
    """The random changes, in the order in which they are made.

    Args:
        drop: Share of the clouds that lose points.
        drop_ratio: Share of its points that such a cloud loses.
        turn: Share of the clouds that are turned about the vertical axis, by any angle.
        tilt: Share of the clouds that are turned about x, and of those about y, by up to ``tilt_angle``.
        tilt_angle: In degrees.
        scale: Smallest and largest factor on the coordinates.
        flip: Share of the clouds that are mirrored along x, and of those along y.
        jitter: Standard deviation of what is added to each coordinate, in metres, cut off at four of them.
        elastic: (granularity, magnitude) in metres of smooth random fields that bend 95 % of the clouds, one by one.
        contrast: Share of the clouds whose colours are stretched, by a drawn part, to the whole range.
        shift: Share of the clouds whose colours are shifted.
        shift_ratio: By how much at most, of 255.
        noise: Share of the clouds whose colours get noise.
        noise_std: Its standard deviation, of 255.
        sample_rate: Share of a cloud's voxels that a crop keeps; 1 for no crop.
        max_voxels: The most voxels that a crop keeps, 0 for any number; those nearest to a drawn one are kept.
        mix: Share of the batches whose neighbouring clouds are laid into one another, two by two (Mix3D,
            arXiv:2110.02210).

    Raises:
        ValueError: A value is out of range.
    """

    drop: float = 0.0
    drop_ratio: float = 0.2
    turn: float = 0.0
    tilt: float = 0.0
    tilt_angle: float = 180 / 64
    scale: tuple[float, float] = (1.0, 1.0)
    flip: float = 0.0
    jitter: float = 0.0
    elastic: tuple[tuple[float, float], ...] = ()
    contrast: float = 0.0
    shift: float = 0.0
    shift_ratio: float = 0.05
    noise: float = 0.0
    noise_std: float = 0.05
    sample_rate: float = 1.0
    max_voxels: int = 0
    mix: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", tuple(self.scale))
        object.__setattr__(self, "elastic", tuple(tuple(pair) for pair in self.elastic))
        shares = ("drop", "turn", "tilt", "flip", "contrast", "shift", "noise", "mix")
        rules = {name: 0 <= getattr(self, name) <= 1 for name in shares}
        rules |= {
            "drop_ratio": 0 <= self.drop_ratio < 1,
            "tilt_angle": 0 <= self.tilt_angle <= 180,
            "scale": len(self.scale) == 2 and 0 < self.scale[0] <= self.scale[1],
            "jitter": 0 <= self.jitter < math.inf,
            "elastic": all(len(pair) == 2 and pair[0] > 0 and pair[1] >= 0 for pair in self.elastic),
            "shift_ratio": 0 <= self.shift_ratio <= 1,
            "noise_std": 0 <= self.noise_std <= 1,
            "sample_rate": 0 < self.sample_rate <= 1,
            "max_voxels": self.max_voxels >= 0,
        }
        for name, holds in rules.items():
            if not holds:
                raise ValueError(f"augmentation {name}={getattr(self, name)!r} is out of range")


_STANDARD = CloudAugment(
    drop=0.2,
    turn=0.5,
    tilt=0.5,
    scale=(0.9, 1.1),
    flip=0.5,
    jitter=0.005,
    contrast=0.2,
    shift=0.95,
    noise=0.95,
)
CLOUD_AUGMENTS: Mapping[str, CloudAugment] = {
    "none": CloudAugment(),
    "standard": _STANDARD,
    "elastic": dataclasses.replace(_STANDARD, elastic=((0.2, 0.4), (0.8, 1.6))),
}


def cloud_augment(name: str, changes: Mapping[str, Any] | None = None) -> CloudAugment:
    """The augmentation of that name, with some of its parts changed.

    Raises:
        ValueError: There is no such name or part, or a value is out of range.
    """
    if name not in CLOUD_AUGMENTS:
        raise ValueError(unknown("augment for points", name, CLOUD_AUGMENTS))
    names = [field.name for field in dataclasses.fields(CloudAugment)]
    for key in changes or {}:
        if key not in names:
            raise ValueError(unknown("part of the augmentation", key, names))
    try:
        return dataclasses.replace(CLOUD_AUGMENTS[name], **(changes or {}))
    except TypeError as error:
        raise ValueError(f"augmentation {dict(changes or {})}: {error}") from error


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
        for number, (granularity, magnitude) in enumerate(augment.elastic):
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
