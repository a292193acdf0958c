"""Convolutions: with their activation at once, and of single pixels as one product of rows."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from tokenmix.ops.derived import derived
from tokenmix.ops.dispatch import Form, Situation, is_channels_last, operator
from tokenmix.ops.internals import HAS_ONEDNN, convolve_and_activate, multiply_and_activate, reorder_weight

# From this many rows on, oneDNN's product with the activation in it beats MKL's followed by the activation in place.
ONEDNN_ROWS = 512
_IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": torch.ops.aten.silu_.default,
    "gelu": torch.ops.aten.gelu_.default,
    "relu": torch.relu_,
    "": lambda x: x,
}


def fits_onednn(now: Situation, *args: object) -> bool:
    """Inference on a CPU in float32."""
    plain = now.mode == "inference" and now.device == "cpu" and now.dtype == torch.float32
    return plain and HAS_ONEDNN and not now.autocast


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
    if is_channels_last(x):
        if weight.size(2) * weight.size(3) * groups * max(stride) == 1 and max(padding) == 0:
            return _multiply(x.permute(0, 2, 3, 1), weight.flatten(1), bias, act).permute(0, 3, 1, 2)
        # Of maps in other layouts it would change the layout.
        weight = derived(reorder_weight, weight, tuple(stride), tuple(padding), tuple(dilation), groups)
    return convolve_and_activate(x, weight, bias, stride, padding, dilation, groups, act)


def _multiply(rows: Tensor, weight: Tensor, bias: Tensor | None, act: str) -> Tensor:
    if act and rows.numel() // rows.size(3) >= ONEDNN_ROWS:
        return multiply_and_activate(rows, weight, bias, act)
    return _IN_PLACE[act](F.linear(rows, weight, bias))


@torch.fx.wrap
@operator(Form("oneDNN", _by_onednn, fits_onednn))
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


def _fits_rows(now: Situation, *args: object) -> bool:
    return now.mode == "training" and now.device == "cpu" and now.channels_last


def _on_rows(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)


@torch.fx.wrap
@operator(Form("rows", _on_rows, _fits_rows))
def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``(B, C, H, W), (D, C, 1, 1) -> (B, D, H, W)``: a linear map of the channels of each pixel."""
    return F.conv2d(x, weight, bias)
