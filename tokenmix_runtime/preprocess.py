"""From a picture to a model's input, as evaluation makes it: by Pillow and NumPy, so that it is the same everywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tokenmix_runtime.limits import check_number
from tokenmix_runtime.names import unknown

INTERPOLATIONS = ("bicubic", "bilinear")
CROP_MODES = ("center", "squash")
_LONGEST = 16  # times the shorter side


def height_width(image_size: int | Sequence[int]) -> tuple[int, int]:
    """An image size, one number or (height, width), as (height, width) in pixels.

    Raises:
        ValueError: It is not one or two positive numbers of a possible size.
    """
    size = (image_size, image_size) if isinstance(image_size, int | np.integer) else tuple(image_size)
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"image_size must be a positive number of pixels or (height, width), not {image_size!r}")
    for side in size:
        check_number("image_size", side)
    return int(size[0]), int(size[1])


def resize_and_crop(
    image: Image.Image,
    image_size: int | Sequence[int],
    *,
    crop_pct: float = 0.9,
    interpolation: str = "bicubic",
    crop_mode: str = "center",
) -> Image.Image:
    """The picture at ``image_size``: resized, smoothed where it shrinks, so that its centre crop keeps ``crop_pct``.

    With the mode ``center`` it keeps its shape: for a square size the shorter side becomes ``floor(image_size /
    crop_pct)``; of a picture more than 16 times as long as wide only the middle is resized. With ``squash``, timm's
    word, every side becomes that, whatever the picture's shape.

    Args:
        image: Of any size.
        image_size: Pixels, one number or (height, width).
        crop_pct: The share of the resized sides that is kept, above 0 and at most 1.
        interpolation: ``"bicubic"`` or ``"bilinear"``.
        crop_mode: ``"center"`` or ``"squash"``.

    Raises:
        ValueError: A size or ``crop_pct`` is out of range, or an unknown interpolation or mode.

    Examples:
        >>> from tokenmix_runtime.preprocess import resize_and_crop
        >>> resize_and_crop(Image.new("RGB", (640, 480)), (224, 288)).size  # (width, height)
        (288, 224)
    """
    if crop_mode not in CROP_MODES:
        raise ValueError(unknown("crop_mode", crop_mode, CROP_MODES))
    if not 0 < crop_pct <= 1:
        raise ValueError(f"crop_pct must be above 0 and at most 1, not {crop_pct}")
    height, width = height_width(image_size)
    least_height, least_width = math.floor(height / crop_pct), math.floor(width / crop_pct)
    longest = _LONGEST * min(image.size)
    if max(image.size) > longest and crop_mode == "center":
        image = _center(image, min(image.height, longest), min(image.width, longest))
    if crop_mode == "squash":
        resized = (least_height, least_width)
    elif least_height * image.width >= least_width * image.height:  # the height decides
        resized = (least_height, max(least_width, least_height * image.width // image.height))
    else:
        resized = (max(least_height, least_width * image.height // image.width), least_width)
    return _center(_resize(image, resized[0], resized[1], interpolation), height, width)


def fit(
    image: Image.Image,
    image_size: Sequence[int],
    *,
    interpolation: str = "bilinear",
    within: Sequence[int | None] = (None, None),
) -> Image.Image:
    """The whole picture, scaled until its short side is the size's shorter one, or its long side the longer one.

    Args:
        image: The picture.
        image_size: Two lengths in pixels, in any order.
        interpolation: The filter.
        within: (height, width) that the result may not pass; None: any.

    Raises:
        ValueError: An unknown interpolation.
    """
    factor = min(min(image_size) / min(image.size), max(image_size) / max(image.size))
    sides = (image.height, image.width)
    factor = min([factor, *(limit / side for limit, side in zip(within, sides, strict=True) if limit is not None)])
    height, width = (max(1, round(side * factor)) for side in sides)
    return _resize(image, height, width, interpolation)


def normalised(image: Image.Image, mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """An RGB picture -> (3, H, W) float32: its values in 0..1, less ``mean`` and over ``std``."""
    scale = np.array([1 / (255 * s) for s in std], np.float32)[:, None, None]
    shift = np.array([-m / s for m, s in zip(mean, std, strict=True)], np.float32)[:, None, None]
    return np.asarray(image).transpose(2, 0, 1).astype(np.float32, order="C") * scale + shift


def enough(image_size: int | Sequence[int], crop_pct: float) -> int:
    """The length of the sides, pixels, from which on evaluation resizes a picture without a visible loss."""
    return math.ceil(2 * max(height_width(image_size)) / crop_pct)


def _resize(image: Image.Image, height: int, width: int, interpolation: str) -> Image.Image:
    if interpolation not in INTERPOLATIONS:
        raise ValueError(unknown("interpolation", interpolation, INTERPOLATIONS))
    if image.size == (width, height):
        return image
    return image.resize((width, height), Image.Resampling[interpolation.upper()])


def _center(image: Image.Image, height: int, width: int) -> Image.Image:
    """The middle of a picture that is at least so large."""
    if image.size == (width, height):
        return image
    top, left = round((image.height - height) / 2), round((image.width - width) / 2)
    return image.crop((left, top, left + width, top + height))
