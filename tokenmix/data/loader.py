"""Batches whose every number is a function of (seed, epoch, index), so that a run that continues repeats nothing."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms.v2 import functional as VF

from tokenmix.data.chance import hashes, permutation, uniforms
from tokenmix.data.dataset import ArrayImages, ImageSet
from tokenmix.data.transforms import (
    CROP_AREA,
    check_augment,
    enough,
    glyph_augment,
    height_width,
    normalise,
    photo_augment,
    resize_and_crop,
)

Batch = dict[str, Any]


class Loader:
    """Batches of a set of pictures, in an order that depends on (seed, epoch) only when training, fixed otherwise.

    The random generators of torch, NumPy and Python are seeded per picture while it is loaded, by (seed, epoch, index),
    and put back afterwards, so that loading never moves the random numbers of the model. Batches are the same, bit for
    bit, for any number of workers.

    Args:
        image_set: The pictures.
        batch_size: Pictures per batch.
        image_size: Pixels, one number or (height, width).
        mean: Of the values in 0..1, per channel.
        std: Of the values in 0..1, per channel.
        train: Shuffle, augment, and drop the last partial batch (unless it is the only one).
        seed: Of the order and the augmentation.
        workers: Processes that load ahead; 0 loads in this one. They stay alive between epochs.
        augment: ``"none"``, ``"light"`` or ``"standard"``, see `tokenmix.data.transforms`; only when training.
        flip: Whether a mirrored picture keeps its class; the default is what the set says.
        crop_pct: The share of the shorter side that evaluation keeps; the default is what the set says.
        interpolation: ``"bicubic"`` or ``"bilinear"``.

    Raises:
        ValueError: An empty set, or an argument out of range.
    """

    def __init__(
        self,
        image_set: ImageSet,
        *,
        batch_size: int,
        image_size: int | Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
        train: bool,
        seed: int = 0,
        workers: int = 0,
        augment: str = "standard",
        flip: bool | None = None,
        crop_pct: float | None = None,
        interpolation: str = "bicubic",
    ) -> None:
        if not len(image_set):
            raise ValueError("the set of images is empty")
        if batch_size < 1 or workers < 0:
            raise ValueError(f"batch_size must be 1 or more and workers 0 or more, not {batch_size} and {workers}")
        self.image_set = image_set
        self.batch_size = batch_size
        self.train = train
        self.seed = seed
        self.workers = workers
        self._maker = _BatchMaker(
            image_set,
            size=height_width(image_size),
            mean=tuple(mean),
            std=tuple(std),
            seed=seed,
            augment=check_augment(augment) if train else "none",
            flip=image_set.flip if flip is None else flip,
            crop_pct=image_set.crop_pct if crop_pct is None else crop_pct,
            interpolation=interpolation,
        )
        self._plan = _Plan()
        self._ahead: DataLoader | None = None
        self._turn = 0

    def __len__(self) -> int:
        """Batches per epoch."""
        whole, rest = divmod(len(self.image_set), self.batch_size)
        return max(whole, 1) if self.train else whole + bool(rest)

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches ``start``, ``start + 1``, ... of an epoch; the ones before are not loaded.

        A batch is a dict of ``image`` (B, 3, H, W) float32 normalised, ``label`` (B,) int64, ``mask`` (B,) bool (False
        marks padding) and ``index`` (B,) int64, the place in the set.

        Raises:
            ValueError: ``start`` is outside 0 .. len(self).
            RuntimeError: With workers, when a newer call of `batches` has taken them over.
        """
        if not 0 <= start <= len(self):
            raise ValueError(f"start must be within 0 and {len(self)}, the number of batches, not {start}")
        return self._iterate(epoch, start)

    def _iterate(self, epoch: int, start: int) -> Iterator[Batch]:
        count = len(self.image_set)
        order = permutation(count, self.seed, epoch) if self.train else np.arange(count)
        size = self.batch_size
        plan = [(epoch, order[batch * size : (batch + 1) * size].tolist()) for batch in range(start, len(self))]
        if not self.workers:
            for key in plan:
                yield self._maker[key]
            return
        self._turn += 1
        turn = self._turn
        self._plan.keys = plan
        if self._ahead is None:
            self._ahead = DataLoader(
                self._maker,
                batch_size=None,
                sampler=self._plan,
                num_workers=self.workers,
                persistent_workers=True,
                generator=torch.Generator(),  # else it would draw from the global one
            )
        for batch in self._ahead:
            yield batch
            if turn != self._turn:
                raise RuntimeError("with workers, only one iteration over a Loader can be under way")


class _Plan(Sampler):
    """The batches that the workers make next."""

    def __init__(self) -> None:
        self.keys: list[tuple[int, list[int]]] = []

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


class _BatchMaker(Dataset):
    """``maker[epoch, indices]`` is a batch; the same code in this process and in the workers."""

    def __init__(
        self,
        image_set: ImageSet,
        *,
        size: tuple[int, int],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        seed: int,
        augment: str,
        flip: bool,
        crop_pct: float,
        interpolation: str,
    ) -> None:
        self.image_set = image_set
        self.size = size
        self.mean = mean
        self.std = std
        self.seed = seed
        self.augment = augment
        self.flip = flip
        self.crop_pct = crop_pct
        self.interpolation = interpolation
        self.photo = None
        self.at_least = enough(size, crop_pct)
        if augment != "none" and not image_set.glyphs:
            self.photo = photo_augment(size, augment=augment, flip=flip, interpolation=interpolation)
            # The smallest crop still has as many pixels as the model sees.
            self.at_least = int(max(size) / CROP_AREA[augment] ** 0.5)

    def __getitem__(self, key: tuple[int, list[int]]) -> Batch:
        epoch, indices = key
        images = self._pixels(epoch, indices)
        if self.augment != "none" and self.image_set.glyphs:
            draws = uniforms(5, self.seed, epoch, indices)
            images = glyph_augment(images, draws, augment=self.augment, flip=self.flip)
        return {
            "image": normalise(images, self.mean, self.std),
            "label": torch.tensor([self.image_set.labels[index] for index in indices], dtype=torch.int64),
            "mask": torch.ones(len(indices), dtype=torch.bool),
            "index": torch.tensor(indices, dtype=torch.int64),
        }

    def _pixels(self, epoch: int, indices: list[int]) -> Tensor:
        """(B, 3, H, W) uint8, before normalisation and the augmentation of glyphs."""
        images = self.image_set
        ready = self.photo is None and self.crop_pct == 1
        if ready and isinstance(images, ArrayImages) and images.pixels.shape[-2:] == self.size:
            return images.pixels[indices]
        pixels = []
        with _kept_generators():
            for index, seed in zip(indices, hashes(self.seed, epoch, indices).tolist(), strict=True):
                _seed_generators(seed)
                pixels.append(self._load(index))
        return torch.stack(pixels)

    def _load(self, index: int) -> Tensor:
        image = self.image_set.load_reduced(index, self.at_least)
        if self.photo is not None:
            return self.photo(image)
        image = resize_and_crop(image, self.size, crop_pct=self.crop_pct, interpolation=self.interpolation)
        return VF.pil_to_tensor(image)


@contextlib.contextmanager
def _kept_generators() -> Iterator[None]:
    """The states of the global random generators after the block are those from before it."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        random.setstate(states[2])


def _seed_generators(seed: int) -> None:
    torch.default_generator.manual_seed(seed % 2**63)  # torch.manual_seed would also reseed the GPUs
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)
