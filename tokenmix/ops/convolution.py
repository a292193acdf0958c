"""A convolution and its activation at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tokenmix.ops.dispatch import Form, Situation, is_channels_last, operator
from tokenmix.ops.internals import HAS_ONEDNN, convolve_and_activate, multiply_and_activate
from tokenmix.ops.packed import packed


def _fits_onednn(now: Situation, *args: object) -> bool:
    plain = now.mode == "inference" and now.device == "cpu" and now.dtype == torch.float32 and not now.autocast
    return plain and HAS_ONEDNN


def _by_onednn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    act: str,
) -> Tensor:
    if is_channels_last(x):  # else the packed weight would not give a map in the memory format of this one
        weight = packed(weight, stride, padding, dilation, groups)
    return convolve_and_activate(x, weight, bias, stride, padding, dilation, groups, act)


def _fits_rows(
    now: Situation,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    act: str,
) -> bool:
    one = weight.size(2) * weight.size(3) * groups * max(stride) == 1 and max(padding) == 0
    return one and now.channels_last and _fits_onednn(now)


def _on_rows(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    act: str,
) -> Tensor:
    """A matrix product of the pixels' rows of channels."""
    rows, matrix = x.permute(0, 2, 3, 1), weight.flatten(1)
    out = multiply_and_activate(rows, matrix, bias, act) if act else F.linear(rows, matrix, bias)
    return out.permute(0, 3, 1, 2)


@torch.fx.wrap
@operator(Form("rows", _on_rows, _fits_rows), Form("one call of oneDNN", _by_onednn, _fits_onednn))
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
    """``act(conv2d(x))``; ``act`` is ``"gelu"`` (exact), ``"silu"``, ``"relu"`` or ``""`` (nothing)."""
    y = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    if act == "gelu":
        return F.gelu(y)
    if act == "silu":
        return F.silu(y)
    return F.relu(y) if act == "relu" else y
