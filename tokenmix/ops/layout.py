"""How a map lies in memory."""

from __future__ import annotations

import torch
from torch import Tensor


def is_channels_last(x: Tensor) -> bool:
    """Whether a map's memory is NHWC and not also NCHW."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def as_stored(x: Tensor) -> Tensor:
    """A view of a map whose axes are in the order of its memory: torch is slow element by element otherwise."""
    return x.permute(0, 2, 3, 1) if is_channels_last(x) else x
