"""How large the pictures of a set are, and how large a network should see them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import numpy as np

from tokenmix.data.dataset import Pictures
from tokenmix_runtime.images import ImageError

LOOKED_AT = 48  # pictures, evenly spread
LEAST_PX = 32  # below which the last maps of our networks are single pixels


def picture_sides(pictures: Pictures) -> tuple[int, int]:
    """The median height and width of some of the pictures, in pixels.

    Raises:
        ValueError: None of them can be read.
    """
    sizes = []
    for index in np.unique(np.linspace(0, len(pictures) - 1, min(LOOKED_AT, len(pictures))).astype(int)).tolist():
        try:
            sizes.append(pictures.load(index).size)
        except ImageError:
            continue
    if not sizes:
        raise ValueError("none of the pictures can be read")
    widths, heights = zip(*sizes, strict=True)
    return round(median(heights)), round(median(widths))


def sides_up_to(sides: Sequence[int], real: tuple[int, int]) -> list[int]:
    """Those of the sides, the largest first, to which no picture has to be blown up; at least `LEAST_PX`."""
    most = max(min(real), LEAST_PX)
    return [side for side in sorted(sides, reverse=True) if side <= most]


def side_words(real: tuple[int, int], size: int) -> str:
    """What becomes of pictures whose sides are about these, in words."""
    told = f"{real[1]} x {real[0]} px"
    if min(real) < size:
        return f"{told}, blown up to {size} px, below which nothing is left of them in the network"
    return f"{told}, seen at {size} px"
