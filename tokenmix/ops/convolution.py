"""A convolution and its activation at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tokenmix.ops.dispatch import Form, Situation, operator
from tokenmix.ops.internals import HAS_ONEDNN, convolve_and_activate


def _fits_onednn(now: Situation, *args: object) -> bool:
    return now.mode == "inference" and now.device == "cpu" and now.dtype == torch.float32 and HAS_ONEDNN


@torch.fx.wrap
@operator(Form("one call of oneDNN", convolve_and_activate, _fits_onednn))
def conv_act(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    act: str,
) -> Tensor:
    """``act(conv2d(x))``; ``act`` is ``"gelu"`` (exact), ``"silu"`` or ``"relu"``."""
    y = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    if act == "gelu":
        return F.gelu(y)
    return F.silu(y) if act == "silu" else F.relu(y)
