"""Matrices that follow from sizes alone: built once, kept between calls."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tokenmix.ops.dispatch import Form, Situation, operator

MOST_BYTES = 1 << 29  # of all together; the oldest go
_kept: dict[tuple[Any, ...], Tensor] = {}


def constant(build: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Decorate ``build(like, *sizes)``, which makes a matrix in the dtype and on the device of ``like``.

    Eager calls keep what it makes. An export of a fixed size stores the matrix that an eager call has left: computing
    it in the graph would take the exporters more time than all else that they do for a transform.
    """
    return operator(Form("kept", partial(_get, build), partial(_can_get, build)))(build)


def _can_get(build: Callable[..., Tensor], now: Situation, like: Tensor, *sizes: Any) -> bool:
    if now.eager:
        return True
    known = now.mode == "exporting" and not any(isinstance(size, torch.SymInt) for size in sizes)
    return known and _key(build, like, sizes) in _kept


def _get(build: Callable[..., Tensor], like: Tensor, *sizes: Any) -> Tensor:
    key = _key(build, like, sizes)
    found = _kept.get(key)
    if found is None:
        with torch.inference_mode(False):  # else training after inference could not save it for the backward pass
            found = _kept[key] = build(like, *sizes)
        while len(_kept) > 1 and sum(matrix.nbytes for matrix in list(_kept.values())) > MOST_BYTES:
            _kept.pop(next(iter(_kept)), None)
    return found


def _key(build: Callable[..., Tensor], like: Tensor, sizes: tuple[Any, ...]) -> tuple[Any, ...]:
    return build, *sizes, like.dtype, like.device
