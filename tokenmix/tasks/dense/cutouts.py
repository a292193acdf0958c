"""What the embedded scenes are made of: pieces of real photographs and scans that two libraries bring along.

scikit-image's photographs: 24 coins, 100 faces of Labeled Faces in the Wild (25 x 25 pixels), a cup on its saucer, a
motorcycle from two sides of a stereo pair, and the backgrounds. scikit-learn's scans: 1,797 handwritten digits. The
outlines below were drawn by hand on the photographs, in their pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tokenmix_runtime.images import open_known

T = TypeVar("T")
CLASSES = ("coin", "face", "digit", "cup", "motorcycle")
SHARES = {"train": (0.0, 0.6), "val": (0.6, 0.8), "test": (0.8, 1.0)}  # of the coins, faces, digits and backgrounds
BACKGROUNDS = (
    *("brick.png", "grass.png", "gravel.png", "chelsea.png", "rocket.jpg", "hubble_deep_field.jpg", "ihc.png"),
    *("moon.png", "retina.jpg"),
)
_COINS = (  # centre and half axes: x, y, x, y
    *((335, 44, 30, 28), (156, 51, 24, 23), (216, 52, 24, 22), (276, 53, 21, 19), (44, 54, 22, 20), (100, 56, 20, 18)),
    *((270, 120, 26, 24), (46, 124, 21, 20), (206, 124, 20, 20), (336, 126, 20, 20), (103, 126, 19, 18)),
    *((154, 128, 20, 18), (348, 187, 32, 31), (213, 194, 24, 24), (274, 194, 23, 22), (102, 196, 22, 21)),
    *((44, 198, 18, 19), (154, 198, 20, 19), (46, 260, 28, 28), (172, 262, 28, 26), (301, 264, 25, 25)),
    *((244, 264, 24, 24), (114, 266, 22, 21), (359, 268, 23, 20)),
)
_CUP = ((77, 62, 478, 392), (171, 14, 412, 215))  # two ellipses: left, top, right, bottom
_MOTORCYCLE = (
    *((92, 205), (135, 155), (200, 170), (240, 185), (300, 205), (340, 190), (375, 130), (345, 120), (380, 100)),
    *((430, 115), (470, 110), (500, 75), (520, 95), (560, 125), (565, 180), (560, 215), (600, 270), (640, 300)),
    *((680, 370), (675, 420), (640, 445), (580, 430), (540, 380), (515, 330), (470, 375), (400, 385), (340, 390)),
    *((335, 430), (320, 430), (325, 380), (270, 370), (225, 395), (170, 390), (130, 340), (120, 280), (150, 245)),
    (95, 220),
)
_LARGEST_PX = 150  # of a piece's sides: twice what a scene shows
_SECOND_VIEW_PX = -51  # how far to the right the motorcycle is in the stereo pair's right picture


def cutouts(split: str) -> list[list[Image.Image]]:
    """Of each class the pieces of a split, RGBA, transparent around the object.

    Coins, faces and digits are others in each split; the motorcycle is seen from the left in training and from the
    right otherwise; there is one cup.

    Raises:
        ValueError: A library is missing.
    """
    coins = _photo("coins.png")
    round_ones = [_cut(coins, "ellipse", [(x - a, y - b, x + a, y + b)]) for x, y, a, b in _COINS]
    faces = [_face(values) for values in np.load(_folder() / "lfw_subset.npy")[:100]]
    cup = _cut(_photo("coffee.png"), "ellipse", _CUP)
    side, shift = ("left", 0) if split == "train" else ("right", _SECOND_VIEW_PX)
    motorcycle = _cut(_photo(f"motorcycle_{side}.png"), "polygon", [[(x + shift, y) for x, y in _MOTORCYCLE]])
    return [_share(round_ones, split), _share(faces, split), _digits(split), [cup], [motorcycle]]


def backgrounds(split: str) -> list[Image.Image]:
    """Of each background photograph the columns that belong to a split, RGB."""
    parts = []
    for name in BACKGROUNDS:
        photo = _photo(name)
        begin, end = (round(share * photo.width) for share in SHARES[split])
        parts.append(photo.crop((begin, 0, end, photo.height)))
    return parts


def _folder() -> Path:
    try:
        import skimage.data
    except ImportError as error:
        raise ValueError("the scenes are cut from scikit-image's photographs: pip install 'tokenmix[demo]'") from error
    return Path(skimage.data.__file__).parent


def _photo(name: str) -> Image.Image:
    with open_known(_folder() / name) as image:
        return image.convert("RGB")


def _share(pieces: list[T], split: str) -> list[T]:
    begin, end = (round(share * len(pieces)) for share in SHARES[split])
    return pieces[begin:end]


def _cut(photo: Image.Image, kind: str, outlines: Sequence[Any]) -> Image.Image:
    """The part of a photograph within outlines, which are those of Pillow's ``draw.ellipse`` or ``draw.polygon``."""
    alpha = Image.new("L", photo.size)
    for outline in outlines:
        getattr(ImageDraw.Draw(alpha), kind)(outline, fill=255)
    piece = photo.copy()
    piece.putalpha(alpha)
    piece = piece.crop(alpha.getbbox())
    piece.thumbnail((_LARGEST_PX, _LARGEST_PX), Image.Resampling.BICUBIC)
    return piece


def _face(values: NDArray[np.float64]) -> Image.Image:
    """(25, 25) of 0..1 -> the ellipse in it, at four times the size"""
    grey = Image.fromarray(np.rint(values * 255).astype(np.uint8)).resize((100, 100), Image.Resampling.BICUBIC)
    return _cut(grey.convert("RGB"), "ellipse", [(14, 2, 86, 98)])


def _digits(split: str) -> list[Image.Image]:
    """White strokes, as opaque as the scan is dark."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ValueError("the digits come with scikit-learn: pip install 'tokenmix[demo]'") from error
    pieces = []
    for scan in _share(list(load_digits().images), split):
        large = Image.fromarray(scan.astype(np.float32)).resize((64, 64), Image.Resampling.BICUBIC)
        alpha = np.rint((np.asarray(large) - 4).clip(0, 8) * (255 / 8)).astype(np.uint8)
        piece = Image.new("RGB", (64, 64), "white")
        piece.putalpha(Image.fromarray(alpha))
        pieces.append(piece.crop(piece.getchannel("A").getbbox()))
    return pieces
