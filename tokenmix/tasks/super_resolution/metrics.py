"""How near an enlarged picture is to the true one, as the super-resolution literature measures it.

On the luma Y of both, after they were rounded to 8 bits, without as many pixels at each border as the scale is. There
are two habits: MATLAB's ``rgb2ycbcr`` rounds Y to whole numbers too, and with it the published numbers of bicubic
enlargement and most tables were made; BasicSR, with which FFNet-SR was measured, does not. At 38 dB rounding costs
0.07 dB, so a number without its habit says little. SSIM is that of Wang et al., "Image quality assessment: from error
visibility to structural similarity" (2004), as their own code has it: a Gaussian window of 11 x 11 pixels, sigma 1.5,
only where it lies within the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tokenmix.metrics import Metric

WINDOW, SIGMA = 11, 1.5
_COEFFICIENTS = (65.481, 128.553, 24.966)  # of R, G and B in 0..1, ITU-R BT.601


def quantised(picture: Tensor) -> Tensor:
    """A picture in 0..1 as a file of 8 bits holds it: clamped, rounded, in 0..255, float64."""
    return picture.detach().double().mul(255).round().clamp(0, 255)


def luma(picture: Tensor) -> Tensor:
    """``(..., 3, H, W)`` RGB or ``(..., 1, H, W)`` grey, in 0..255 -> Y ``(..., H, W)``, 16..235, ITU-R BT.601.

    Grey is taken as equal red, green and blue.

    Raises:
        ValueError: The picture has another number of channels.
    """
    if picture.shape[-3] not in (1, 3):
        raise ValueError(f"a picture of {picture.shape[-3]} channels has no luma: it needs 1 (grey) or 3 (RGB)")
    weights = picture.new_tensor(_COEFFICIENTS) / 255
    return 16 + (picture * weights[:, None, None]).sum(-3)


def psnr(one: Tensor, other: Tensor) -> float:
    """The peak signal-to-noise ratio in dB of two Y pictures ``(H, W)`` with peak 255; infinite if they are equal."""
    error = float((one - other).square().mean())
    return 10 * math.log10(255**2 / error) if error else math.inf


def ssim(one: Tensor, other: Tensor) -> float:
    """The structural similarity, -1 to 1, of two Y pictures ``(H, W)`` with peak 255.

    Raises:
        ValueError: A side is shorter than the window.
    """
    if min(one.shape[-2:]) < WINDOW:
        height, width = one.shape[-2:]
        raise ValueError(f"SSIM needs {WINDOW} x {WINDOW} pixels at least, and {width} x {height} are left")
    x, y = one.double(), other.double()
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = _blurred(torch.stack((x, y, x * x, y * y, x * y)))
    variance = mean_xx + mean_yy - mean_x**2 - mean_y**2
    covariance = mean_xy - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float((likeness / ((mean_x**2 + mean_y**2 + c1) * (variance + c2))).mean())


def _blurred(pictures: Tensor) -> Tensor:
    """``(N, H, W)`` -> ``(N, H - 10, W - 10)``: weighted means under the window."""
    place = torch.arange(WINDOW, dtype=pictures.dtype, device=pictures.device) - WINDOW // 2
    kernel = torch.exp(-(place**2) / (2 * SIGMA**2))
    kernel = kernel / kernel.sum()
    rows = F.conv2d(pictures[:, None], kernel[None, None, :, None])
    return F.conv2d(rows, kernel[None, None, None, :])[:, 0]


def compare_pictures(picture: Tensor, truth: Tensor, border: int, *, rounded: bool = True) -> tuple[float, float]:
    """PSNR in dB and SSIM of a picture ``(C, H, W)`` in 0..1 and its truth, as the literature measures them.

    Args:
        picture: What was made.
        truth: Of the same size.
        border: Pixels that are left out at each side: usually the scale.
        rounded: Round Y to whole numbers, as MATLAB; False: as BasicSR.

    Raises:
        ValueError: The sizes differ, or too little is left.
    """
    if picture.shape != truth.shape:
        raise ValueError(f"a picture of {_size(picture)} cannot be compared with one of {_size(truth)}")
    height, width = picture.shape[-2:]
    inner = (..., slice(border, height - border), slice(border, width - border))
    one, other = (luma(quantised(part))[inner] for part in (picture, truth))
    if rounded:
        one, other = one.round(), other.round()
    return psnr(one, other), ssim(one, other)


def _size(picture: Tensor) -> str:
    channels, height, width = picture.shape
    return f"{width} x {height} pixels and {channels} channels"


class PictureQuality(Metric):
    """Pictures ``(C, H, W)`` and ``target`` -> ``psnr`` in dB and ``ssim``, the means over all pictures.

    Args:
        border: Pixels that are left out at each side: usually the scale.
        rounded: Round Y to whole numbers, as MATLAB; False: as BasicSR.
    """

    def __init__(self, border: int, *, rounded: bool = True) -> None:
        super().__init__((3,))
        self.border, self.rounded = border, rounded

    def update(self, prediction: Sequence[Tensor], batch: dict[str, Any]) -> None:
        """Add the pictures of a batch; see the class. Equal pictures count as 100 dB, or a mean would be infinite."""
        mask = batch.get("mask")
        for place, (picture, truth) in enumerate(zip(prediction, batch["target"], strict=True)):
            if mask is None or bool(mask[place]):
                decibels, likeness = compare_pictures(picture, truth, self.border, rounded=self.rounded)
                self.add(torch.tensor([min(decibels, 100.0), likeness, 1.0], dtype=torch.float64))

    def compute(self) -> dict[str, float]:
        """``{"psnr": dB, "ssim": -1 to 1}``."""
        decibels, likeness, count = self.total().tolist()
        if not count:
            raise ValueError("nothing was evaluated: the data set is empty, or every picture is masked")
        return {"psnr": decibels / count, "ssim": likeness / count}
