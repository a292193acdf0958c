"""Batches of labelled pictures: whole, cropped or changed at random, normalised."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as VF

from tokenmix.data.loader import Batch, BatchLoader, Key
from tokenmix.data.prepare import normalise
from tokenmix.data.random_numbers import hashes, kept_generators, seed_generators, uniforms
from tokenmix.tasks.classification.augment import eraser, glyph_augment, picture_augment
from tokenmix.tasks.classification.balance import balanced_order
from tokenmix.tasks.classification.images import ArrayImages, ImageSet
from tokenmix.tasks.classification.options import Augment
from tokenmix_runtime.preprocess import enough, height_width, resize_and_crop

_ERASING = 2  # key of draws beside the ones for order and augmentation


class Loader(BatchLoader):
    """Batches of a set of pictures, in an order that depends on (seed, epoch) only when training, fixed otherwise.

    The random generators of torch, NumPy and Python are seeded per picture while it is loaded, by (seed, epoch, index),
    and put back afterwards, so that loading never moves the random numbers of the model. Batches are the same, bit for
    bit, for any number of workers, and the parts of all processes together for any number of them.

    Args:
        image_set: The pictures.
        batch_size: Pictures per batch, of all processes together.
        image_size: Pixels, one number or (height, width).
        mean: Of the values in 0..1, per channel.
        std: Of the values in 0..1, per channel.
        train: Shuffle, augment, and drop the last partial batch (unless it is the only one).
        seed: Of the order and the augmentation.
        workers: Processes that load ahead; 0 loads in this one. They stay alive between epochs.
        augment: What to do when training: a name, or an `Augment`.
        flip: Whether a mirrored picture keeps its class; the default is what the set says.
        crop_pct: The share of the shorter side that evaluation keeps; the default is what the set says.
        interpolation: ``"bicubic"`` or ``"bilinear"``.
        crop_mode: How evaluation fits a picture to its size: ``"center"`` or ``"squash"``, see `resize_and_crop`.
        balance: Let all classes come equally often when training.
        multi_scale: Sides of square pictures in pixels, one of them drawn for each batch when training. A batch of
            smaller pictures than ``image_size`` has more of them, so that it has about as many pixels; never fewer.
        rank: Which of the processes this is, from 0: it loads its part of every batch. When evaluating, parts are
            padded to one length with pictures whose ``mask`` is False.
        world: How many processes there are.

    Raises:
        ValueError: An empty set, or an argument out of range.
    """

    samples: ImageSet

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
        augment: str | Augment = "standard",
        flip: bool | None = None,
        crop_pct: float | None = None,
        interpolation: str = "bicubic",
        crop_mode: str = "center",
        balance: bool = False,
        multi_scale: Sequence[int] = (),
        rank: int = 0,
        world: int = 1,
    ) -> None:
        maker = _BatchMaker(
            image_set,
            mean=tuple(mean),
            std=tuple(std),
            seed=seed,
            augment=_augment(augment) if train else Augment(name="none"),
            flip=image_set.flip if flip is None else flip,
            crop_pct=image_set.crop_pct if crop_pct is None else crop_pct,
            interpolation=interpolation,
            crop_mode=crop_mode,
        )
        super().__init__(
            image_set,
            maker,
            batch_size=batch_size,
            shape=height_width(image_size),
            train=train,
            seed=seed,
            workers=workers,
            shapes=[height_width(side) for side in multi_scale],
            rank=rank,
            world=world,
        )
        self.balance = balance

    def order(self, epoch: int) -> np.ndarray:
        if self.balance:
            return balanced_order(self.samples.labels, self.seed, epoch)
        return super().order(epoch)


class _BatchMaker(Dataset):
    """``maker[key]`` is a batch; the same code in this process and in the workers."""

    def __init__(
        self,
        image_set: ImageSet,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        seed: int,
        augment: Augment,
        flip: bool,
        crop_pct: float,
        interpolation: str,
        crop_mode: str,
    ) -> None:
        self.image_set = image_set
        self.mean = mean
        self.std = std
        self.seed = seed
        self.augment = augment
        self.flip = flip
        self.crop_pct = crop_pct
        self.interpolation = interpolation
        self.crop_mode = crop_mode
        self.crops = augment.area is not None and not image_set.glyphs
        self.erase = eraser(augment.erase_rate) if augment.erase_rate else None
        self.by_size: dict[tuple[int, int], v2.Compose | None] = {}

    def __getitem__(self, key: Key) -> Batch:
        epoch, (height, width), indices, real = key
        size = (height, width)
        images = self._pixels(epoch, size, indices)
        if self.augment.name != "none" and self.image_set.glyphs:
            draws = uniforms(5, self.seed, epoch, indices)
            images = glyph_augment(images, draws, augment=self.augment.name, flip=self.flip)
        images = normalise(images, self.mean, self.std)
        if self.erase is not None:
            with kept_generators():
                for image, seed in zip(images, hashes(self.seed, epoch, indices, _ERASING).tolist(), strict=True):
                    seed_generators(seed)
                    self.erase(image)
        return {
            "image": images,
            "label": torch.tensor([self.image_set.labels[index] for index in indices], dtype=torch.int64),
            "mask": torch.arange(len(indices)) < real,
            "index": torch.tensor(indices, dtype=torch.int64),
        }

    def _pixels(self, epoch: int, size: tuple[int, int], indices: list[int]) -> Tensor:
        """(B, 3, H, W) uint8, before normalisation and the augmentation of glyphs."""
        images, change = self.image_set, self._change(size)
        ready = change is None and self.crop_pct == 1
        if ready and isinstance(images, ArrayImages) and images.pixels.shape[-2:] == size:
            return images.pixels[indices]
        pixels = []
        with kept_generators():
            for index, seed in zip(indices, hashes(self.seed, epoch, indices).tolist(), strict=True):
                seed_generators(seed)
                pixels.append(self._load(index, size, change))
        return torch.stack(pixels)

    def _change(self, size: tuple[int, int]) -> v2.Compose | None:
        """The random change of pictures of a size."""
        if size not in self.by_size:
            self.by_size[size] = picture_augment(
                size,
                self.augment,
                crop=self.crops,
                flip=self.flip,
                mean=self.mean,
                interpolation=self.interpolation,
            )
        return self.by_size[size]

    def _load(self, index: int, size: tuple[int, int], change: v2.Compose | None) -> Tensor:
        area = self.augment.area
        if self.crops and area is not None and change is not None:
            # The smallest crop still has as many pixels as the model sees.
            return change(self.image_set.load_reduced(index, int(max(size) / area[0] ** 0.5)))
        image = self.image_set.load_reduced(index, enough(size, self.crop_pct))
        image = resize_and_crop(
            image, size, crop_pct=self.crop_pct, interpolation=self.interpolation, crop_mode=self.crop_mode
        )
        return VF.pil_to_tensor(image) if change is None else change(image)


def _augment(augment: str | Augment) -> Augment:
    return Augment(name=augment) if isinstance(augment, str) else augment
