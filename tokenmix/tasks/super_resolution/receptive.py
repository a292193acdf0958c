"""How far a network looks: the pixels around one of its input that one of its output depends on."""

from __future__ import annotations

import copy

import torch
from torch import nn

from tokenmix.tasks.super_resolution.model import Upscaler

_REACHES = (4, 12, 24)  # of the inputs that a block is tried with; one that looks further counts as without bounds


def receptive_radii(model: Upscaler) -> list[int] | None:
    """Of each of the model's parts, how many pixels to each side its output depends on; None if one sees everything.

    Found by trying each: the gradient of one output pixel is exactly zero where that pixel does not look. None also
    where a part is not the same at every place, such as attention in windows, whose grid begins at the map's corner.
    """
    radii = []
    for part, channels in model.parts():
        radius = _tried(part, channels)
        if radius is None:
            return None
        radii.append(radius)
    return radii


def _tried(module: nn.Module, channels: int) -> int | None:
    """The radius of a module that keeps the size of ``(B, C, H, W)``; None if it is far or another at each place."""
    probe = copy.deepcopy(module).to("cpu", torch.float64).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for reach in _REACHES:
        side = 2 * reach + 1
        x = torch.randn(1, channels, side, side, dtype=torch.float64, generator=generator).requires_grad_()
        with torch.enable_grad():
            centre = probe(x)[0, :, reach, reach]
            # Weights in which no channel cancels another.
            (gradient,) = torch.autograd.grad((centre * torch.rand(len(centre), generator=generator).double()).sum(), x)
        seen = gradient[0].abs().sum(0).nonzero()
        radius = int((seen - reach).abs().max()) if len(seen) else 0
        if radius < reach:
            moved = probe(x[..., 1:, 1:])[0, :, reach - 1, reach - 1]
            return radius if torch.allclose(moved, centre) else None
    return None
