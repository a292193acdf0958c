"""Pictures with a class each, from arrays, files or tables of other libraries, and the data set that they make."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tokenmix.data.dataset import Pictures, printable
from tokenmix.data.file_identity import file_identities
from tokenmix.tasks.picture_data import ClassedPictures
from tokenmix_runtime.images import ImageError, decode, open_image, read_file, to_rgb


class ImageSet(Pictures):
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
        super().__init__(names)
        if len(labels) != len(names):
            raise ValueError(f"{len(labels)} labels for {len(names)} names")
        self.labels = list(labels)
        self.flip = flip
        self.glyphs = glyphs
        self.crop_pct = crop_pct

    def answers(self) -> list[str]:
        """The number of each picture's class."""
        return [str(label) for label in self.labels]


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

    def subset(self, rows: Sequence[int]) -> FileImages:
        """The set of some of the pictures."""
        labels, files = [self.labels[row] for row in rows], [self.files[row] for row in rows]
        kind: dict[str, Any] = {"flip": self.flip, "glyphs": self.glyphs, "crop_pct": self.crop_pct}
        return FileImages(self.root, labels, files, **kind)

    def contents(self) -> NDArray[np.uint64]:
        return file_identities([self.root / file for file in self.files])

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


@dataclass
class ClassData(ClassedPictures):
    """Pictures with a class each; ``left_out`` are classes without a usable picture, not among ``classes``."""

    train: ImageSet
    val: ImageSet
    test: ImageSet
    left_out: list[str] = field(default_factory=list, kw_only=True)

    @property
    def flip(self) -> bool:
        """Whether a mirrored picture keeps its class."""
        return self.train.flip

    @property
    def crop_pct(self) -> float:
        """The share of the shorter side that evaluation keeps."""
        return self.train.crop_pct
