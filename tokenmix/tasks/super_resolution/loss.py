"""The loss of FFNet-SR's training (arXiv:2406.02021 and its official options): in pixels, and a little in spectra."""

from __future__ import annotations

import torch
from torch import Tensor

SPECTRUM_WEIGHT = 0.02


def spectral_l1(difference: Tensor) -> Tensor:
    """The mean absolute value of the real and imaginary parts of the spectrum of ``(B, C, H, W)``.

    The spectrum is that of ``torch.fft.rfft2``, not divided by anything. The transform is linear: that of two pictures'
    difference is the difference of theirs.
    """
    return torch.view_as_real(torch.fft.rfft2(difference)).abs().mean()


def reconstruction_loss(
    prediction: Tensor, target: Tensor, spectrum_weight: float = SPECTRUM_WEIGHT
) -> tuple[Tensor, dict[str, Tensor]]:
    """L1 of the pixels plus ``spectrum_weight`` times L1 of the spectra, and both parts, detached.

    Computed in float32 where the pictures are of half precision.

    Args:
        prediction: ``(B, C, H, W)``.
        target: The same.
        spectrum_weight: 0 for pixels alone.
    """
    difference = prediction - target
    if difference.dtype in (torch.float16, torch.bfloat16):
        difference = prediction.float() - target.float()
    pixels = difference.abs().mean()
    if not spectrum_weight:
        return pixels, {"pixels": pixels.detach()}
    spectrum = spectral_l1(difference)
    return pixels + spectrum_weight * spectrum, {"pixels": pixels.detach(), "spectrum": spectrum.detach()}
