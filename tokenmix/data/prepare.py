"""From pictures to tensors: the one evaluation transform, which training, prediction and export share."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as VF

from tokenmix_runtime.images import open_image
from tokenmix_runtime.preprocess import enough, resize_and_crop


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(..., 3, H, W) of 0..255, uint8 or float -> the same float32, less ``mean`` and over ``std`` (of 0..1).

    Args:
        images: Not changed.
        mean: Of each channel, of values in 0..1.
        std: Of each channel, of values in 0..1.

    Raises:
        ValueError: There are not as many means as deviations.

    Examples:
        >>> from tokenmix.data import normalise
        >>> normalise(torch.full((3, 1, 1), 255, dtype=torch.uint8), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)).flatten()
        tensor([1., 1., 1.])
    """
    scale = torch.tensor([1 / (255 * s) for s in std], dtype=torch.float32)[:, None, None]
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], dtype=torch.float32)[:, None, None]
    return images.to(torch.float32).mul_(scale).add_(shift) if images.dtype == torch.uint8 else images * scale + shift


def preprocess(
    image: Image.Image,
    image_size: int | Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    crop_pct: float = 0.9,
    interpolation: str = "bicubic",
    crop_mode: str = "center",
) -> Tensor:
    """An RGB picture -> (3, H, W) float32, normalised: what evaluation and prediction feed to a model.

    Args:
        image: Of any size.
        image_size: Pixels, one number or (height, width).
        mean: Of each channel, of values in 0..1.
        std: Of each channel, of values in 0..1.
        crop_pct: See `resize_and_crop`.
        interpolation: See `resize_and_crop`.
        crop_mode: See `resize_and_crop`.

    Raises:
        ValueError: See `resize_and_crop`.

    Examples:
        >>> from tokenmix.data import IMAGENET_MEAN, IMAGENET_STD, preprocess
        >>> preprocess(Image.new("RGB", (640, 480)), 224, IMAGENET_MEAN, IMAGENET_STD).shape
        torch.Size([3, 224, 224])
    """
    fitted = resize_and_crop(image, image_size, crop_pct=crop_pct, interpolation=interpolation, crop_mode=crop_mode)
    return normalise(VF.pil_to_tensor(fitted), mean, std)


def preprocess_file(
    path: str | os.PathLike[str],
    image_size: int | Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    crop_pct: float = 0.9,
    interpolation: str = "bicubic",
    crop_mode: str = "center",
) -> Tensor:
    """A picture's file -> (3, H, W) float32, normalised, bit for bit what evaluation makes of it.

    A large JPEG is decoded at a reduced size that is at least twice the needed one; `preprocess` of the picture decoded
    at full size differs by about a grey level.

    Args:
        path: A file in one of `tokenmix_runtime.images.FORMATS`.
        image_size: Pixels, one number or (height, width).
        mean: Of each channel, of values in 0..1.
        std: Of each channel, of values in 0..1.
        crop_pct: See `resize_and_crop`.
        interpolation: See `resize_and_crop`.
        crop_mode: See `resize_and_crop`.

    Raises:
        ImageError: The file cannot be read.
        ValueError: See `resize_and_crop`.

    Examples:
        >>> from tokenmix.data import IMAGENET_MEAN, IMAGENET_STD, preprocess_file
        >>> preprocess_file("cat.jpg", 224, IMAGENET_MEAN, IMAGENET_STD).shape  # doctest: +SKIP
        torch.Size([3, 224, 224])
    """
    image = open_image(path, at_least=enough(image_size, crop_pct))
    return preprocess(image, image_size, mean, std, crop_pct=crop_pct, interpolation=interpolation, crop_mode=crop_mode)


def to_pil(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Image.Image:
    """(3, H, W) normalised -> the picture, RGB.

    Args:
        image: On any device.
        mean: Of each channel, of values in 0..1.
        std: Of each channel, of values in 0..1.

    Examples:
        >>> from tokenmix.data import to_pil
        >>> to_pil(torch.ones(3, 32, 48), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)).size
        (48, 32)
    """
    levels = image.detach().cpu().double() * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
    return VF.to_pil_image((levels * 255).round().clamp(0, 255).to(torch.uint8))
