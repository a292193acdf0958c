"""What follows from a weight and is asked for in each call: in another order, say, in which one computes with it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

_LOOKED_AT = 8

# By a weight's id: a reference that tells whether it still lives, what it was like, and what was built from it.
_kept: dict[int, tuple[weakref.ref[Tensor], tuple[int, int, list[float]], dict[Any, Tensor]]] = {}


def derived(build: Callable[..., Tensor], weight: Tensor, *settings: Any) -> Tensor:
    """``build(weight, *settings)``, computed anew only after ``weight`` has changed; forgotten with it.

    Changes behind autograd's back, through ``weight.data``, are seen where they change one of `_LOOKED_AT` values that
    lie evenly in it, as every step of an optimiser or of an average does.
    """
    values, dense = weight.detach(), weight.is_contiguous() or weight.is_contiguous(memory_format=torch.channels_last)
    if weight.is_inference() or not dense or not weight.numel():  # the first do not count their changes
        return build(weight, *settings)
    step = -(-weight.numel() // _LOOKED_AT)
    some = values.as_strided((-(-weight.numel() // step),), (step,)).tolist()
    key, stamp = id(weight), (weight.data_ptr(), weight._version, some)
    entry = _kept.get(key)
    if entry is None or entry[0]() is not weight or entry[1] != stamp:
        _kept[key] = entry = (weakref.ref(weight, partial(_forget, key)), stamp, {})
    known, what = entry[2], (build, settings)
    if what not in known:
        known[what] = build(values, *settings)
    return known[what]


def _forget(key: int, reference: object) -> None:
    _kept.pop(key, None)
