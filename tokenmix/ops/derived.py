"""What follows from a weight and is asked for in each call: in another order, say, in which one computes with it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

# By a weight's id: a reference that tells whether it still lives, what it was like, and what was built from it.
_kept: dict[int, tuple[weakref.ref[Tensor], tuple[int, int], dict[Any, Tensor]]] = {}


def derived(build: Callable[..., Tensor], weight: Tensor, *settings: Any) -> Tensor:
    """``build(weight, *settings)``, computed anew only after ``weight`` has changed; forgotten with it.

    Changes behind autograd's back, through ``weight.data``, are not seen.
    """
    if weight.is_inference():  # such tensors do not count their changes
        return build(weight, *settings)
    key, stamp = id(weight), (weight.data_ptr(), weight._version)
    entry = _kept.get(key)
    if entry is None or entry[0]() is not weight or entry[1] != stamp:
        _kept[key] = entry = (weakref.ref(weight, partial(_forget, key)), stamp, {})
    values, what = entry[2], (build, settings)
    if what not in values:
        values[what] = build(weight.detach(), *settings)
    return values[what]


def _forget(key: int, reference: object) -> None:
    _kept.pop(key, None)
