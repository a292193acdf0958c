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
    """(..., 3, H, W) of 0..255, uint8 or float -> the same float32, less ``mean`` and over ``std`` (of 0..1)."""
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
    """An RGB picture -> (3, H, W) float32, normalised: what evaluation and prediction feed to a model."""
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

    Raises:
        ImageError: The file cannot be read.
    """
    image = open_image(path, at_least=enough(image_size, crop_pct))
    return preprocess(image, image_size, mean, std, crop_pct=crop_pct, interpolation=interpolation, crop_mode=crop_mode)


def to_pil(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Image.Image:
    """(3, H, W) normalised -> the picture, RGB."""
    levels = image.detach().cpu().double() * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
    return VF.to_pil_image((levels * 255).round().clamp(0, 255).to(torch.uint8))
