"""Enlarging a picture by a graph: at once, or in windows whose borders cannot be seen.

A network that looks ``radius`` pixels far makes of a window what it makes of the whole picture, except for as many
pixels at those of the window's sides that are not the picture's. Windows overlap by twice that, and only what is the
same is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokenmix_runtime.images import ImageError

Array = NDArray[Any]
SIDE = 512  # pixels of a window, and twice the radius, where the graph takes any size
MOST = 2**22  # pixels of a picture that goes through at once because nobody knows how far the network looks
REMEDY = "export the model with tokenmix export --dynamic batch size"


class Window(NamedTuple):
    """A part of a line of pixels: where it begins and ends, and which of its results are kept."""

    begin: int
    end: int
    first: int
    last: int


def windows(length: int, side: int, radius: int) -> list[Window]:
    """Windows of that side, or of the length if that is shorter, whose kept parts cover the line once.

    Args:
        length: Of the line.
        side: Of a window, more than twice the radius.
        radius: How many pixels beside a border that is not the line's are not kept.
    """
    found: list[Window] = []
    begin = kept = 0
    while kept < length:
        begin = max(0, min(begin, length - side))
        end = min(begin + side, length)
        last = length if end == length else end - radius
        found.append(Window(begin, end, kept, last))
        kept, begin = last, last - radius
    return found


def window_side(picture: tuple[int, int], taken: tuple[int | None, int | None], radius: int | None) -> tuple[int, int]:
    """Height and width of the windows in which a graph gets a picture.

    Args:
        picture: Its height and width.
        taken: The graph's; None: any.
        radius: How far the network looks; None: everywhere, or nobody knows.

    Raises:
        ImageError: The graph can only take pictures of other sizes.
    """
    told = f"{picture[1]} x {picture[0]} pixels"
    sides = []
    for length, fixed in zip(picture, taken, strict=True):
        if fixed == length:
            sides.append(length)
        elif fixed is None:
            if radius is None and picture[0] * picture[1] > MOST:
                raise ImageError(
                    f"the network sees the whole picture at once, and {told} are too many: tokenmix upscale enlarges "
                    "it in tiles"
                )
            sides.append(length if radius is None else SIDE + 2 * radius)
        elif fixed > length or radius is None or fixed <= 2 * radius:
            raise ImageError(f"the file takes {taken[1]} x {taken[0]} pixels, and the picture has {told}: {REMEDY}")
        else:
            sides.append(fixed)
    return sides[0], sides[1]


def enlarge(
    run: Callable[[Array], Array], image: Array, scale: int, sides: tuple[int, int], radius: int | None
) -> NDArray[np.uint8]:
    """A picture made larger.

    Args:
        run: The graph, ``(1, 3, h, w) -> (1, 3, s h, s w)``.
        image: ``(3, H, W)``, ready for the graph.
        scale: s.
        sides: From `window_side`.
        radius: The same as there.

    Returns:
        ``(s H, s W, 3)``, clamped and rounded as in evaluation.

    Raises:
        ValueError: The graph enlarges by another scale.
    """
    height, width = image.shape[1:]
    whole: NDArray[np.uint8] | None = None
    for top, bottom, first_row, last_row in windows(height, sides[0], radius or 0):
        for left, right, first, last in windows(width, sides[1], radius or 0):
            part = run(np.ascontiguousarray(image[None, :, top:bottom, left:right]))
            wanted = (1, 3, scale * (bottom - top), scale * (right - left))
            if part.shape != wanted:
                raise ValueError(f"a window becomes {part.shape}, not {wanted}")
            if whole is None:
                whole = np.empty((scale * height, scale * width, 3), np.uint8)
            rows = slice(scale * (first_row - top), scale * (last_row - top))
            columns = slice(scale * (first - left), scale * (last - left))
            kept = np.rint(part[0, :, rows, columns].astype(np.float64) * 255).clip(0, 255)
            whole[scale * first_row : scale * last_row, scale * first : scale * last] = kept.transpose(1, 2, 0)
    if whole is None:
        raise ValueError("the picture has no pixels")
    return whole
