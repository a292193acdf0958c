"""Maps of numbers on a picture: resized as PyTorch does it, turned into classes, pasted as masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_STRIP = 2**24  # values that are enlarged at a time


def bilinear(maps: Array, size: Sequence[int], *, align_corners: bool = False, rows: slice = slice(None)) -> Array:
    """(..., h, w) -> (..., H, W), as ``torch.nn.functional.interpolate`` does it; of the result only some rows."""
    first, second, share = (part[rows] for part in _neighbours(maps, -2, size[0], align_corners))
    maps = maps[..., first, :] * (1 - share)[:, None] + maps[..., second, :] * share[:, None]
    first, second, share = _neighbours(maps, -1, size[1], align_corners)
    return maps[..., first] * (1 - share) + maps[..., second] * share


def _neighbours(maps: Array, axis: int, length: int, align_corners: bool) -> tuple[Array, Array, Array]:
    """For each new place the two old ones between which it lies, and the share of the second."""
    old, real = maps.shape[axis], maps.dtype.type
    if align_corners:
        place = np.arange(length, dtype=maps.dtype) * (real(old - 1) / real(max(length - 1, 1)))
    else:
        place = ((np.arange(length, dtype=maps.dtype) + real(0.5)) * (real(old) / real(length)) - real(0.5)).clip(min=0)
    first = np.minimum(place.astype(np.int64), old - 1)
    return first, np.minimum(first + 1, old - 1), place - first.astype(maps.dtype)


def classes_of(logits: Array, size: Sequence[int]) -> Array:
    """Logits (K, h, w) -> the class of each pixel, (H, W), in strips, so that they are never all enlarged at once."""
    kind = np.uint8 if len(logits) <= 256 else np.int32
    classes = np.empty(tuple(size), kind)
    step = max(1, _STRIP // (len(logits) * size[1]))
    for top in range(0, size[0], step):
        classes[top : top + step] = bilinear(logits, size, rows=slice(top, top + step)).argmax(0)
    return classes


def nearest(classes: Array, size: Sequence[int]) -> Array:
    """(h, w) -> (H, W) without mixing values, by pixels' centres, in float32 as PyTorch's, which decides over ties."""
    half = np.float32(0.5)
    rows, columns = (
        np.minimum((np.float32(old) / np.float32(new) * (np.arange(new, dtype=np.float32) + half)).astype(int), old - 1)
        for new, old in zip(size, classes.shape, strict=True)
    )
    return classes[rows[:, None], columns]


def paste(patch: Array, box: Array, size: Sequence[int]) -> NDArray[np.bool_]:
    """The probabilities (h, w) inside a box (4,) -> where they are above a half, (H, W), as torchvision pastes them."""
    height, width = size
    rows, columns = patch.shape
    patch = np.pad(patch, 1)
    half = (box[2:] - box[:2]) * box.dtype.type(0.5) * np.array([(columns + 2) / columns, (rows + 2) / rows], box.dtype)
    centre = (box[2:] + box[:2]) * box.dtype.type(0.5)
    left, top, right, bottom = np.concatenate([centre - half, centre + half]).astype(np.int64).tolist()
    mask = np.zeros((height, width), bool)
    inside = slice(max(top, 0), min(bottom + 1, height)), slice(max(left, 0), min(right + 1, width))
    if inside[0].start < inside[0].stop and inside[1].start < inside[1].stop:
        full = bilinear(patch, (max(bottom - top + 1, 1), max(right - left + 1, 1)))
        mask[inside] = (
            full[inside[0].start - top : inside[0].stop - top, inside[1].start - left : inside[1].stop - left] > 0.5
        )
    return mask
