"""Forms of layers that only inference on a CPU takes, and the rule that says when.

A map in channels_last memory is a matrix with one row of channels per pixel. Weights that such a form needs in another
layout are kept from call to call (`kept`).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tokenmix.ops.layout import is_channels_last

# From this many pixels on, or for several images, oneDNN's convolution beats torch's own product for 1x1 kernels.
ONEDNN_PIXELS = 2048
# From this many rows on, oneDNN's product with the activation in it beats MKL's followed by the activation in place.
ONEDNN_ROWS = 512
# Activations that oneDNN computes together with a product: its name and its algorithm.
ONEDNN_ACTS = {"silu": ("swish", ""), "gelu": ("gelu", "none"), "relu": ("relu", ""), "": ("none", "")}
_IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": torch.ops.aten.silu_.default,
    "gelu": torch.ops.aten.gelu_.default,
    "relu": torch.relu_,
}

_HAS_ONEDNN = torch.backends.mkldnn.is_available()
# What was built from a weight: by its id, with a reference that tells whether it still lives, and what it was like.
_kept: dict[int, tuple[weakref.ref[Tensor], tuple[int, int], dict[Any, Any]]] = {}


def plain_inference(x: Tensor) -> bool:
    """Whether ``x`` is an ordinary float32 tensor on a CPU and nobody traces, differentiates or counts what happens."""
    return (
        not torch.is_grad_enabled()
        and type(x) is Tensor
        and x.is_cpu
        and x.dtype == torch.float32
        and not torch.compiler.is_compiling()
        and not torch._C._is_tracing()
        and not torch.is_autocast_enabled("cpu")
        and torch._C._len_torch_dispatch_stack() == 0
        and not torch._C._are_functorch_transforms_active()
        and _HAS_ONEDNN
    )


def kept(build: Callable[..., Any], weight: Tensor, *settings: Any) -> Any:
    """``build(weight, *settings)``, computed anew only after ``weight`` has changed; forgotten with it.

    Changes behind autograd's back, through ``weight.data``, are not seen.
    """
    if weight.is_inference():  # such tensors do not count their changes
        return build(weight, *settings)
    key, stamp = id(weight), (weight.data_ptr(), weight._version)
    entry = _kept.get(key)
    if entry is None or entry[0]() is not weight or entry[1] != stamp:
        _kept[key] = entry = (weakref.ref(weight, partial(_forget, key)), stamp, {})
    values = entry[2]
    if (build, settings) not in values:
        values[build, settings] = build(weight.detach(), *settings)
    return values[build, settings]


def _forget(key: int, reference: object) -> None:
    _kept.pop(key, None)


@torch.fx.wrap
def activate(x: Tensor, act: str) -> Tensor:
    """Any shape to itself: ``"gelu"`` (exact), ``"silu"``, ``"relu"`` or ``""`` (nothing)."""
    if act == "":
        return x
    if act == "relu":
        return F.relu(x)
    if act == "silu":
        return F.silu(x)
    if torch.jit.is_scripting():
        return F.gelu(x)
    if x.device.type == "cpu" and x.ndim == 4 and not torch.compiler.is_compiling() and is_channels_last(x):
        return F.gelu(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # torch has a fast GELU for plain layouts only
    return F.gelu(x)


@torch.fx.wrap
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
    """``act(conv2d(x))``, in inference on a CPU with as few passes over memory as there is a form for."""
    if torch.jit.is_scripting():
        return activate(F.conv2d(x, weight, bias, stride, padding, dilation, groups), act)
    if not plain_inference(x):
        return activate(F.conv2d(x, weight, bias, stride, padding, dilation, groups), act)
    rows = is_channels_last(x)
    if weight.size(2) * weight.size(3) * groups * max(stride) == 1 and max(padding) == 0:
        if rows:
            return _product(x, weight.flatten(1), bias, act)
        if x.size(0) == 1 and x.size(2) * x.size(3) < ONEDNN_PIXELS:
            return activate(F.conv2d(x, weight, bias), act)
    if rows:  # else the kept form would not give channels_last memory
        weight = kept(_packed, weight, tuple(padding), tuple(stride), tuple(dilation), groups)
    name, algorithm = ONEDNN_ACTS[act]
    return torch.ops.mkldnn._convolution_pointwise(
        x, weight, bias, padding, stride, dilation, groups, name, [], algorithm
    )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, act: str) -> Tensor:
    """1x1 convolution and activation of a map in channels_last memory, as a matrix product of its rows."""
    rows = x.permute(0, 2, 3, 1)
    if act and rows.numel() // rows.size(3) >= ONEDNN_ROWS:
        name, algorithm = ONEDNN_ACTS[act]
        return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, name, [], algorithm).permute(0, 3, 1, 2)
    out = F.linear(rows, weight, bias)
    if act:
        _IN_PLACE[act](out)
    return out.permute(0, 3, 1, 2)


def _packed(
    weight: Tensor, padding: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...], groups: int
) -> Tensor:
    """A convolution's weight as oneDNN wants it, which would reorder it in every call."""
    return torch.ops.mkldnn._reorder_convolution_weight(weight, padding, stride, dilation, groups)
