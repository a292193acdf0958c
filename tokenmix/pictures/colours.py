"""A colour for every class, the same in all pictures, told apart by colour-blind eyes too."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

COUNT = 256  # colours before they repeat
# Okabe and Ito's (https://jfly.uni-koeln.de/color/), without black, in an order that begins with the most different.
_FIRST = ("0072b2", "e69f00", "009e73", "cc79a7", "56b4e9", "d55e00", "f0e442")
_VISION = (  # on linear RGB: as it is, protanopia, deuteranopia, tritanopia (Machado et al. 2009, severity 1)
    np.eye(3),
    np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
)
# OKLab, https://bottosson.github.io/posts/oklab/
_LMS = np.array([[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566]])
_LMS = np.vstack((_LMS, [0.0883024619, 0.2817188376, 0.6299787005]))
_LAB = np.array([[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099]])
_LAB = np.vstack((_LAB, [0.0259040371, 0.7827717662, -0.8086757660]))


def class_colour(number: int) -> tuple[int, int, int]:
    """Red, green and blue, 0..255, of the class with that number, from 0."""
    red, green, blue = palette()[number % COUNT].tolist()
    return red, green, blue


def css_colour(number: int) -> str:
    """The same as ``"#0072b2"``."""
    return "#{:02x}{:02x}{:02x}".format(*class_colour(number))


@cache
def palette() -> NDArray[np.uint8]:
    """(256, 3): Okabe and Ito's seven colours; then each time the one that is farthest from all before it.

    How far two colours are apart is their smallest distance in OKLab for normal and for colour-blind eyes. Very dark,
    very bright and grey ones are left out.
    """
    steps = np.arange(30, 256, 25)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    lightness = _seen(grid)[0, :, 0]
    grid = grid[(lightness > 0.4) & (lightness < 0.9) & (np.ptp(grid, axis=1) >= 50)]
    chosen = [tuple(bytes.fromhex(code)) for code in _FIRST]
    places, away = _seen(grid), np.full(len(grid), np.inf)
    for colour in chosen:
        away = np.minimum(away, _distance(places, colour))
    while len(chosen) < COUNT:
        chosen.append(tuple(grid[away.argmax()].tolist()))
        away = np.minimum(away, _distance(places, chosen[-1]))
    return np.array(chosen, np.uint8)


def _distance(places: NDArray[np.float64], colour: tuple[int, ...]) -> NDArray[np.float64]:
    """(N,): of the worst eye."""
    return np.linalg.norm(places - _seen(np.array([colour])), axis=2).min(0)


def _seen(colours: NDArray[np.integer]) -> NDArray[np.float64]:
    """(N, 3) of 0..255 -> (4, N, 3): where each eye sees them in OKLab."""
    values = colours / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    eyes = np.stack([(linear @ eye.T).clip(0, 1) for eye in _VISION])
    return np.cbrt(eyes @ _LMS.T) @ _LAB.T
