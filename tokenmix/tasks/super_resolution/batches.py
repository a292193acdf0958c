"""Batches for super-resolution: patches to learn from, whole pictures to be judged by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils.data import Dataset

from tokenmix.data.dataset import Samples
from tokenmix.data.loader import Batch, BatchLoader, Key
from tokenmix.tasks.super_resolution.data import PairSet, Photographs, to_tensor


class Patches(Samples):
    """Places of patches: of each picture in turn as many as an epoch takes from it.

    Args:
        pictures: How many there are.
        each: Patches of each.
    """

    def __init__(self, pictures: int, each: int) -> None:
        super().__init__([])
        self.count, self.each = pictures * each, each

    def __len__(self) -> int:
        return self.count


class PatchBatches(Dataset):
    """``batches[key]``: ``image`` (B, 3, h, w) and ``target`` (B, 3, s h, s w), both in 0..1.

    Args:
        pairs: Of what the patches are.
        each: How many of each picture an epoch has.
        seed: Of the places and positions.
        options: ``flip`` and ``rotate``, see `PairSet.patch`.
    """

    def __init__(self, pairs: PairSet, *, each: int, seed: int, options: Mapping[str, bool]) -> None:
        self.pairs, self.each, self.seed, self.options = pairs, each, seed, dict(options)

    def __getitem__(self, key: Key) -> Batch:
        size = max(key.shape)
        low, high = [], []
        for index in key.indices:
            picture, draw = divmod(index, self.each)
            small, large = self.pairs.patch(picture, size, seed=self.seed, epoch=key.epoch, draw=draw, **self.options)
            low.append(to_tensor(small))
            high.append(to_tensor(large))
        return {
            "image": torch.stack(low),
            "target": torch.stack(high),
            "mask": torch.arange(len(key.indices)) < key.real,
            "index": torch.tensor(key.indices) // self.each,  # the picture
        }


class PictureBatches(Dataset):
    """``batches[key]``: lists ``image`` of (3, h, w) and ``target`` of (3, s h, s w), both in 0..1, and ``name``."""

    def __init__(self, pairs: PairSet) -> None:
        self.pairs = pairs

    def __getitem__(self, key: Key) -> Batch:
        pairs = [self.pairs.picture(index) for index in key.indices]
        return {
            "image": [to_tensor(low) for low, _ in pairs],
            "target": [to_tensor(high) for _, high in pairs],
            "name": [self.pairs.names[index] for index in key.indices],
            "mask": torch.arange(len(key.indices)) < key.real,
            "index": torch.tensor(key.indices),
        }


def patch_loader(
    photographs: Photographs,
    scale: int,
    *,
    size: int,
    each: int,
    batch_size: int,
    seed: int,
    flip: bool = True,
    rotate: bool = True,
    **share: Any,
) -> BatchLoader:
    """Patches for training.

    Args:
        photographs: Of what.
        scale: How many times larger the targets are.
        size: Side of a small patch in pixels.
        each: Patches of each picture in an epoch.
        batch_size: Of all processes together.
        seed: Of the order, the places and the positions.
        flip: See `PairSet.patch`.
        rotate: The same.
        **share: ``workers``, ``rank`` and ``world``.
    """
    options = {"flip": flip, "rotate": rotate}
    maker = PatchBatches(photographs.at(scale), each=each, seed=seed, options=options)
    places = Patches(len(photographs), each)
    return BatchLoader(places, maker, batch_size=batch_size, shape=(size, size), train=True, seed=seed, **share)


def picture_loader(photographs: Photographs, scale: int, **share: Any) -> BatchLoader:
    """Whole pictures in order, one at a time in each process; ``share`` is ``workers``, ``rank`` and ``world``."""
    maker = PictureBatches(photographs.at(scale))
    return BatchLoader(photographs, maker, batch_size=share.get("world", 1), train=False, **share)
