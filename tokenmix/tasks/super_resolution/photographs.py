"""Photographs with all that they hold: 8 or 16 bits, grey or colour, transparency and colour profile; and writing them.

Training and the other tasks see every picture as 8-bit RGB (`tokenmix.runtime.images`). An enlarged photograph must
not lose what its owner has put into it. Pillow reads and writes no colours of 16 bits and writes only whole pictures;
so torchvision and tifffile read those, and PNG files, which a large result is written to strip by strip, are made here.
"""

from __future__ import annotations

import os
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from tokenmix.runtime.images import MAX_PIXELS, ImageError, open_image, open_known
from tokenmix.terminal import shown

Pixels = NDArray[Any]
TIFFFILE = "TIFF files of 16 bits, and all that are written, need tifffile: pip install tifffile"
_FLIPS: dict[int, Callable[[Pixels], Pixels]] = {  # what makes a picture of an EXIF orientation upright
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels[::-1].swapaxes(0, 1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels[:, ::-1].swapaxes(0, 1),
}


@dataclass(frozen=True)
class Photograph:
    """A decoded photograph, upright.

    Attributes:
        pixels: ``(H, W, C)`` uint8 or uint16; C is 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha).
        icc: Its colour profile, or None.
    """

    pixels: Pixels
    icc: bytes | None = None


def read_photograph(path: str | os.PathLike[str]) -> Photograph:
    """Decode a file completely, in the precision that it has.

    Raises:
        ImageError: It is missing, broken, too large, no picture, or needs a library that is not installed.
    """
    name = os.fspath(path)
    try:
        with open_known(path) as image:
            icc = image.info.get("icc_profile")
            if _bits(image, path) == 16 and image.mode != "I;16":
                flip = _FLIPS.get(image.getexif().get(ExifTags.Base.Orientation, 1), lambda pixels: pixels)
                read = _read_png if image.format == "PNG" else _read_tiff
                return Photograph(flip(read(path)), icc)
            if image.mode in ("I", "F"):
                return Photograph(np.asarray(open_image(path)))
            image.load()
            kind = image.mode
            ImageOps.exif_transpose(image, in_place=True)  # copies nothing where there is nothing to turn
            upright = plain(image)
            same = upright.mode[0] == kind[0] or kind in ("P", "1")  # a profile of CMYK describes no RGB
            pixels = np.asarray(upright)
            pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise _unreadable(name, "not a picture of a known format (JPEG, PNG, WebP, TIFF, ...)") from None
    except Image.DecompressionBombError:
        raise _unreadable(name, f"over the limit of {MAX_PIXELS / 1e6:.0f} megapixels") from None
    except MemoryError:
        raise _unreadable(name, "not enough memory to decode it") from None
    except Exception as error:  # the readers raise nearly every type on broken files
        raise _unreadable(name, shown(str(error) or type(error).__name__)) from error
    return Photograph(pixels if pixels.ndim == 3 else pixels[..., None], icc if same else None)


def _unreadable(name: str, reason: str) -> ImageError:
    return ImageError(f"cannot read {shown(name)}: {reason}", reason)


def _bits(image: Image.Image, path: str | os.PathLike[str]) -> int:
    """Bits of each channel."""
    if image.format == "PNG":
        with open(path, "rb") as file:
            return file.read(25)[24]
    if image.format == "TIFF":
        bits = image.tag_v2.get(258, (8,))  # type: ignore[attr-defined]
        return max(bits) if isinstance(bits, tuple) else int(bits)
    return 8


def plain(image: Image.Image) -> Image.Image:
    """The picture in one of the modes L, LA, RGB, RGBA and I;16."""
    if image.mode.startswith("I;16") or (image.mode in ("L", "RGB") and not image.has_transparency_data):
        return image
    grey = image.mode in ("1", "L", "LA", "La")
    if image.mode in ("LA", "RGBA", "La", "RGBa", "PA") or image.has_transparency_data:
        return image.convert("LA" if grey else "RGBA")
    return image.convert("L" if grey else "RGB")


def _read_png(path: str | os.PathLike[str]) -> Pixels:
    from torchvision.io import ImageReadMode, decode_png

    content = torch.from_numpy(np.fromfile(path, np.uint8))
    return decode_png(content, ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy()


def _read_tiff(path: str | os.PathLike[str]) -> Pixels:
    try:
        import tifffile
    except ImportError:
        raise _unreadable(os.fspath(path), TIFFFILE) from None

    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        kind = getattr(page.photometric, "name", "")
        if page.dtype != np.uint16 or kind not in ("RGB", "MINISBLACK") or page.axes not in ("YX", "YXS", "SYX"):
            raise ImageError(f"{shown(os.fspath(path))}: a TIFF of {page.dtype} {kind} {page.axes} is not taken")
        pixels = page.asarray()
    if page.axes == "SYX":
        pixels = pixels.transpose(1, 2, 0)
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    return pixels[..., : (2 if kind == "MINISBLACK" else 4)]


class Writer(ABC):
    """Writes a picture from the top down.

    Args:
        path: The file.
        height: Pixels.
        width: Pixels.
        channels: 1 to 4, as a `Photograph` has them.
        dtype: uint8 or uint16.
        icc: A colour profile.
    """

    @abstractmethod
    def __init__(
        self, path: Path, height: int, width: int, channels: int, dtype: np.dtype[Any], icc: bytes | None
    ) -> None: ...

    @abstractmethod
    def write(self, rows: Pixels) -> None:
        """The next rows, ``(h, W, C)``."""

    @abstractmethod
    def close(self) -> None:
        """All rows are written: finish the file."""


class PngWriter(Writer):
    """PNG, compressed as it comes: no more than a strip is in memory."""

    COLOURS = (0, 4, 2, 6)  # the format's numbers of grey, grey with alpha, RGB, RGB with alpha

    def __init__(
        self, path: Path, height: int, width: int, channels: int, dtype: np.dtype[Any], icc: bytes | None
    ) -> None:
        if max(height, width) >= 2**31:
            raise ValueError(f"a PNG file holds no picture of {width} x {height} pixels")
        self.pixel = channels * dtype.itemsize  # bytes
        self.last = np.zeros(width * self.pixel, np.uint8)
        self.compressor = zlib.compressobj(6)
        self.file: IO[bytes] = path.open("wb")
        self.file.write(b"\x89PNG\r\n\x1a\n")
        colour = self.COLOURS[channels - 1]
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8 * dtype.itemsize, colour, 0, 0, 0))
        if icc:
            self._chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc))

    def write(self, rows: Pixels) -> None:
        """The next rows, ``(h, W, C)``; each is stored as its difference from a guess, the format's Paeth filter."""
        data = np.ascontiguousarray(rows.astype(rows.dtype.newbyteorder(">"), copy=False))
        data = data.view(np.uint8).reshape(len(rows), -1)
        above = np.concatenate((self.last[None], data[:-1]))
        self.last = data[-1].copy()
        for row, up in zip(data, above, strict=True):
            self._data(self.compressor.compress(b"\4" + (row - _paeth(row, up, self.pixel)).tobytes()))

    def close(self) -> None:
        """Finish the file."""
        self._data(self.compressor.flush())
        self._chunk(b"IEND", b"")
        self.file.close()

    def _data(self, data: bytes) -> None:
        if data:
            self._chunk(b"IDAT", data)

    def _chunk(self, kind: bytes, data: bytes) -> None:
        check = zlib.crc32(kind + data)
        self.file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check))


def _paeth(row: Pixels, above: Pixels, pixel: int) -> Pixels:
    """Of each byte's neighbours left, above and above left, the one nearest to left + above - above left."""
    nothing = np.zeros(pixel, np.uint8)
    left = np.concatenate((nothing, row[:-pixel]))
    corner = np.concatenate((nothing, above[:-pixel]))
    a, b, c = (part.astype(np.int16) for part in (left, above, corner))
    to_left, to_above, to_corner = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    first = (to_left <= to_above) & (to_left <= to_corner)
    return np.where(first, left, np.where(to_above <= to_corner, above, corner))


class TiffWriter(Writer):
    """TIFF, not compressed: the file is mapped into memory, where the system keeps no more of it than it likes."""

    def __init__(
        self, path: Path, height: int, width: int, channels: int, dtype: np.dtype[Any], icc: bytes | None
    ) -> None:
        try:
            import tifffile
        except ImportError:
            raise ValueError(TIFFFILE) from None

        shape = (height, width) if channels == 1 else (height, width, channels)
        self.rows = tifffile.memmap(
            path,
            shape=shape,
            dtype=dtype,
            photometric="rgb" if channels > 2 else "minisblack",
            planarconfig="contig" if channels > 1 else None,
            extrasamples=["unassalpha"] if channels in (2, 4) else None,
            iccprofile=icc,
            metadata=None,
        )
        self.done = 0

    def write(self, rows: Pixels) -> None:
        """The next rows, ``(h, W, C)``."""
        self.rows[self.done : self.done + len(rows)] = rows.reshape(len(rows), *self.rows.shape[1:])
        self.done += len(rows)

    def close(self) -> None:
        """Finish the file."""
        self.rows.flush()
        del self.rows


class PillowWriter(Writer):
    """JPEG or WebP of 8 bits, from a whole picture in memory; ``format`` in Pillow's word."""

    format: str
    largest: int
    options: dict[str, Any]

    def __init__(
        self, path: Path, height: int, width: int, channels: int, dtype: np.dtype[Any], icc: bytes | None
    ) -> None:
        if max(height, width) > self.largest:
            raise ValueError(
                f"a {self.format} file holds no picture of {width} x {height} pixels, {self.largest:,} on a side at "
                "most: write a PNG or TIFF file"
            )
        self.path, self.icc, self.done = path, icc, 0
        self.pixels = np.empty((height, width, channels), np.uint8)

    def write(self, rows: Pixels) -> None:
        """The next rows, ``(h, W, C)``."""
        self.pixels[self.done : self.done + len(rows)] = rows
        self.done += len(rows)

    def close(self) -> None:
        """Encode the picture."""
        pixels = self.pixels[..., 0] if self.pixels.shape[2] == 1 else self.pixels
        Image.fromarray(pixels).save(self.path, self.format, icc_profile=self.icc, **self.options)


class JpegWriter(PillowWriter):
    """JPEG with all colours at full size, quality 95."""

    format, largest = "JPEG", 65_500
    options = {"quality": 95, "subsampling": 0}  # noqa: RUF012


class WebpWriter(PillowWriter):
    """WebP without loss."""

    format, largest = "WebP", 16_383
    options = {"lossless": True, "exact": True}  # noqa: RUF012


WRITERS: dict[str, type[Writer]] = {
    ".png": PngWriter,
    ".tif": TiffWriter,
    ".tiff": TiffWriter,
    ".jpg": JpegWriter,
    ".jpeg": JpegWriter,
    ".webp": WebpWriter,
}
"""By a file's ending, in lower case."""


def holds(ending: str, channels: int, dtype: np.dtype[Any]) -> str | None:
    """Why files of this ending cannot hold such a picture; None if they can."""
    if ending not in WRITERS:
        return f"pictures are written as {', '.join(WRITERS)}, not as {shown(ending) or 'a file without an ending'}"
    writer = WRITERS[ending]
    if channels in (2, 4) and writer is JpegWriter:
        return "JPEG holds no transparency: write PNG, TIFF or WebP"
    if dtype.itemsize > 1 and issubclass(writer, PillowWriter):
        return f"{ending[1:]} holds 8 bits, and the picture has 16: write PNG or TIFF"
    return None
