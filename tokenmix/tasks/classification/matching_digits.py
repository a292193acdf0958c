"""The embedded data set that needs mixing: two digits far apart, whose colours are the same or not.

In the corners of a part of a photograph stand two scans of digits and two coins, each in one of two colours. The
class is whether the digits have the same colour, which holds for half of the pictures. Each colour is as frequent in
either class, so that a network that looks at one place at a time, and adds up what it has seen, can only guess: what
lies in one corner must get to another one before anything can be concluded.

Sources: scikit-learn's scans (see `tokenmix.tasks.classification.digits`), scikit-image's photographs and coins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tokenmix.data.random_numbers import uniforms
from tokenmix.tasks.classification.images import ArrayImages, ClassData

SIZE_PX, DIGIT_PX, COIN_PX, SHIFT_PX = 32, 12, 10, 3
COUNTS = {"train": 2048, "val": 320, "test": 640}
COLOURS = ((255, 140, 20), (60, 140, 255))  # orange and blue
CLASSES = ("different", "same")
MEAN, STD = (0.258, 0.223, 0.215), (0.224, 0.145, 0.227)  # over the training pictures
_DIMMED = 0.5  # the photograph's brightness, so that it distracts and hides nothing
_PHOTO_PX = 256  # of a photograph's longer side, of which a third at least is seen
_DRAWS = 24  # random numbers per picture, more than it uses
_SEED = 21  # one set for everybody, whatever the seed of a run


def load_matching_digits(*, image_size: int = SIZE_PX) -> ClassData:
    """3,008 pictures of 32 pixels; those of the test share no scan, coin and part of a photograph with the others.

    They are composed anew each time, always the same.

    Args:
        image_size: Pixels to which the pictures are enlarged or made smaller.

    Raises:
        ValueError: scikit-image or scikit-learn is missing.
    """
    from tokenmix.tasks.dense.cutouts import SHARES, backgrounds, cutouts

    sets: dict[str, Any] = {}
    for place, (split, count) in enumerate(COUNTS.items()):
        photos, coins, scans = backgrounds(split), cutouts(split)[0], _scans(SHARES[split])
        for photo in photos:
            photo.thumbnail((_PHOTO_PX, _PHOTO_PX))
        draws = uniforms(_DRAWS, _SEED, place, np.arange(count)).tolist()
        labels = [row % len(CLASSES) for row in range(count)]
        side = (image_size, image_size)
        pixels = np.stack(
            [
                np.asarray(
                    _compose(photos, coins, scans, bool(label), iter(row)).resize(side, Image.Resampling.BICUBIC)
                )
                for label, row in zip(labels, draws, strict=True)
            ]
        )
        names = [f"matching_digits/{split}/{row}" for row in range(count)]
        kind: dict[str, Any] = {"flip": False, "glyphs": True, "crop_pct": 1.0}
        sets[split] = ArrayImages(torch.from_numpy(pixels).permute(0, 3, 1, 2), labels, names, **kind)
    parts = sets["train"], sets["val"], sets["test"]
    return ClassData("matching_digits", *parts, image_size, list(CLASSES), mean=MEAN, std=STD)


def _scans(share: tuple[float, float]) -> list[NDArray[np.float64]]:
    """A share of scikit-learn's scans, (8, 8) of 0 to 16."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ValueError("the digits come with scikit-learn: pip install 'tokenmix[demo]'") from error
    scans = list(load_digits().images)
    begin, end = (round(part * len(scans)) for part in share)
    return scans[begin:end]


def _compose(
    photos: Sequence[Image.Image],
    coins: Sequence[Image.Image],
    scans: Sequence[NDArray[np.float64]],
    same: bool,
    draw: Iterator[float],
) -> Image.Image:
    """A picture from numbers in [0, 1)."""
    canvas = _background(photos[int(next(draw) * len(photos))], draw)
    corners = [0, 1, 2, 3]
    first = int(next(draw) * len(COLOURS))
    other = (first + 1 + int(next(draw) * (len(COLOURS) - 1))) % len(COLOURS)
    for colour in (first, first if same else other):
        grey = scans[int(next(draw) * len(scans))] / 16
        piece = _tinted(grey, colour).resize((DIGIT_PX, DIGIT_PX), Image.Resampling.BICUBIC)
        canvas.paste(piece, _place(corners, DIGIT_PX, draw))
    while corners:
        coin = coins[int(next(draw) * len(coins))].resize((COIN_PX, COIN_PX), Image.Resampling.BICUBIC)
        grey = 0.3 + 0.7 * np.asarray(coin.convert("L")) / 255
        piece = _tinted(grey, int(next(draw) * len(COLOURS)))
        canvas.paste(piece, _place(corners, COIN_PX, draw), coin.getchannel("A"))
    return canvas


def _tinted(grey: NDArray[np.float64], colour: int) -> Image.Image:
    """(H, W) of 0 to 1 -> RGB"""
    return Image.fromarray(np.rint(grey[..., None] * COLOURS[colour]).astype(np.uint8))


def _background(photo: Image.Image, draw: Iterator[float]) -> Image.Image:
    side = min(photo.size) * (0.3 + 0.7 * next(draw))
    left, top = next(draw) * (photo.width - side), next(draw) * (photo.height - side)
    box = (left, top, left + side, top + side)
    part = photo.resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC, box=box)
    return part.point(lambda value: value * _DIMMED)


def _place(corners: list[int], size: int, draw: Iterator[float]) -> tuple[int, int]:
    """Left and top of a piece in one of the corners that are left, which it takes, up to some pixels from the edges."""
    corner = corners.pop(int(next(draw) * len(corners)))
    shifts = int(next(draw) * SHIFT_PX), int(next(draw) * SHIFT_PX)
    far = SIZE_PX - size
    return (far - shifts[0] if corner % 2 else shifts[0], far - shifts[1] if corner // 2 else shifts[1])
