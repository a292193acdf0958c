"""GELU, in the order in which a map lies in memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tokenmix.ops.dispatch import Form, Situation, operator


def _fits_rows(now: Situation, *args: object) -> bool:
    return now.eager and now.device == "cpu" and now.channels_last


def _on_rows(x: Tensor, approximate: str) -> Tensor:
    """PyTorch has a fast GELU for plain memory alone, which the rows of a map in channels_last memory are."""
    return F.gelu(x.permute(0, 2, 3, 1), approximate=approximate).permute(0, 3, 1, 2)


@torch.fx.wrap
@operator(Form("rows", _on_rows, _fits_rows))
def gelu(x: Tensor, approximate: str) -> Tensor:
    """Any shape to itself: ``x * Phi(x)``, or the approximation of it by ``"tanh"``."""
    return F.gelu(x, approximate=approximate)
