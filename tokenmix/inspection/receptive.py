"""Effective receptive fields (arXiv:1701.04128): which pixels of the input the centre of a map depends on."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tokenmix.inspection.layers import listening

SHARE = 0.95  # of the energy that a field's width holds


def receptive_fields(
    modules: Mapping[str, nn.Module], run: Callable[[Tensor], Any], inputs: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Of each module the energy (H, W) of the gradient of its output's centre.

    The energy is the square of the gradient of the sum over the channels at the centre pixel of the output, summed over
    the input's channels and averaged over the inputs, each one scaled to a sum of 1.

    Args:
        modules: Those that return a map (B, C, h, w).
        run: The network.
        inputs: (1, C, H, W) each, of one size.
    """
    total: dict[str, Tensor] = {}
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
    return {name: energy.detach() for name, energy in total.items()}


def width_of(energy: Tensor, share: float = SHARE) -> int:
    """The side in pixels of the smallest square, wherever it lies, that holds that share of the energy (H, W).

    Where a map's pixel lies in the picture depends on every stride and padding before it, so that no square is
    assumed to lie around it. It may be longer than the picture's shorter side, but no larger than the picture.
    """
    height, width = energy.shape
    sums = functional.pad(energy.cpu().double().cumsum(0).cumsum(1), (1, 0, 1, 0))
    needed = float(sums[-1, -1]) * (share - 1e-12)  # rounding: a whole may be the sum of its parts in another order

    def holds(side: int) -> bool:
        down, across = min(side, height), min(side, width)
        inside = sums[down:, across:] - sums[:-down, across:] - sums[down:, :-across] + sums[:-down, :-across]
        return float(inside.max()) >= needed

    return bisect.bisect_left(range(1, max(height, width)), True, key=holds) + 1


def reach_of(energy: Tensor) -> float:
    """Which share of the pixels, of 1, have any influence at all."""
    return float((energy > 0).double().mean())
