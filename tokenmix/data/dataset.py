"""What a data set is: three sets of labelled pictures, the names of the classes, and what was left out."""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tokenmix.cores import usable_cores
from tokenmix.data.chance import permutation
from tokenmix.runtime.images import ImageError, decode, open_image, read_file, to_rgb
from tokenmix.terminal import shown

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageSet:
    """Labelled pictures, decoded when asked for. A subclass says how by `load`.

    Args:
        labels: The class of each picture.
        names: The name of each picture: a file's path relative to its data set, or such as ``"digits/123"``.
        flip: Whether a mirrored picture keeps its class.
        glyphs: Whether these are small centred drawings (digits, letters), which are augmented by small rotations and
            shifts, instead of photos, which are cropped.
        crop_pct: The share of the shorter side that evaluation keeps.
    """

    def __init__(
        self,
        labels: Sequence[int],
        names: Sequence[str],
        *,
        flip: bool = True,
        glyphs: bool = False,
        crop_pct: float = 0.9,
    ) -> None:
        if len(labels) != len(names):
            raise ValueError(f"{len(labels)} labels for {len(names)} names")
        self.labels = list(labels)
        self.names = list(names)
        self.flip = flip
        self.glyphs = glyphs
        self.crop_pct = crop_pct

    def __len__(self) -> int:
        return len(self.labels)

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

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """The order in which an epoch of training goes through the pictures, (N,): every one once."""
        return permutation(len(self), seed, epoch)


class ArrayImages(ImageSet):
    """Pictures of one size, kept in memory as ``pixels``, (N, 3, H, W) uint8."""

    def __init__(self, pixels: Tensor, labels: Sequence[int], names: Sequence[str], **kind: Any) -> None:
        super().__init__(labels, names, **kind)
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3 or len(pixels) != len(self):
            raise ValueError(
                f"pixels must be ({len(self)}, 3, H, W) uint8, not {tuple(pixels.shape)} {str(pixels.dtype)[6:]}"
            )
        self.pixels = pixels.contiguous()

    def load(self, index: int) -> Image.Image:
        return Image.fromarray(np.ascontiguousarray(self.pixels[index].permute(1, 2, 0).numpy()))


class FileImages(ImageSet):
    """Pictures in files; ``files`` are the paths relative to ``root``, with forward slashes, and name the pictures."""

    def __init__(self, root: Path, labels: Sequence[int], files: Sequence[str], **kind: Any) -> None:
        super().__init__(labels, [printable(file) for file in files], **kind)
        self.root = Path(root)
        self.files = list(files)

    def load(self, index: int) -> Image.Image:
        return open_image(self.root / self.files[index])

    def load_reduced(self, index: int, at_least: int) -> Image.Image:
        return open_image(self.root / self.files[index], at_least=at_least)

    def encoded(self, index: int) -> bytes:
        return read_file(self.root / self.files[index])


class TableImages(ImageSet):
    """Pictures that another library's data set holds: ``source[rows[i]]`` is a row, ``row[column]`` the picture.

    The picture is a Pillow image, or a dict with the ``bytes`` or the ``path`` of an encoded one.
    """

    def __init__(
        self,
        source: Any,
        column: int | str,
        rows: Sequence[int],
        labels: Sequence[int],
        names: Sequence[str],
        **kind: Any,
    ) -> None:
        super().__init__(labels, names, **kind)
        self.source = source
        self.column = column
        self.rows = list(rows)

    def load(self, index: int) -> Image.Image:
        return self._decode(index, None)

    def load_reduced(self, index: int, at_least: int) -> Image.Image:
        return self._decode(index, at_least)

    def encoded(self, index: int) -> bytes | None:
        picture = self.source[self.rows[index]][self.column]
        if isinstance(picture, dict) and picture.get("bytes") is not None:
            return picture["bytes"]
        if isinstance(picture, dict) and picture.get("path"):
            return read_file(picture["path"])
        return None

    def _decode(self, index: int, at_least: int | None) -> Image.Image:
        picture = self.source[self.rows[index]][self.column]
        if isinstance(picture, Image.Image):
            return to_rgb(picture)
        if isinstance(picture, dict) and picture.get("bytes") is not None:
            return decode(io.BytesIO(picture["bytes"]), self.names[index], at_least=at_least)
        if isinstance(picture, dict) and picture.get("path"):
            return open_image(picture["path"], at_least=at_least)
        raise ImageError(f"{self.names[index]} has no picture in column {self.column!r}", "no picture in its row")


def printable(name: str) -> str:
    """A file's or class's name that can be written anywhere: escapes for what acts on a terminal, ``?`` for bytes."""
    return shown(name)


@dataclass(frozen=True)
class Skipped:
    """A picture that was left out, and why; or a shard that is ``damaged``, of which nobody knows how much is lost."""

    name: str
    reason: str
    damaged: bool = False


@dataclass
class DataSet:
    """Pictures for training, for choosing (val) and for the final judgement (test).

    ``image_size`` is the default size in pixels of a square image, ``mean`` and ``std`` are for values in 0..1;
    ``left_out`` are classes without a picture that could be used, which are not among ``classes``.
    """

    name: str
    classes: list[str]
    train: ImageSet
    val: ImageSet
    test: ImageSet
    image_size: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    skipped: list[Skipped] = field(default_factory=list)
    in_chans: int = 3
    left_out: list[str] = field(default_factory=list)

    @property
    def flip(self) -> bool:
        """Whether a mirrored picture keeps its class."""
        return self.train.flip

    @property
    def crop_pct(self) -> float:
        """The share of the shorter side that evaluation keeps."""
        return self.train.crop_pct

    def summary(self) -> str:
        """One line: sizes of the sets, number of classes, number of pictures left out."""
        skipped = f", {len(self.skipped):,} skipped" if self.skipped else ""
        return (
            f"{self.name}: {len(self.train):,} training, {len(self.val):,} validation and {len(self.test):,} test "
            f"images of {len(self.classes):,} classes{skipped}"
        )


Probe = Callable[[ImageSet, int], object]
"""Looks at a picture of a set, and raises ImageError if it cannot be used."""


def decodes(images: ImageSet, index: int) -> None:
    """The cheapest probe: decode the picture, a JPEG at 1/8 of its size."""
    images.load_reduced(index, 1)


def unreadable(images: ImageSet, log: Callable[[str], None], probe: Probe = decodes) -> dict[int, Skipped]:
    """Look at every picture, in threads; the ones that cannot be used, by index.

    Says how far it is every five seconds. Names the failing ones, at most ten, in the log.
    """

    def check(index: int) -> Skipped | None:
        try:
            probe(images, index)
        except ImageError as error:
            return Skipped(images.names[index], error.reason)
        return None

    failed: dict[int, Skipped] = {}
    said = time.monotonic()
    # Decoding switches warnings off, which is not safe in threads: the outer block puts the filters back as they were.
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, usable_cores())) as pool:
        for begin in range(0, len(images), 256):
            block = range(begin, min(begin + 256, len(images)))
            failed |= {index: skipped for index, skipped in zip(block, pool.map(check, block), strict=True) if skipped}
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
