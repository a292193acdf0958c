"""Weights in the order in which oneDNN computes with them: it would reorder them in each call."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor

from tokenmix.ops.internals import reorder_weight

# By a weight's id: a reference that tells whether it still lives, what it was like, and it in other orders.
_kept: dict[int, tuple[weakref.ref[Tensor], tuple[int, int], dict[Any, Tensor]]] = {}


def packed(
    weight: Tensor, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int
) -> Tensor:
    """The weight of a convolution, reordered; done anew only after it has changed, forgotten with it.

    Changes behind autograd's back, through ``weight.data``, are not seen.
    """
    shape = tuple(stride), tuple(padding), tuple(dilation), groups
    if weight.is_inference():  # such tensors do not count their changes
        return reorder_weight(weight, *shape)
    key, stamp = id(weight), (weight.data_ptr(), weight._version)
    entry = _kept.get(key)
    if entry is None or entry[0]() is not weight or entry[1] != stamp:
        _kept[key] = entry = (weakref.ref(weight, partial(_forget, key)), stamp, {})
    orders = entry[2]
    if shape not in orders:
        orders[shape] = reorder_weight(weight.detach(), *shape)
    return orders[shape]


def _forget(key: int, reference: object) -> None:
    _kept.pop(key, None)
