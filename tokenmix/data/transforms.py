"""From pictures to tensors: the one evaluation transform, and the augmentations by name.

``augment`` is a name that a recipe can hold:

* ``none``: the evaluation transform.
* ``light``: of a photo a random crop of 50 to 100 % of the area; a glyph (digit, letter) is turned by up to 5 degrees,
  moved by up to 3 % of the size and scaled by up to 5 %.
* ``standard``: of a photo a random crop of 25 to 100 %, with brightness, contrast and saturation changed by up to 20 %;
  glyphs by 10 degrees, 6 % and 10 %.

Half of the pictures are mirrored, except where the data set says that a mirrored picture loses its class.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as VF

from tokenmix.data.images import open_image
from tokenmix.names import unknown

AUGMENTS = ("none", "light", "standard")
INTERPOLATIONS = ("bicubic", "bilinear")
CROP_AREA = {"light": 0.5, "standard": 0.25}  # the smallest share of a photo's area
_COLOUR = {"light": 0.0, "standard": 0.2}
_GLYPHS = {"light": (5.0, 0.03, 0.05), "standard": (10.0, 0.06, 0.1)}  # degrees, share of the size, relative scale
_LONGEST = 16  # times the shorter side


def height_width(image_size: int | Sequence[int]) -> tuple[int, int]:
    """An image size, one number or (height, width), as (height, width) in pixels.

    Raises:
        ValueError: It is not one or two positive numbers.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"image_size must be a positive number of pixels or (height, width), not {image_size!r}")
    return int(size[0]), int(size[1])


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(..., 3, H, W) of 0..255, uint8 or float -> the same float32, less ``mean`` and over ``std`` (of 0..1)"""
    scale = torch.tensor([1 / (255 * s) for s in std], dtype=torch.float32)[:, None, None]
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], dtype=torch.float32)[:, None, None]
    return images.to(torch.float32).mul_(scale).add_(shift) if images.dtype == torch.uint8 else images * scale + shift


def resize_and_crop(
    image: Image.Image, image_size: int | Sequence[int], *, crop_pct: float = 0.9, interpolation: str = "bicubic"
) -> Image.Image:
    """The picture at ``image_size``: resized, smoothed where it shrinks, so that its centre crop keeps ``crop_pct``.

    For a square size the shorter side becomes ``floor(image_size / crop_pct)``. Of a picture more than 16 times as long
    as wide only the middle is resized.

    Raises:
        ValueError: ``crop_pct`` is outside (0, 1], or an unknown interpolation.
    """
    if not 0 < crop_pct <= 1:
        raise ValueError(f"crop_pct must be above 0 and at most 1, not {crop_pct}")
    height, width = height_width(image_size)
    least_height, least_width = math.floor(height / crop_pct), math.floor(width / crop_pct)
    longest = _LONGEST * min(image.size)
    if max(image.size) > longest:
        image = VF.center_crop(image, [min(image.height, longest), min(image.width, longest)])
    if least_height * image.width >= least_width * image.height:  # the height decides
        resized = [least_height, max(least_width, least_height * image.width // image.height)]
    else:
        resized = [max(least_height, least_width * image.height // image.width), least_width]
    if [image.height, image.width] != resized:
        image = VF.resize(image, resized, interpolation=_mode(interpolation), antialias=True)
    return image if resized == [height, width] else VF.center_crop(image, [height, width])


def preprocess(
    image: Image.Image,
    image_size: int | Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    crop_pct: float = 0.9,
    interpolation: str = "bicubic",
) -> Tensor:
    """An RGB picture -> (3, H, W) float32, normalised: what evaluation and prediction feed to a model."""
    pixels = VF.pil_to_tensor(resize_and_crop(image, image_size, crop_pct=crop_pct, interpolation=interpolation))
    return normalise(pixels, mean, std)


def preprocess_file(
    path: str | os.PathLike[str],
    image_size: int | Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    crop_pct: float = 0.9,
    interpolation: str = "bicubic",
) -> Tensor:
    """A picture's file -> (3, H, W) float32, normalised, bit for bit what evaluation makes of it.

    A large JPEG is decoded at a reduced size that is at least twice the needed one; `preprocess` of the picture decoded
    at full size differs by about a grey level.

    Raises:
        ImageError: The file cannot be read.
    """
    image = open_image(path, at_least=enough(image_size, crop_pct))
    return preprocess(image, image_size, mean, std, crop_pct=crop_pct, interpolation=interpolation)


def enough(image_size: int | Sequence[int], crop_pct: float) -> int:
    """The length of the sides, pixels, from which on evaluation resizes a picture without a visible loss."""
    return math.ceil(2 * max(height_width(image_size)) / crop_pct)


def to_pil(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Image.Image:
    """(3, H, W) normalised -> the picture, RGB"""
    levels = image.detach().cpu().double() * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
    return VF.to_pil_image((levels * 255).round().clamp(0, 255).to(torch.uint8))


def photo_augment(
    image_size: int | Sequence[int], *, augment: str, flip: bool, interpolation: str = "bicubic"
) -> v2.Compose:
    """An RGB picture -> (3, H, W) uint8, cropped (and mirrored, and coloured) at random by torch's global generator."""
    steps: list[torch.nn.Module] = [
        v2.RandomResizedCrop(
            height_width(image_size),
            scale=(CROP_AREA[augment], 1.0),
            interpolation=_mode(interpolation),
            antialias=True,
        )
    ]
    if flip:
        steps.append(v2.RandomHorizontalFlip())
    steps.append(v2.PILToTensor())
    if _COLOUR[augment]:
        steps.append(v2.ColorJitter(*[_COLOUR[augment]] * 3))
    return v2.Compose(steps)


def glyph_augment(images: Tensor, draws: NDArray[np.float64], *, augment: str, flip: bool) -> Tensor:
    """(B, 3, H, W) of 0..255 -> the same float32, each turned, moved and scaled a little by its row of draws

    Every step treats each image alone and element by element, so that an image's result does not depend on its batch.

    Args:
        images: uint8 or float; what comes in from outside the picture is 0.
        draws: (B, 5) in [0, 1): angle, shift down, shift right, scale, mirror.
        augment: ``"light"`` or ``"standard"``.
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


def check_augment(augment: str) -> str:
    """``augment`` if it is a known name.

    Raises:
        ValueError: It is not.
    """
    if augment not in AUGMENTS:
        raise ValueError(unknown("augment", augment, AUGMENTS))
    return augment


def _mode(interpolation: str) -> v2.InterpolationMode:
    if interpolation not in INTERPOLATIONS:
        raise ValueError(unknown("interpolation", interpolation, INTERPOLATIONS))
    return v2.InterpolationMode(interpolation)
