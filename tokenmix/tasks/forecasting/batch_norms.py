"""Batch norms as what they are: a scale and a shift of every channel, in evaluation and in training."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def affine_of(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """A batch norm in evaluation as ``scale * x + shift``, each ``(C,)``."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale


def affine_by_batch(norm: nn.BatchNorm1d, mean: Tensor, variance: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """A batch norm in training as ``scale * x + shift``; its running statistics move as in ``torch``'s.

    Args:
        norm: The norm.
        mean: Of its input, ``(C,)``.
        variance: The same, biased.
        count: Values of each channel.

    Raises:
        ValueError: If there is one value only, which has no variance.
    """
    if count < 2:
        raise ValueError("a batch norm needs more than one value of each channel in training: take larger batches")
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    with torch.no_grad():
        norm.num_batches_tracked += 1
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * (count / (count - 1)), norm.momentum)
    scale = norm.weight * torch.rsqrt(variance.clamp(min=0) + norm.eps)
    return scale, norm.bias - mean * scale
