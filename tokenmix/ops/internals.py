"""What we use of PyTorch that has no public name: nothing of it is used elsewhere.

Where a version of PyTorch lacks something of it, these functions say so, and the forms that need it do not fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_NEEDED = "_convolution_pointwise", "_linear_pointwise", "_reorder_convolution_weight"
HAS_ONEDNN = torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in _NEEDED)
# Activations that oneDNN computes together with a convolution: its name and its algorithm.
_ONEDNN_ACTS = {"silu": ("swish", ""), "gelu": ("gelu", "none"), "relu": ("relu", ""), "": ("none", "")}


def is_observed() -> bool:
    """Whether a dispatch mode or a transform of torch.func sees every operation."""
    return torch._C._len_torch_dispatch_stack() > 0 or torch._C._are_functorch_transforms_active()


def is_any_autocast() -> bool:
    """Whether autocast is on for some device."""
    return torch._C._is_any_autocast_enabled()


def is_checkpointed() -> bool:
    """Whether torch.utils.checkpoint will compute all this once more: then what is saved now is not kept anyway."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return hooks is not None and hooks[0].__module__ == "torch.utils.checkpoint"


def convolve_and_activate(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    act: str,
) -> Tensor:
    """A convolution and ``"gelu"`` (exact), ``"silu"``, ``"relu"`` or nothing in one call of oneDNN: float32, CPU."""
    name, algorithm = _ONEDNN_ACTS[act]
    return torch.ops.mkldnn._convolution_pointwise(
        x, weight, bias, padding, stride, dilation, groups, name, [], algorithm
    )


def reorder_weight(
    weight: Tensor, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int
) -> Tensor:
    """A weight for `convolve_and_activate` as oneDNN wants it."""
    return torch.ops.mkldnn._reorder_convolution_weight(weight, padding, stride, dilation, groups)


def multiply_and_activate(rows: Tensor, weight: Tensor, bias: Tensor | None, act: str) -> Tensor:
    """``(..., in), (out, in) -> (..., out)``: the same for a linear map of rows."""
    name, algorithm = _ONEDNN_ACTS[act]
    return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, name, [], algorithm)


def saved(node: Any, name: str) -> Any:
    """What a node of autograd's graph keeps under this name; None where it has no such thing."""
    return getattr(node, f"_saved_{name}", None)
