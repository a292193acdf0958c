"""A cloud of points in space with what is known of each point, and its voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenmix.tasks.points.options import FEATURES
from tokenmix_runtime.names import unknown

IGNORED = -1  # the label of a point that counts for nothing
MAX_POINTS = 100_000_000  # of one cloud: above what one scanner's position or one room has


class CloudError(ValueError):
    """A cloud that cannot be read or used; the message names it, the reason and the remedy."""


@dataclass(frozen=True)
class Cloud:
    """P points.

    Attributes:
        coord: (P, 3) float32, metres (or what the file has), less ``origin``.
        color: (P, 3) float32, red, green and blue from 0 to 255.
        normal: (P, 3) float32, unit vectors, zero where unknown.
        strength: (P,) float32, how strongly the scanner's light came back, 0 to 1.
        segment: (P,) int64, the class of each point, negative ones count for nothing.
        origin: What was taken off the coordinates, which may be a country's and then pass float32.
    """

    coord: NDArray[np.float32]
    color: NDArray[np.float32] | None = None
    normal: NDArray[np.float32] | None = None
    strength: NDArray[np.float32] | None = None
    segment: NDArray[np.int64] | None = None
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __len__(self) -> int:
        return len(self.coord)

    def take(self, rows: NDArray[Any]) -> Cloud:
        """The cloud of these points, in this order."""
        parts = {name: value[rows] for name in _COLUMNS if (value := getattr(self, name)) is not None}
        return replace(self, **parts)

    def world(self) -> NDArray[np.float64]:
        """(P, 3) float64: the coordinates as they were in the file."""
        return self.coord.astype(np.float64) + self.origin


_COLUMNS = tuple(field.name for field in fields(Cloud) if field.name != "origin")


def make_cloud(
    coord: Any, color: Any = None, normal: Any = None, strength: Any = None, segment: Any = None, *, name: str = "cloud"
) -> Cloud:
    """A cloud from arrays as files have them, whatever their types and ranges.

    Colours of whole numbers beyond 255 are those of 16 bits, fractions up to 1 those of 0 to 1; strengths of 8 and 16
    bits have the range of their type, others end at 1, 255 or 65,535, whichever comes next. Coordinates whose
    numbers float32 would not tell apart lose their least corner, in whole thousands, to the origin.

    Args:
        coord: (P, 3) numbers.
        color: (P, 3), or None.
        normal: (P, 3), or None.
        strength: (P,), or None.
        segment: (P,) whole numbers, or None.
        name: For messages.

    Raises:
        CloudError: There are no points, too many, or such that are no numbers, or the columns differ in length.
    """
    points = _matrix(coord, 3, None, "coordinates", name)
    count = len(points)
    if not 0 < count <= MAX_POINTS:
        raise CloudError(f"{name} has {count:,} points, and 1 to {MAX_POINTS:,} can be used")
    low = points.min(0)
    origin = np.zeros(3)
    if np.abs(points).max() > 10_000:  # float32 tells 1 mm apart up to here
        origin = np.floor(low / 1000) * 1000
    if (points.max(0) - low).max() > 1e6:
        raise CloudError(
            f"{name} spans {(points.max(0) - low).max():.3g} units, more than can be told apart from point to point: "
            "remove points that lie far off, or change the unit"
        )
    columns: dict[str, Any] = {}
    if color is not None:
        columns["color"] = _colour(_matrix(color, 3, count, "colours", name), color)
    if normal is not None:
        vectors = _matrix(normal, 3, count, "normals", name)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        columns["normal"] = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 1e-12).astype("f4")
    if strength is not None:
        given = np.asarray(strength)
        values = _matrix(given.reshape(-1, 1), 1, count, "strengths", name)[:, 0]
        top = 65535.0 if values.max() > 255 else 255.0 if values.max() > 1 else 1.0
        if given.dtype in (np.uint8, np.uint16):  # their type tells the range, whatever this cloud has of it
            top = float(np.iinfo(given.dtype).max)
        columns["strength"] = (values / top).clip(0, 1).astype(np.float32)
    if segment is not None:
        columns["segment"] = _labels(segment, count, name)
    x, y, z = origin.tolist()
    return Cloud((points - origin).astype(np.float32), **columns, origin=(x, y, z))


def _matrix(values: Any, columns: int, rows: int | None, what: str, name: str) -> NDArray[np.float64]:
    array = np.asarray(values)
    if array.dtype.kind not in "iufb" or array.ndim != 2 or array.shape[1] != columns:
        raise CloudError(
            f"{name}: the {what} must be numbers of the shape (points, {columns}), not {array.dtype} {array.shape}"
        )
    if rows is not None and len(array) != rows:
        raise CloudError(f"{name} has {len(array):,} {what} for {rows:,} points")
    result = array.astype(np.float64)
    if not np.isfinite(result).all():
        bad = int((~np.isfinite(result)).any(1).sum())
        raise CloudError(f"{name}: the {what} of {bad:,} points are no numbers (NaN or infinite): remove these points")
    return result


def _colour(values: NDArray[np.float64], given: Any) -> NDArray[np.float32]:
    """Colours from 0 to 255."""
    whole = np.asarray(given).dtype.kind in "iub"
    top = values.max()
    if top > 255 and (whole or np.array_equal(values, np.rint(values))):  # a text's numbers are floats
        values = values / 257  # 16 bits
    elif not whole and top <= 1:
        values = values * 255
    return values.clip(0, 255).astype(np.float32)


def _labels(values: Any, count: int, name: str) -> NDArray[np.int64]:
    array = np.asarray(values).reshape(-1)
    if len(array) != count:
        raise CloudError(f"{name} has {len(array):,} labels for {count:,} points")
    if array.dtype.kind not in "iufb":
        raise CloudError(f"{name}: labels must be whole numbers, not {array.dtype}")
    with np.errstate(invalid="ignore"):
        whole = array.astype(np.int64)
    if array.dtype.kind == "f" and not np.array_equal(whole, array):
        raise CloudError(f"{name}: labels must be whole numbers, and some have fractions or are none")
    whole[(whole < 0) | (whole >= 2**31)] = IGNORED
    return whole


def feature_width(names: Sequence[str]) -> int:
    """How many numbers a point's features are.

    Raises:
        ValueError: A name is unknown, or there is none.
    """
    if not names:
        raise ValueError(f"a model needs features: choose from {', '.join(FEATURES)}")
    for name in names:
        if name not in FEATURES:
            raise ValueError(unknown("feature of points", name, FEATURES))
    return sum(FEATURES[name] for name in names)


def features_of(cloud: Cloud, names: Sequence[str]) -> NDArray[np.float32]:
    """(P, F) float32: what the model sees of each point.

    Colours go from -1 to 1, normals are unit vectors, coordinates are metres from the middle of the floor's plane,
    strengths go from -1 to 1.

    Raises:
        CloudError: The cloud has not all of them.
    """
    parts = []
    for name in names:
        value = getattr(cloud, name)
        if value is None:
            has = [each for each in FEATURES if getattr(cloud, each) is not None]
            raise CloudError(
                f"the points have no {name}, which the model reads; they have {', '.join(has)}"
                + ("; tokenmix.tasks.points.normals.estimate_normals makes some" if name == "normal" else "")
            )
        if name == "color":
            value = value / 127.5 - 1
        elif name == "strength":
            value = value[:, None] * 2 - 1
        elif name == "coord":
            value = value - floor_centre(value)
        parts.append(value.astype(np.float32))
    return np.concatenate(parts, axis=1)


def floor_centre(coord: NDArray[np.float32]) -> NDArray[np.float32]:
    """(3,): the middle of the bounding box, at the height of its floor."""
    low, high = coord.min(0), coord.max(0)
    return np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]], np.float32)


def grid_of(coord: NDArray[Any], voxel: float) -> NDArray[np.int64]:
    """(P, 3) int64: the voxel of each point, of ``voxel`` metres, counted from the cloud's least corner.

    Raises:
        CloudError: There would be more voxels along a side than can be numbered.
    """
    cells = np.floor(coord.astype(np.float64) / voxel)
    cells -= cells.min(0)
    if cells.max() >= 2**20:
        raise CloudError(
            f"the cloud is {int(cells.max()):,} voxels long, and at most {2**20:,} can be numbered: take larger voxels"
        )
    return cells.astype(np.int64)


@dataclass(frozen=True)
class VoxelTable:
    """Which points lie in which voxel.

    Attributes:
        grid: (P, 3) int64, the voxel of each point.
        voxel: (P,) int64, its number.
        order: (P,) int64, the points voxel by voxel, in their order within each.
        counts: (V,) int64, how many points each voxel has.
    """

    grid: NDArray[np.int64]
    voxel: NDArray[np.int64]
    order: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, coord: NDArray[Any], voxel: float) -> VoxelTable:
        """The table for voxels of ``voxel`` metres."""
        grid = grid_of(coord, voxel)
        number = (grid[:, 0] << 40) | (grid[:, 1] << 20) | grid[:, 2]
        _, inverse, counts = np.unique(number, return_inverse=True, return_counts=True)
        inverse = inverse.reshape(-1)
        return cls(grid, inverse, np.argsort(inverse, kind="stable"), counts)

    def pick(self, which: NDArray[Any]) -> NDArray[np.int64]:
        """(V,) int64: one point of each voxel, the ``which``-th of its own, counted round and round."""
        first = np.cumsum(self.counts) - self.counts
        return self.order[first + which % self.counts]
