"""What a data set is: three sets of samples, and what was left out; no sample has a label here, tasks add those."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tokenmix.data.random_numbers import name_keys, permutation
from tokenmix_runtime.cores import usable_cores
from tokenmix_runtime.images import ImageError
from tokenmix_runtime.terminal import shown

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_CHECKED_AT_ONCE = 64
_THREADS_PAY_S = 1e-3  # per picture, from which on several threads decode


class Samples:
    """What is learnt from or judged by: a number of samples with names. A subclass says what a sample is.

    Args:
        names: Of each sample: a file's path relative to its data set, or such as ``"digits/123"``.

    Examples:
        >>> from tokenmix.data import Samples
        >>> sorted(Samples(["a.png", "b.png", "c.png"]).order(seed=0, epoch=0).tolist())
        [0, 1, 2]
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)

    def __len__(self) -> int:
        return len(self.names)

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """The order in which an epoch of training goes through the samples, (N,): every one once."""
        return permutation(len(self), seed, epoch)

    def contents(self) -> NDArray[np.uint64]:
        """64 bits of each sample's content, (N,), by which it is known again; of samples without a file of its name."""
        return name_keys(self.names)

    def answers(self) -> list[str]:
        """A short text for each sample's answer, equal where the answers are; here there are none."""
        return [""] * len(self)


class Pictures(Samples):
    """Samples that are pictures, decoded when asked for. A subclass says how by `load`.

    Examples:
        >>> from tokenmix.data import Pictures
        >>> class Plain(Pictures):
        ...     def load(self, index):
        ...         return Image.new("RGB", (32, 32), self.names[index])
        >>> Plain(["red", "blue"]).load(0).getpixel((0, 0))
        (255, 0, 0)
    """

    def load(self, index: int) -> Image.Image:
        """The picture as RGB, at its full size."""
        raise NotImplementedError

    def load_reduced(self, index: int, at_least: int) -> Image.Image:
        """The picture as RGB, perhaps smaller, with no side reduced below ``at_least`` pixels, where that is faster."""
        return self.load(index)

    def encoded(self, index: int) -> bytes | None:
        """The picture's file, as it is stored; None where it is not kept as a file.

        Raises:
            ImageError: The file cannot be read.
        """
        return None


def printable(name: str) -> str:
    """A file's or class's name that can be written anywhere: escapes for what acts on a terminal, ``?`` for bytes."""
    return shown(name)


@dataclass(frozen=True)
class Skipped:
    """A picture that was left out, and why; or a shard that is ``damaged``, of which nobody knows how much is lost.

    Examples:
        >>> from tokenmix.data import Skipped
        >>> Skipped("cats/7.jpg", "the file is empty").damaged
        False
    """

    name: str
    reason: str
    damaged: bool = False


@dataclass
class DataSet:
    """Samples for training, for choosing (val) and for the final judgement (test), and what was left out.

    ``skipped`` are samples that cannot be used; ``unused``, by the reason, files that are no sample of any part;
    ``split_off`` says that a part was taken from the training samples by us; ``warnings`` tell what is odd
    about the set as a whole.

    Examples:
        >>> from tokenmix.data import DataSet, Samples
        >>> DataSet("letters", Samples("abc"), Samples("d"), Samples("e")).summary()
        'letters: 3 training, 1 validation and 1 test samples'
    """

    name: str
    train: Samples
    val: Samples
    test: Samples
    skipped: list[Skipped] = field(default_factory=list, kw_only=True)
    unused: dict[str, list[str]] = field(default_factory=dict, kw_only=True)
    split_off: bool = field(default=False, kw_only=True)
    warnings: list[str] = field(default_factory=list, kw_only=True)

    @property
    def facts(self) -> dict[str, Any]:
        """What a model for these samples is built from, and is stored with: names to JSON values."""
        return {}

    def summary(self) -> str:
        """One line: sizes of the sets, and the number of samples left out."""
        skipped = f", {len(self.skipped):,} skipped" if self.skipped else ""
        return (
            f"{self.name}: {len(self.train):,} training, {len(self.val):,} validation and {len(self.test):,} test "
            f"samples{skipped}"
        )


@dataclass
class PictureData(DataSet):
    """Samples that are pictures.

    ``image_size`` is the default size in pixels of a square image, ``mean`` and ``std`` are for values in 0..1.

    Examples:
        >>> from tokenmix.data import PictureData, Pictures
        >>> data = PictureData("bars", Pictures(["1"]), Pictures(["2"]), Pictures(["3"]), image_size=32)
        >>> data.mean, data.in_chans
        ((0.485, 0.456, 0.406), 3)
    """

    train: Pictures
    val: Pictures
    test: Pictures
    image_size: int
    mean: tuple[float, ...] = field(default=IMAGENET_MEAN, kw_only=True)
    std: tuple[float, ...] = field(default=IMAGENET_STD, kw_only=True)
    in_chans: int = field(default=3, kw_only=True)


Probe = Callable[[Pictures, int], object]
"""Looks at a picture of a set, and raises ImageError if it cannot be used."""


def decodes(images: Pictures, index: int) -> None:
    """The cheapest probe: decode the picture, a JPEG at 1/8 of its size."""
    images.load_reduced(index, 1)


def unreadable(images: Pictures, log: Callable[[str], None], probe: Probe = decodes) -> dict[int, Skipped]:
    """Look at every picture, in threads where that pays; the ones that cannot be used, by index.

    Says how far it is every five seconds. Names the failing ones, at most ten, in the log.
    """

    def check(index: int) -> Skipped | None:
        try:
            probe(images, index)
        except ImageError as error:
            return Skipped(images.names[index], error.reason)
        return None

    failed: dict[int, Skipped] = {}
    said = begun = time.monotonic()
    # Decoding switches warnings off, which is not safe in threads: the outer block puts the filters back as they were.
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, usable_cores())) as pool:
        run: Callable[..., Iterable[Skipped | None]] = map
        for begin in range(0, len(images), _CHECKED_AT_ONCE):
            block = range(begin, min(begin + _CHECKED_AT_ONCE, len(images)))
            failed |= {index: skipped for index, skipped in zip(block, run(check, block), strict=True) if skipped}
            # Small pictures spend their time in Python, where threads only wait for one another.
            run = pool.map if time.monotonic() - begun > _THREADS_PAY_S * block.stop else map
            if time.monotonic() - said >= 5:
                said = time.monotonic()
                log(f"checking images: {block.stop:,} of {len(images):,}")
    name_skipped(list(failed.values()), len(images), log)
    return failed


def name_skipped(skipped: Sequence[Skipped], count: int, log: Callable[[str], None]) -> None:
    """Name the pictures, of ``count``, that were left out, at most ten of them."""
    if not skipped:
        return
    log(f"skipped {len(skipped):,} of {count:,} images that cannot be read:")
    for one in skipped[:10]:
        log(f"  {one.name}: {one.reason}")
    if len(skipped) > 10:
        log(f"  and {len(skipped) - 10:,} more")
