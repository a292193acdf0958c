"""A picture of a cloud from above and one side, as a PNG can have it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tokenmix.tasks.points.augment import rotation
from tokenmix.tasks.points.cloud import Cloud, floor_centre

# Colours of classes that are told apart on white, on black and in print, from matplotlib's "tab20"; then hues in turn.
PALETTE: tuple[tuple[int, int, int], ...] = (
    (174, 199, 232),
    (152, 223, 138),
    (255, 127, 14),
    (31, 119, 180),
    (214, 39, 40),
    (148, 103, 189),
    (227, 119, 194),
    (188, 189, 34),
    (23, 190, 207),
    (140, 86, 75),
    (255, 187, 120),
    (44, 160, 44),
    (255, 152, 150),
    (197, 176, 213),
    (196, 156, 148),
    (247, 182, 210),
    (219, 219, 141),
    (158, 218, 229),
    (99, 99, 160),
    (127, 127, 127),
)
UNLABELLED = (60, 60, 60)


def class_colors(count: int) -> NDArray[np.uint8]:
    """(count + 1, 3) uint8: a colour for each class, and last, at -1, that of points without one."""
    colors = [
        PALETTE[i] if i < len(PALETTE) else tuple(int(255 * part) for part in _hue(i * 0.618033988749895 % 1))
        for i in range(count)
    ]
    return np.array([*colors, UNLABELLED], np.uint8)


def _hue(turn: float) -> tuple[float, ...]:
    return tuple(0.55 + 0.4 * math.cos(2 * math.pi * (turn + third / 3)) for third in range(3))


def painted(segment: NDArray[np.int64], count: int) -> NDArray[np.uint8]:
    """(P,) classes -> (P, 3) uint8, their colours; whatever is no class has that of points without one."""
    return class_colors(count)[np.where((segment >= 0) & (segment < count), segment, count)]


def own_colors(cloud: Cloud) -> NDArray[np.uint8]:
    """(P, 3) uint8: a cloud's colours, or greys by height where it has none."""
    if cloud.color is not None:
        return np.rint(cloud.color).astype(np.uint8)
    height = cloud.coord[:, 2] - cloud.coord[:, 2].min()
    grey = 60 + 180 * height / max(float(height.max()), 1e-6)
    return np.repeat(grey[:, None], 3, axis=1).astype(np.uint8)


def draw_cloud(
    coord: NDArray[np.float32],
    colors: NDArray[np.uint8],
    normal: NDArray[np.float32] | None = None,
    *,
    width: int = 480,
    height: int = 360,
    turn: float = 35.0,
    tilt: float = 40.0,
    background: Sequence[int] = (255, 255, 255),
) -> Image.Image:
    """A cloud in parallel projection, near points before far ones.

    Args:
        coord: (P, 3).
        colors: (P, 3) uint8.
        normal: (P, 3); surfaces that face away from the eye, such as a room's near walls, are then left out.
        width: Pixels.
        height: Pixels.
        turn: Degrees about the vertical.
        tilt: Degrees from the horizon to above.
        background: Red, green and blue.
    """
    matrix = rotation(0, math.radians(tilt - 90)) @ rotation(2, math.radians(turn))
    view = (coord - floor_centre(coord)) @ matrix.T
    low, high = view[:, :2].min(0), view[:, :2].max(0)
    scale = 0.94 * min(width / max(high[0] - low[0], 1e-6), height / max(high[1] - low[1], 1e-6))
    place = (view[:, :2] - (low + high) / 2) * [scale, -scale] + [width / 2, height / 2]
    if normal is not None:
        facing = normal @ matrix[2] > -0.15
        view, place, colors = view[facing], place[facing], colors[facing]
    # Points as large as they lie apart, so that surfaces look closed.
    dot = int(np.clip(round(math.sqrt(width * height / max(len(coord), 1)) * 1.6), 1, 6))
    pixels = np.tile(np.array(background, np.uint8), (height, width, 1))
    order = np.argsort(view[:, 2], kind="stable")  # the nearest last: they are painted over the others
    x, y = np.floor(place[order]).astype(int).T
    colors = colors[order]
    offsets = [(i, j) for i in range(dot) for j in range(dot)]
    rows = np.concatenate([(y + j - dot // 2).clip(0, height - 1) for _, j in offsets]).reshape(len(offsets), -1)
    columns = np.concatenate([(x + i - dot // 2).clip(0, width - 1) for i, _ in offsets]).reshape(len(offsets), -1)
    flat = (rows * width + columns).T.ravel()  # point by point, so that a near point covers all of a far one
    pixels.reshape(-1, 3)[flat] = np.repeat(colors, len(offsets), axis=0)
    return Image.fromarray(pixels)
