"""Batches for dense tasks: pictures with their objects or labels, changed together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as VF

from tokenmix.data.loader import Batch, BatchLoader, Key
from tokenmix.data.prepare import normalise
from tokenmix.data.random_numbers import hashes, kept_generators, seed_generators
from tokenmix.tasks.dense.augment import dense_transform
from tokenmix.tasks.dense.options import DenseAugment
from tokenmix.tasks.dense.sets import DenseSet
from tokenmix_runtime.preprocess import fit, height_width, resize_and_crop


class DenseLoader(BatchLoader):
    """Batches of pictures with objects or labels; the same, bit for bit, for any number of workers and processes.

    In training a batch is a dict of

    * ``image``: for segmentation (B, 3, H, W) float32, normalised; for detection a list of B (3, h, w).
    * ``label`` (B, H, W) int64, 255 ignored; or ``target``, a list of torchvision's dicts, see `ObjectSet`, in the
      pixels of ``image``. Crowds are left out.
    * ``mask`` (B,) bool, False for padding, and ``index`` (B,) int64, the place in the set.

    In evaluation ``image`` is a list of pictures that keep their shape, each scaled until its short side is the size's
    shorter one, or its long side the longer one; ``label`` (a list of (H, W)) or ``target``, crowds included, is that
    of the picture as it is stored, and ``size`` (B, 2) int64 its height and width.

    Args:
        image_set: The pictures.
        batch_size: Pictures per batch, of all processes together.
        image_size: Pixels, one number or (height, width).
        mean: Of the values in 0..1, per channel.
        std: Of the values in 0..1, per channel.
        train: Shuffle, augment, and drop the last partial batch (unless it is the only one).
        augment: What to do when training; evaluation asks it only whether to stretch.
        seed: Of the order and the augmentation.
        workers: Processes that load ahead; 0 loads in this one.
        rank: Which of the processes this is, from 0.
        world: How many processes there are.

    Raises:
        ValueError: An empty set, or an argument out of range.
    """

    samples: DenseSet

    def __init__(
        self,
        image_set: DenseSet,
        *,
        batch_size: int,
        image_size: int | Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
        train: bool,
        augment: DenseAugment,
        seed: int = 0,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if not train:
            augment = DenseAugment(stretch=augment.stretch)
        elif image_set.per_pixel and not augment.stretch:
            augment = replace(augment, crop=True)  # the pictures of a batch have one size
        maker = _Maker(image_set, height_width(image_size), tuple(mean), tuple(std), seed, augment, train)
        super().__init__(
            image_set,
            maker,
            batch_size=batch_size,
            shape=height_width(image_size),
            train=train,
            seed=seed,
            workers=workers,
            rank=rank,
            world=world,
        )


class _Maker(Dataset):
    """``maker[key]`` is a batch; the same code in this process and in the workers."""

    def __init__(
        self,
        image_set: DenseSet,
        size: tuple[int, int],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        seed: int,
        augment: DenseAugment,
        train: bool,
    ) -> None:
        self.image_set, self.mean, self.std, self.seed, self.train = image_set, mean, std, seed, train
        self.labels = image_set.per_pixel
        fill = [round(255 * value) for value in mean]
        self.change = dense_transform(augment, size, boxes=not self.labels, fill=fill)
        self.size, self.stretch = size, augment.stretch

    def __getitem__(self, key: Key) -> Batch:
        parts: list[dict[str, Any]] = []
        with kept_generators():
            seeds = hashes(self.seed, key.epoch, key.indices).tolist()
            for index, seed in zip(key.indices, seeds, strict=True):
                seed_generators(seed)
                parts.append(self._learn(index) if self.train else self._judge(index))
        batch: Batch = {name: [part[name] for part in parts] for name in parts[0]}
        if self.train and self.labels:
            batch = {name: torch.stack(values) for name, values in batch.items()}
        if not self.train:
            batch["size"] = torch.stack(batch["size"])
        mask = torch.arange(len(key.indices)) < key.real
        return {**batch, "mask": mask, "index": torch.tensor(key.indices, dtype=torch.int64)}

    def _learn(self, index: int) -> dict[str, Any]:
        """A picture and its answer, changed together."""
        image, target = tv_tensors.Image(VF.pil_to_tensor(self.image_set.load(index))), self.image_set.target(index)
        if self.labels:
            changed = self.change({"image": image, "label": tv_tensors.Mask(target["label"].to(torch.uint8))})
            return {"image": self._finish(changed["image"]), "label": _plain(changed["label"]).long()}
        kept = target["iscrowd"] == 0
        sample = {"image": image, "labels": target["labels"][kept]}
        sample["boxes"] = tv_tensors.BoundingBoxes(target["boxes"][kept], format="XYXY", canvas_size=image.shape[-2:])
        if "masks" in target:
            sample["masks"] = tv_tensors.Mask(target["masks"][kept])
        changed = {name: _plain(value) for name, value in self.change(sample).items()}
        picture, boxes = changed.pop("image"), changed["boxes"]
        sides = boxes[:, 2:] - boxes[:, :2]
        changed["area"] = changed["masks"].sum((1, 2)).float() if "masks" in changed else sides.prod(1)
        changed |= {"iscrowd": torch.zeros_like(changed["labels"]), "image_id": target["image_id"]}
        return {"image": self._finish(picture), "target": changed}

    def _judge(self, index: int) -> dict[str, Any]:
        """A picture as it is evaluated, and its answer as it is stored."""
        stored, target = self.image_set.load(index), self.image_set.target(index)
        image = dense_preprocess(stored, self.size, mean=self.mean, std=self.std, stretch=self.stretch)
        answer = {"label": target["label"]} if self.labels else {"target": target}
        return {"image": image, **answer, "size": torch.tensor([stored.height, stored.width])}

    def _load(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        return tv_tensors.Image(VF.pil_to_tensor(self.image_set.load(index))), self.image_set.target(index)

    def _finish(self, image: Tensor) -> Tensor:
        return normalise(_plain(image), self.mean, self.std)


def dense_preprocess(
    picture: Image.Image, image_size: int | Sequence[int], *, mean: Sequence[float], std: Sequence[float], stretch: bool
) -> Tensor:
    """An RGB picture -> (3, h, w) float32, as `DenseLoader` prepares it for evaluation.

    Args:
        picture: Of any size.
        image_size: Pixels, one number or (height, width).
        mean: Of the values in 0..1, per channel.
        std: Of the values in 0..1, per channel.
        stretch: Whether to resize to the size whatever the shape; else the shape is kept.
    """
    size = height_width(image_size)
    if stretch:
        seen = resize_and_crop(picture, size, crop_pct=1.0, interpolation="bilinear", crop_mode="squash")
    else:
        seen = fit(picture, size)
    return normalise(VF.pil_to_tensor(seen), mean, std)


def _plain(value: Tensor) -> Tensor:
    """The tensor without what torchvision's transforms know it by."""
    return value.as_subclass(Tensor)
