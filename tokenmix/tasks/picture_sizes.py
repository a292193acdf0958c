"""How large the pictures of a set are, and how large a network should see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from tokenmix.data.dataset import Pictures
from tokenmix_runtime.images import ImageError

LOOKED_AT = 48  # pictures, evenly spread
GROUND_PX, GROUND_LEVELS, PLAIN = 24, 16, 0.8  # the border's pixels, and the share of them with the ground's colour
GREY_LEVELS = 3.0  # of 255, between the channels
LEAST_PX = 32  # below which the last maps of our networks are single pixels


@dataclass(frozen=True)
class Look:
    """What some of the pictures of a set look like.

    Attributes:
        sides: Their median height and width in pixels.
        drawn: Whether they are drawings on a plain ground: digits, letters, signs, cut-outs.
        grey: Whether they have no colours.
    """

    sides: tuple[int, int]
    drawn: bool
    grey: bool


def look_at(pictures: Pictures) -> Look:
    """Look at some pictures, evenly spread over the set.

    Raises:
        ValueError: None of them can be read.
    """
    sizes, plain, coloured = [], [], []
    for index in np.unique(np.linspace(0, len(pictures) - 1, min(LOOKED_AT, len(pictures))).astype(int)).tolist():
        try:
            picture = pictures.load(index)
        except ImageError:
            continue
        sizes.append(picture.size)
        values = np.asarray(picture.resize((GROUND_PX, GROUND_PX)).convert("RGB")).astype(int)
        border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
        ground = np.median(border, axis=0)
        plain.append(float((np.abs(border - ground).max(1) <= GROUND_LEVELS).mean()))
        coloured.append(float((values.max(2) - values.min(2)).mean()))
    if not sizes:
        raise ValueError("none of the pictures can be read")
    widths, heights = zip(*sizes, strict=True)
    return Look((round(median(heights)), round(median(widths))), median(plain) >= PLAIN, median(coloured) < GREY_LEVELS)


def sides_up_to(sides: Sequence[int], real: tuple[int, int]) -> list[int]:
    """Those of the sides, the largest first, to which no picture has to be blown up; the smallest in any case."""
    most = max(min(real), LEAST_PX)
    return [side for side in sorted(sides, reverse=True) if side <= most] or [min(sides)]


def side_words(real: tuple[int, int], size: int) -> str:
    """What becomes of pictures whose sides are about these, in words."""
    told = f"{real[1]} x {real[0]} px"
    if min(real) < size:
        return f"{told}, blown up to {size} px, below which nothing is left of them in the network"
    return f"{told}, seen at {size} px"
