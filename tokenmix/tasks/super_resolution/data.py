"""Pairs of small and large pictures: patches for training as a function of (seed, epoch, index), pictures for judging.

A patch is a few percent of its picture, and most formats cannot be decoded in part. So each picture is decoded once and
kept as plain pixels in a file, of which later only the patch's lines are read; BMP, PPM and TIFF files that are not
compressed are that already. Small pictures that are not given are made once from the whole large ones, so that nothing
of a patch depends on where it was cut.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile
from torch import Tensor

from tokenmix.data.dataset import DataSet, Samples, printable
from tokenmix.data.file_identity import file_identities
from tokenmix.data.memory import data_root
from tokenmix.data.random_numbers import uniforms
from tokenmix.files import atomic_path
from tokenmix.tasks.super_resolution.layouts import Pair, find_pairs
from tokenmix.tasks.super_resolution.resize import resize
from tokenmix_runtime.images import ImageError, open_image, open_known

Pixels = NDArray[np.uint8]


class PairSet(Samples):
    """Large pictures, and small ones of which each side is ``scale`` times shorter; 8-bit RGB.

    A large picture may be up to ``scale - 1`` pixels longer than ``scale`` times the small one: those are left out, at
    the bottom and on the right.

    Args:
        names: Of the pictures.
        scale: How many times larger the large ones are.
    """

    def __init__(self, names: Sequence[str], scale: int) -> None:
        super().__init__(names)
        self.scale = scale

    def high(self, index: int) -> Pixels:
        """A large picture as it is stored, ``(H, W, 3)``."""
        raise NotImplementedError

    def low(self, index: int) -> Pixels:
        """Its small picture, ``(h, w, 3)``."""
        return shrunk(self.high(index), self.scale)

    def picture(self, index: int) -> tuple[Pixels, Pixels]:
        """A whole small picture ``(h, w, 3)`` and its large one ``(s h, s w, 3)``.

        Raises:
            ImageError: One cannot be read, or their sizes do not fit.
        """
        low, high, scale = self.low(index), self.high(index), self.scale
        over = [large - scale * small for large, small in zip(high.shape[:2], low.shape[:2], strict=True)]
        if not all(0 <= one < scale for one in over):
            sizes = " and ".join(f"{picture.shape[1]} x {picture.shape[0]}" for picture in (high, low))
            reason = f"the large and the small picture, of {sizes} pixels, do not differ by the factor {scale}"
            raise ImageError(f"{self.names[index]}: {reason}", reason)
        return low, high[: scale * low.shape[0], : scale * low.shape[1]]

    def patch(
        self, index: int, size: int, *, seed: int, epoch: int, draw: int = 0, flip: bool = True, rotate: bool = True
    ) -> tuple[Pixels, Pixels]:
        """A random patch ``(size, size, 3)`` of a small picture and that of the large one, ``(s size, s size, 3)``.

        It is a function of the arguments alone. A smaller picture is continued by its mirror image.

        Args:
            index: Of the picture.
            size: Side of the small patch in pixels.
            seed: Of the run.
            epoch: In the run.
            draw: Which one of several patches in the same epoch.
            flip: Whether half of the patches are mirrored, from left to right and, separately, upside down.
            rotate: Whether half of them have rows and columns exchanged: with the flips all eight positions.
        """
        low, high = self.picture(index)
        chance = uniforms(5, seed, epoch, index, draw)[0]
        begin = [int(chance[axis] * (max(low.shape[axis] - size, 0) + 1)) for axis in (0, 1)]
        turned = [bool(one < 0.5) for one in chance[2:]]
        parts = []
        for picture, factor in ((low, 1), (high, self.scale)):
            top, left = (factor * one for one in begin)
            part = picture[top : top + factor * size, left : left + factor * size]
            missing = [(0, factor * size - side) for side in part.shape[:2]]
            if any(after for _, after in missing):
                part = np.pad(part, [*missing, (0, 0)], mode="symmetric")
            if flip and turned[0]:
                part = part[:, ::-1]
            if flip and turned[1]:
                part = part[::-1]
            if rotate and turned[2]:
                part = part.swapaxes(0, 1)
            parts.append(np.ascontiguousarray(part))
        return parts[0], parts[1]


class ArrayPairs(PairSet):
    """Large pictures in memory, ``(H, W, 3)`` uint8 each; the small ones are made."""

    def __init__(self, pictures: Sequence[Pixels], names: Sequence[str], scale: int) -> None:
        super().__init__(names, scale)
        self.pictures = list(pictures)
        self.small: dict[int, Pixels] = {}

    def high(self, index: int) -> Pixels:
        return self.pictures[index]

    def low(self, index: int) -> Pixels:
        if index not in self.small:
            self.small[index] = super().low(index)
        return self.small[index]


class FilePairs(PairSet):
    """Pictures in files.

    Args:
        pairs: From `tokenmix.tasks.super_resolution.layouts.find_pairs`.
        scale: How many times larger the large ones are.
        cache: Where plain pixels are kept; the default is ``pixels`` in `tokenmix.data.memory.data_root`. A folder in
            which nothing can be kept costs time, and nothing else.
    """

    def __init__(self, pairs: Sequence[Pair], scale: int, *, cache: Path | None = None) -> None:
        super().__init__([printable(pair.name) for pair in pairs], scale)
        self.pairs = list(pairs)
        self.cache = data_root() / "pixels" if cache is None else cache

    def high(self, index: int) -> Pixels:
        return self._pixels(self.pairs[index].high)

    def low(self, index: int) -> Pixels:
        pair = self.pairs[index]
        if pair.low is not None:
            return self._pixels(pair.low)
        return self._kept(pair.high, f"bicubic x{self.scale}", lambda: shrunk(self.high(index), self.scale))

    def _pixels(self, path: Path) -> Pixels:
        mapped = map_plain(path)
        return self._kept(path, "", lambda: np.asarray(open_image(path))) if mapped is None else mapped

    def _kept(self, path: Path, what: str, make: Callable[[], Pixels]) -> Pixels:
        """What is made of a file, from the cache, where it is kept for the next time."""
        try:
            stat = path.stat()
        except OSError as error:
            reason = error.strerror or str(error)
            raise ImageError(f"cannot read {path}: {reason}", reason) from error
        key = f"{os.path.abspath(path)}\0{stat.st_size}\0{stat.st_mtime_ns}\0{what}"
        place = self.cache / f"{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.npy"
        # Damaged or of another kind: made anew.
        with contextlib.suppress(OSError, ValueError):
            kept = np.load(place, mmap_mode="r", allow_pickle=False)
            if kept.dtype == np.uint8 and kept.ndim == 3 and kept.shape[2] == 3:
                return kept
        pixels = make()
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(self.cache).free < 2 * pixels.nbytes:
                raise OSError("the disk is nearly full")
            with atomic_path(place) as temporary, temporary.open("wb") as file:
                np.save(file, pixels, allow_pickle=False)
        except OSError as error:
            warnings.warn(
                f"{self.cache}: decoded pictures cannot be kept there ({error}), so every patch decodes its whole "
                "picture; set TOKENMIX_DATA to a folder with room",
                stacklevel=2,
            )
        return pixels


class Photographs(Samples):
    """Large pictures, of which there are pairs at any scale; a subclass says how by `at`."""

    def at(self, scale: int) -> PairSet:
        """The pairs whose large pictures have sides ``scale`` times as long as the small ones'."""
        raise NotImplementedError


class ArrayPhotographs(Photographs):
    """Pictures in memory, ``(H, W, 3)`` uint8 each."""

    def __init__(self, pictures: Sequence[Pixels], names: Sequence[str]) -> None:
        super().__init__(names)
        self.pictures = list(pictures)

    def at(self, scale: int) -> ArrayPairs:
        return ArrayPairs(self.pictures, self.names, scale)


class FilePhotographs(Photographs):
    """Pictures of a folder; which small ones go with them depends on the scale.

    Args:
        folder: The data set's.
        splits: Of `tokenmix.tasks.super_resolution.layouts.find_pairs`, in which the pictures are.
        pairs: Of the splits' pictures those that are meant, at any scale.
        cache: See `FilePairs`.
    """

    def __init__(
        self, folder: Path, splits: Sequence[str], pairs: Sequence[Pair], *, cache: Path | None = None
    ) -> None:
        super().__init__([printable(pair.name) for pair in pairs])
        self.folder, self.splits, self.pairs, self.cache = folder, list(splits), list(pairs), cache

    def contents(self) -> NDArray[np.uint64]:
        return file_identities([pair.high for pair in self.pairs])

    def subset(self, rows: Sequence[int]) -> FilePhotographs:
        """Some of the pictures."""
        return FilePhotographs(self.folder, self.splits, [self.pairs[row] for row in rows], cache=self.cache)

    def at(self, scale: int) -> FilePairs:
        there = find_pairs(self.folder, scale)
        found = {pair.name: pair for split in self.splits for pair in there.get(split, [])}
        if gone := [pair.name for pair in self.pairs if pair.name not in found]:
            raise ValueError(f"{self.folder}: {gone[0]} is not there any more")
        return FilePairs([found[pair.name] for pair in self.pairs], scale, cache=self.cache)


@dataclass
class PhotographData(DataSet):
    """Photographs to learn from, to choose by and to be judged by; they fit any scale."""

    train: Photographs
    val: Photographs
    test: Photographs
    image_size: int = 48  # pixels of the side of a small patch


def shrunk(high: Pixels, scale: int) -> Pixels:
    """The small picture of a large one: without the pixels that are too many, bicubic, rounded to 8 bits."""
    height, width = (side - side % scale for side in high.shape[:2])
    if not height or not width:
        reason = f"{high.shape[1]} x {high.shape[0]} pixels are too few for the factor {scale}"
        raise ImageError(f"a picture of {reason}", reason)
    return resize(np.asarray(high[:height, :width]), 1 / scale)


def map_plain(path: Path) -> Pixels | None:
    """A file's pixels ``(H, W, 3)`` without reading them, if it stores them one after the other; else None.

    Such are BMP and PPM files, and TIFF files without compression, of 8-bit RGB in one piece.
    """
    try:
        with open_known(path) as image:
            if image.format not in ("BMP", "PPM", "TIFF") or image.mode != "RGB":
                return None
            assert isinstance(image, ImageFile.ImageFile)
            if len(image.tile) != 1 or image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
                return None
            codec, box, offset, arguments = image.tile[0]
            order, stride, direction = (arguments if isinstance(arguments, tuple) else (arguments, 0, 1))[:3]
            if codec != "raw" or order not in ("RGB", "BGR") or tuple(box or ()) != (0, 0, *image.size):
                return None
            width, height = image.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return None  # the decoder says what is wrong
    stride = stride or 3 * width
    if path.stat().st_size < offset + stride * (height - 1) + 3 * width:
        return None
    lines = np.memmap(path, np.uint8, "r", offset)
    pixels: Any = np.lib.stride_tricks.as_strided(lines, (height, width, 3), (stride, 3, 1), writeable=False)
    if direction < 0:
        pixels = pixels[::-1]
    return pixels[..., ::-1] if order == "BGR" else pixels


def to_tensor(pixels: Pixels) -> Tensor:
    """``(H, W, 3)`` uint8 -> ``(3, H, W)`` float32 in 0..1."""
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).contiguous().float().div_(255)
