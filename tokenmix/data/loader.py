"""Batches whose every number is a function of (seed, epoch, index), so that a run that continues repeats nothing."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as VF

from tokenmix.data.chance import hashes, kept_generators, seed_generators, uniforms
from tokenmix.data.dataset import ArrayImages, ImageSet
from tokenmix.data.packing import Parcel, is_shortage, shortage
from tokenmix.data.transforms import (
    Augment,
    eraser,
    glyph_augment,
    normalise,
    picture_augment,
)
from tokenmix.limits import check_number
from tokenmix.runtime.images import ImageError
from tokenmix.runtime.preprocess import enough, height_width, resize_and_crop

Batch = dict[str, Any]
STALL_S = 600.0  # without a batch from any process that loads: long enough to fetch a shard from afar
_SLICE_S = 20.0  # after which it is looked whether these processes live
_SIZES, _ERASING = 1, 2  # keys of draws beside the ones for order and augmentation


class Step(NamedTuple):
    """A batch of all processes together: the size of its pictures, and its place in the epoch's order."""

    size: tuple[int, int]
    begin: int
    end: int


class Key(NamedTuple):
    """What one process loads for a step; the indices from ``real`` on are padding."""

    epoch: int
    size: tuple[int, int]
    indices: list[int]
    real: int


class BaseLoader:
    """Which pictures make up each batch of an epoch, for this process; what a batch is made of, its maker says.

    Args:
        image_set: The pictures.
        maker: ``maker[key]`` is the batch of a `Key`, the same in any process.
        batch_size: Pictures per batch, of all processes together.
        image_size: Pixels, one number or (height, width).
        train: Shuffle, and drop the last partial batch (unless it is the only one).
        seed: Of the order.
        workers: Processes that load ahead; 0 loads in this one. They stay alive between epochs.
        multi_scale: See `Loader`.
        rank: See `Loader`.
        world: See `Loader`.

    Raises:
        ValueError: An empty set, or an argument out of range.
    """

    def __init__(
        self,
        image_set: ImageSet,
        maker: Dataset,
        *,
        batch_size: int,
        image_size: int | Sequence[int],
        train: bool,
        seed: int = 0,
        workers: int = 0,
        multi_scale: Sequence[int] = (),
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if not len(image_set):
            raise ValueError("the set of images is empty")
        if batch_size < 1 or workers < 0:
            raise ValueError(f"batch_size must be 1 or more and workers 0 or more, not {batch_size} and {workers}")
        check_number("workers", workers)
        if not 0 <= rank < world:
            raise ValueError(f"rank must be within 0 and {world - 1} for a world of {world}, not {rank}")
        if train and min(batch_size, len(image_set)) < world:
            raise ValueError(
                f"{world} processes need batches of {world} or more, not {min(batch_size, len(image_set))}"
            )
        self.image_set = image_set
        self.batch_size = batch_size
        self.train = train
        self.seed = seed
        self.workers = workers
        self.rank, self.world = rank, world
        self.size = height_width(image_size)
        self.sizes = [height_width(side) for side in multi_scale] if train else []
        self._maker = maker
        self._plan = _Plan()
        self._ahead: DataLoader | None = None
        self._idle = True  # whether its processes have nothing to do any more
        self._turn = 0

    def __len__(self) -> int:
        """Batches per epoch; with several sizes, of the first epoch."""
        return len(self.steps(0))

    def steps(self, epoch: int) -> list[Step]:
        """The batches of an epoch; with several sizes their number depends on (seed, epoch)."""
        count, batch = len(self.image_set), self.batch_size
        if not self.train:
            return [Step(self.size, begin, min(begin + batch, count)) for begin in range(0, count, batch)]
        most = max(1, count // batch)
        sizes = [self.size] * most
        if self.sizes:
            draws = hashes(self.seed, epoch, np.arange(most), _SIZES) % np.uint64(len(self.sizes))
            sizes = [self.sizes[draw] for draw in draws.tolist()]
        steps: list[Step] = []
        begin = 0
        for height, width in sizes:
            end = begin + batch * max(self.size[0] * self.size[1], height * width) // (height * width)
            if end > count:
                break
            steps.append(Step((height, width), begin, end))
            begin = end
        return steps or [Step(sizes[0], 0, count)]

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches ``start``, ``start + 1``, ... of an epoch; the ones before are not loaded.

        A batch is a dict; of `Loader`: ``image`` (B, 3, H, W) float32 normalised, ``label`` (B,) int64, ``mask`` (B,)
        bool (False marks padding) and ``index`` (B,) int64, the place in the set.

        Raises:
            ValueError: ``start`` is outside 0 .. the number of batches.
            ImageError: A picture cannot be read.
            ChildProcessError: A worker has died.
            OSError: A worker could not send a batch, for want of open files, shared memory or threads.
            TimeoutError: The workers have not sent anything for ten minutes.
            RuntimeError: With workers, when a newer call of `batches` has taken them over.
        """
        steps = self.steps(epoch)
        if not 0 <= start <= len(steps):
            raise ValueError(f"start must be within 0 and {len(steps)}, the number of batches, not {start}")
        return self._iterate(epoch, steps[start:])

    def _iterate(self, epoch: int, steps: list[Step]) -> Iterator[Batch]:
        count = len(self.image_set)
        order = self.image_set.order(self.seed, epoch) if self.train else np.arange(count)
        plan = [self._part(epoch, step, order) for step in steps]
        if not self.workers:
            for key in plan:
                yield self._maker[key]
            return
        self._turn += 1
        turn = self._turn
        self._plan.keys = plan
        if self._ahead is None or not self._idle:  # who still works for an iteration that was given up is let go
            self._ahead = DataLoader(
                _Ahead(self._maker),
                batch_size=None,
                sampler=self._plan,
                num_workers=self.workers,
                persistent_workers=True,
                timeout=_SLICE_S,
                worker_init_fn=_leave_interrupts,
                generator=torch.Generator(),  # else it would draw from the global one
            )
        self._idle = not plan
        for count, batch in enumerate(_fed(self._ahead), start=1):
            if isinstance(batch, Exception):
                raise batch
            self._idle = count == len(plan)
            yield batch
            if turn != self._turn:
                raise RuntimeError("with workers, only one iteration over a Loader can be under way")

    def _part(self, epoch: int, step: Step, order: np.ndarray) -> Key:
        """What this process loads of a step."""
        indices = order[step.begin + self.rank : step.end : self.world].tolist()
        length = len(indices) if self.train else -(-(step.end - step.begin) // self.world)
        padding = [int(order[step.begin])] * (length - len(indices))
        return Key(epoch, step.size, indices + padding, len(indices))


class Loader(BaseLoader):
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
        multi_scale: Sides of square pictures in pixels, one of them drawn for each batch when training. A batch of
            smaller pictures than ``image_size`` has more of them, so that it has about as many pixels; never fewer.
        rank: Which of the processes this is, from 0: it loads its part of every batch. When evaluating, parts are
            padded to one length with pictures whose ``mask`` is False.
        world: How many processes there are.

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
        augment: str | Augment = "standard",
        flip: bool | None = None,
        crop_pct: float | None = None,
        interpolation: str = "bicubic",
        crop_mode: str = "center",
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
            image_size=image_size,
            train=train,
            seed=seed,
            workers=workers,
            multi_scale=multi_scale,
            rank=rank,
            world=world,
        )


class _Plan(Sampler):
    """The batches that the workers make next."""

    def __init__(self) -> None:
        self.keys: list[Key] = []

    def __iter__(self) -> Iterator[Key]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


@contextlib.contextmanager
def named_deaths() -> Iterator[None]:
    """Say clearly that a worker has died; torch tells it by a signal, whose handler raises wherever the program is.

    Raises:
        ChildProcessError: That happened inside.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise ChildProcessError(
            "a process that loads images has died, perhaps for want of memory; the same command continues, "
            "with fewer workers (--workers) in less memory"
        ) from error


def _fed(loader: DataLoader) -> Iterator[Any]:
    """What the workers make, or a clear error when one of them dies, or none of them sends anything for long."""
    batches, waited = None, 0.0
    with named_deaths():
        while True:
            try:
                batches = iter(loader) if batches is None else batches
                batch = next(batches)
            except StopIteration:
                return
            except (ConnectionError, EOFError) as error:
                if str(error).startswith("Caught "):  # raised in a worker that lives
                    raise
                time.sleep(0.2)  # the signal comes now, if it has not come yet
                raise RuntimeError("a DataLoader worker left its batch half sent") from error
            except (OSError, RuntimeError) as error:
                if str(error).startswith("DataLoader timed out"):
                    waited += _SLICE_S
                    if batches is not None and waited < STALL_S:
                        continue
                    raise TimeoutError(
                        f"no images have come for {waited:.0f} seconds, though the {loader.num_workers} processes that "
                        "load them live: the disk or the network of the images does not answer, or they lack memory; "
                        "the same command continues, perhaps with fewer workers (--workers)"
                    ) from error
                if str(error).startswith("Caught ") or not is_shortage(error):
                    raise
                raise shortage(error, "start or answer") from error
            waited = 0.0
            yield batch


def _leave_interrupts(worker: int) -> None:
    """Ctrl-C reaches all processes of a terminal; what follows from it is decided by the one that trains."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Ahead(Dataset):
    """The batches, made and packed in a worker; what a user can mend comes back as the error it is.

    Raised in a worker, its message would become a traceback.
    """

    def __init__(self, maker: Dataset) -> None:
        self.maker = maker

    def __getitem__(self, key: Key) -> Parcel | Exception:
        try:
            batch = self.maker[key]
        except ImageError as error:
            return error
        try:
            return Parcel(batch)
        except OSError as error:
            return error


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
        epoch, size, indices, real = key
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
