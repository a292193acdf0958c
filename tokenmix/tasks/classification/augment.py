"""What training does to a picture at random, in the parts that `Augment` names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageOps
from timm.data import RandAugment, rand_augment_transform
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torchvision.transforms import v2

from tokenmix.tasks.classification.options import Augment
from tokenmix_runtime.names import unknown
from tokenmix_runtime.preprocess import INTERPOLATIONS

_COLOUR = {"standard": 0.2}
_GLYPHS = {  # degrees, share of the size, relative scale
    "light": (5.0, 0.03, 0.05),
    "standard": (10.0, 0.06, 0.1),
    "imagenet": (10.0, 0.06, 0.1),
}


def picture_augment(
    size: tuple[int, int],
    augment: Augment,
    *,
    crop: bool,
    flip: bool,
    mean: Sequence[float],
    interpolation: str = "bicubic",
) -> v2.Compose | None:
    """An RGB picture -> (3, H, W) uint8, changed at random by the global generators; None if nothing is to be done.

    Args:
        size: (height, width) in pixels.
        augment: What to do.
        crop: Whether to crop and mirror, to ``size``; else the picture has that size already.
        flip: Whether a mirrored picture keeps its class.
        mean: Of the values in 0..1, per channel: the colour of what comes in from outside the picture.
        interpolation: Of evaluation, for crops that have none of their own.
    """
    steps: list[torch.nn.Module] = []
    kept = augment.crop_interpolation or interpolation
    if crop and augment.area is not None:
        modes = INTERPOLATIONS if kept == "random" else (kept,)
        crops = [
            v2.RandomResizedCrop(size, scale=augment.area, interpolation=_mode(mode), antialias=True) for mode in modes
        ]
        steps.append(crops[0] if len(crops) == 1 else v2.RandomChoice(crops))
    if crop and flip and augment.name != "none":
        steps.append(v2.RandomHorizontalFlip())
    if augment.rand_augment:
        fill = {"translate_const": int(min(size) * 0.45), "img_mean": tuple(min(255, round(255 * m)) for m in mean)}
        if kept != "random":
            fill["interpolation"] = Image.Resampling[kept.upper()]
        steps.append(v2.Lambda(_rand_augment(augment.rand_augment, fill), Image.Image))
    colour = augment.color_jitter
    if colour is None:
        colour = _COLOUR.get(augment.name, 0.0) if crop else 0.0
    if colour or steps:
        steps.append(v2.PILToTensor())
    if colour:
        steps.append(v2.ColorJitter(*[colour] * 3))
    return v2.Compose(steps) if steps else None


def _rand_augment(text: str, settings: dict[str, Any]) -> RandAugment:
    """RandAugment as timm builds it from its string."""
    found = rand_augment_transform(text, settings)
    for op in found.ops:
        if op.name.startswith("Posterize"):
            op.aug_fn = _posterize
    return found


def _posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """The picture with so many bits per channel; of none it is black, where new versions of Pillow raise an error."""
    return ImageOps.posterize(image, bits) if bits else Image.new("RGB", image.size)


def eraser(rate: float) -> RandomErasing:
    """(3, H, W) normalised -> the same, in place: with this probability a rectangle of 2 to 33 % becomes noise."""
    return RandomErasing(rate, mode="pixel", device="cpu")


def glyph_augment(images: Tensor, draws: NDArray[np.float64], *, augment: str, flip: bool) -> Tensor:
    """(B, 3, H, W) of 0..255 -> the same float32, each turned, moved and scaled a little by its row of draws

    Every step treats each image alone and element by element, so that an image's result does not depend on its batch.

    Args:
        images: uint8 or float; what comes in from outside the picture is 0.
        draws: (B, 5) in [0, 1): angle, shift down, shift right, scale, mirror.
        augment: A name with a random change, all but ``"none"``.
        flip: Whether to mirror half of the images.
    """
    degrees, share, spread = _GLYPHS[augment]
    rows = []
    for angle, down, right, scale, mirror in draws.tolist():
        turn = math.radians(degrees) * (2 * angle - 1)
        inverse = (1 + spread) ** (1 - 2 * scale)  # from 1 / (1 + spread) to 1 + spread, evenly in ratio
        sign = -1.0 if flip and mirror < 0.5 else 1.0
        cos, sin = math.cos(turn) * inverse, math.sin(turn) * inverse
        rows.append((sign * cos, -sin, sign * sin, cos, 2 * share * (2 * right - 1), 2 * share * (2 * down - 1)))
    height, width = images.shape[-2:]
    a, b, c, d, right_shift, down_shift = torch.tensor(rows, dtype=torch.float32).T[..., None, None]  # each (B, 1, 1)
    ratio = width / height
    x = ((torch.arange(width) * 2 + 1) / width - 1)[None, None, :]
    y = ((torch.arange(height) * 2 + 1) / height - 1)[None, :, None]
    grid = torch.stack((a * x + b / ratio * y + right_shift, c * ratio * x + d * y + down_shift), dim=-1)
    return F.grid_sample(images.to(torch.float32), grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _mode(interpolation: str) -> v2.InterpolationMode:
    if interpolation not in INTERPOLATIONS:
        raise ValueError(unknown("interpolation", interpolation, INTERPOLATIONS))
    return v2.InterpolationMode(interpolation)
