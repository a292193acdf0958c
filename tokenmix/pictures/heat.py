"""Numbers as pictures: amounts, signed values and angles, side by side, and amounts over a photograph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

TILE_PX = 128  # the long side of one of several maps
_GAP_PX = 4
_SURROUND = (128, 132, 138)  # between tiles: seen on light and dark pages
# Dark blue to yellow and blue over white to orange: grow or fall evenly in lightness, and differ for all eyes.
_AMOUNT = ("0b1433", "1b3a73", "2a6f8f", "3fa38a", "a4c95c", "fdf3a0")
_SIGNED = ("0b3a78", "3f87c4", "b6d4ea", "f7f7f5", "f6c79f", "dd7a2c", "7a3303")


def amounts(values: ArrayLike, high: float | None = None) -> Image.Image:
    """(H, W) from 0 on -> a picture of as many pixels, from dark to bright, which is ``high``, or the largest."""
    plain = np.asarray(values, np.float64)
    return _coloured(plain / ((_top(plain) if high is None else high) or 1.0), _AMOUNT)


def _top(values: NDArray[np.float64]) -> float:
    """The largest of the values that are numbers, 0 of none."""
    known = values[np.isfinite(values)]
    return float(known.max()) if known.size else 0.0


def spread(values: ArrayLike) -> Image.Image:
    """(H, W) of any numbers -> the same from the smallest to the largest."""
    plain = np.asarray(values, np.float64)
    return amounts(plain + _top(-plain))


def signed(values: ArrayLike, high: float | None = None) -> Image.Image:
    """(H, W) -> blue below zero, white at it, orange above; both ends at the largest size, or at ``high``."""
    plain = np.asarray(values, np.float64)
    top = (_top(np.abs(plain)) if high is None else high) or 1.0
    return _coloured(0.5 + plain / (2 * top), _SIGNED)


def weights(values: ArrayLike) -> Image.Image:
    """(H, W) -> the colours of `amounts` where nothing is below zero, else those of `signed`."""
    plain = np.asarray(values, np.float64)
    return amounts(plain) if plain.min(initial=0) >= 0 else signed(plain)


def gates(values: ArrayLike) -> Image.Image:
    """(G, C) -> a row for each group, a column for each channel, those of the first group in order of its gates."""
    plain = np.asarray(values, np.float64)
    return bars(weights(plain[:, plain[0].argsort(kind="stable")]), 640, 48)


def bars(picture: Image.Image, width: int, height: int = 0, row: int = 16) -> Image.Image:
    """The picture so wide in pixels, and so high that each of its rows has ``row``, or as high as ``height``."""
    return picture.resize((width, max(height, row * picture.height)), Image.Resampling.NEAREST)


def angles(values: ArrayLike) -> Image.Image:
    """(H, W) radians -> hues of the same lightness: red at 0, cyan at pi."""
    turn = np.asarray(values, np.float64)[..., None] - 2 * np.pi * np.arange(3) / 3
    return Image.fromarray((255 * (0.5 + 0.4 * np.cos(turn))).round().astype(np.uint8))


def enlarged(picture: Image.Image, side: int = TILE_PX) -> Image.Image:
    """The picture with that long side in pixels: pixel by pixel where it grows, smoothed where it shrinks."""
    factor = side / max(picture.size)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    return picture.resize(size, Image.Resampling.NEAREST if factor > 1 else Image.Resampling.BOX)


def strip(pictures: Sequence[Image.Image], side: int = TILE_PX) -> Image.Image:
    """Pictures side by side, each with that long side in pixels."""
    tiles = [enlarged(picture, side) for picture in pictures]
    width = sum(tile.width for tile in tiles) + _GAP_PX * (len(tiles) - 1)
    whole = Image.new("RGB", (width, max(tile.height for tile in tiles)), _SURROUND)
    left = 0
    for tile in tiles:
        whole.paste(tile, (left, 0))
        left += tile.width + _GAP_PX
    return whole


def over(picture: Image.Image, values: ArrayLike, share: float = 0.55) -> Image.Image:
    """A photograph under amounts (h, w) of any size: the more, the brighter and the less of it can be seen.

    Args:
        picture: (H, W) pixels.
        values: From 0 on; enlarged smoothly to the picture.
        share: How much of the picture the largest amount covers.
    """
    plain = np.asarray(values, np.float64)
    plain = plain / (_top(plain) or 1.0)
    grown = np.asarray(Image.fromarray(plain.astype(np.float32)).resize(picture.size, Image.Resampling.BILINEAR))
    colour = np.asarray(_coloured(grown, _AMOUNT), np.float64)
    cover = share * grown.clip(0, 1)[..., None]
    pixels = np.asarray(picture.convert("RGB"), np.float64) * (0.65 + 0.35 * grown.clip(0, 1))[..., None]
    return Image.fromarray((pixels * (1 - cover) + colour * cover).round().clip(0, 255).astype(np.uint8))


def colours(values: ArrayLike) -> NDArray[np.uint8]:
    """Any shape of 0..1 -> the same with three more: the colours of `amounts`."""
    plain = np.asarray(values, np.float64)
    return np.asarray(_coloured(plain.reshape(1, -1), _AMOUNT)).reshape(*plain.shape, 3)


def signed_colours(values: ArrayLike) -> NDArray[np.uint8]:
    """Any shape -> the same with three more: the colours of `signed`."""
    plain = np.asarray(values, np.float64)
    return np.asarray(signed(plain.reshape(1, -1))).reshape(*plain.shape, 3)


def _coloured(share: NDArray[np.float64], ramp: Sequence[str]) -> Image.Image:
    """(H, W) of 0..1 -> the colours in between; what is no number is grey."""
    steps = np.array([list(bytes.fromhex(code)) for code in ramp], np.float64)
    known = np.isfinite(share)
    place = np.where(known, share, 0).clip(0, 1) * (len(steps) - 1)
    pixels = np.stack([np.interp(place, range(len(steps)), steps[:, part]) for part in range(3)], -1)
    return Image.fromarray(np.where(known[..., None], pixels, 128).round().astype(np.uint8))
