"""Class activation maps, with a gradient and without one, for whatever a task scores.

Written out here because both are a few lines on one map and one score: the libraries that have them (pytorch-grad-cam,
captum) bring OpenCV, scikit-learn or matplotlib, and wrappers for what a detector or a segmenter returns.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.inspection.layers import listening

CHANNELS = 24  # that the map without gradients tries, the strongest ones


def grad_cam(module: nn.Module, score: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``(1, C, H, W) -> (h, w)``: channels of a module's output, weighed by their mean gradient; below zero is cut off.

    Source: arXiv:1610.02391, eq. 1 and 2.

    Args:
        module: Its output (1, C, h, w) is looked at.
        score: Inputs -> (1,), with gradients.
        x: The input.
    """
    with listening({"map": module}) as heard, torch.enable_grad():
        value = score(x.detach().clone().requires_grad_())
        found = heard["map"]
        (gradient,) = torch.autograd.grad(value.sum(), found)
    return torch.relu((gradient.mean((2, 3), keepdim=True) * found).sum(1))[0].detach()


@torch.no_grad()
def score_cam(module: nn.Module, score: Callable[[Tensor], Tensor], x: Tensor, channels: int = CHANNELS) -> Tensor:
    """``(1, C, H, W) -> (h, w)``: channels weighed by the score of the input of which only they are shown.

    Source: arXiv:1910.01279 (Score-CAM): weights are the softmax of the scores' gains over that of an input of zeros,
    the mean of the training pictures. Ours: of all channels only those with the most energy are tried.

    Args:
        module: See `grad_cam`.
        score: Inputs -> (B,).
        x: The input.
        channels: How many are tried.
    """
    with listening({"map": module}) as heard:
        score(x)
    found = heard["map"][0]
    energy = (found - found.mean((1, 2), keepdim=True)).square().mean((1, 2))
    tried = found[energy.topk(min(channels, len(found))).indices]  # (k, h, w)
    low, high = tried.amin((1, 2), keepdim=True), tried.amax((1, 2), keepdim=True)
    shown = (tried - low) / (high - low).clamp(min=1e-12)
    masks = F.interpolate(shown[:, None], x.shape[-2:], mode="bilinear")
    gains = torch.stack([score(x * mask)[0] for mask in masks]) - score(torch.zeros_like(x))[0]
    weights = torch.softmax(gains, 0)
    return torch.relu((weights[:, None, None] * tried).sum(0))
