"""Effective receptive fields (arXiv:1701.04128): which pixels of the input the centre of a map depends on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tokenmix.inspection.layers import listening

SHARE = 0.95  # of the energy that a field's width holds


def receptive_fields(
    modules: Mapping[str, nn.Module], run: Callable[[Tensor], Any], inputs: Sequence[Tensor]
) -> dict[str, tuple[Tensor, tuple[float, float]]]:
    """Of each module the energy (H, W) of the gradient of its output's centre, and where that centre lies, in pixels.

    The energy is the square of the gradient of the sum over the channels at the centre pixel of the output, summed over
    the input's channels and averaged over the inputs, each one scaled to a sum of 1.

    Args:
        modules: Those that return a map (B, C, h, w).
        run: The network.
        inputs: (1, C, H, W) each, of one size.
    """
    total: dict[str, Tensor] = {}
    centres: dict[str, tuple[float, float]] = {}
    for x in inputs:
        x = x.detach().clone().requires_grad_()
        with listening(modules) as heard, torch.enable_grad():
            run(x)
        maps = {name: y for name, y in heard.items() if isinstance(y, Tensor) and y.ndim == 4}
        for name, y in maps.items():
            row, column = y.shape[-2] // 2, y.shape[-1] // 2
            (gradient,) = torch.autograd.grad(y[0, :, row, column].sum(), x, retain_graph=True)
            energy = gradient[0].double().square().sum(0)
            total[name] = total.get(name, 0) + energy / energy.sum().clamp(min=1e-300) / len(inputs)
            down, across = x.shape[-2] / y.shape[-2], x.shape[-1] / y.shape[-1]
            centres[name] = ((row + 0.5) * down, (column + 0.5) * across)
    return {name: (energy.detach(), centres[name]) for name, energy in total.items()}


def width_of(energy: Tensor, centre: tuple[float, float], share: float = SHARE) -> float:
    """The side in pixels of the smallest square around the centre that holds that share of the energy (H, W).

    It is no larger than the picture.
    """
    rows, columns = (torch.arange(side, dtype=torch.float64) + 0.5 for side in energy.shape)
    away = torch.maximum((rows[:, None] - centre[0]).abs(), (columns - centre[1]).abs()).flatten()
    order = away.argsort()
    held = energy.flatten().double().cpu()[order].cumsum(0)
    index = int(torch.searchsorted(held, share * held[-1]))
    return min(2 * float(away[order][min(index, len(order) - 1)]) + 1, float(max(energy.shape)))


def reach_of(energy: Tensor) -> float:
    """Which share of the pixels, of 1, have any influence at all."""
    return float((energy > 0).double().mean())
