"""Photographs with all that they hold: 8 or 16 bits, grey or colour, transparency and colour profile; and writing them.

Training and the other tasks see every picture as 8-bit RGB (`tokenmix_runtime.images`). An enlarged photograph must
not lose what its owner has put into it. Pillow reads and writes no colours of 16 bits, and writes only whole pictures:
imagecodecs and tifffile read those, and PNG files, to which a large result is written strip by strip, are made here,
because no library does so for 16 bits.
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
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from tokenmix_runtime.images import MAX_PIXELS, ImageError, open_image, open_known, unread
from tokenmix_runtime.terminal import shown
from tokenmix_runtime.untrusted import regular_file

Pixels = NDArray[Any]
NEEDED = "colours of 16 bits, and TIFF files that are written, need two more packages: pip install 'tokenmix[photos]'"
_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TOO_LARGE = f"over the limit of {MAX_PIXELS / 1e6:.0f} megapixels"
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
        ImageError: It is missing, broken, too large, no picture, or needs a package that is not installed.
    """
    try:
        with regular_file(path).open("rb") as file:
            start = file.read(26)
        if start.startswith(_PNG) and start[24:25] == b"\x10" and start[25:26] != b"\0":
            return _read_png(path)
        if start[:4] in _TIFF:
            return _read_tiff(path)
        return _read_any(path)
    except ImageError:
        raise
    except UnidentifiedImageError:
        reason = unread(os.fspath(path))
    except Image.DecompressionBombError:
        reason = _TOO_LARGE
    except MemoryError:
        reason = "not enough memory to decode it"
    except Exception as error:  # the readers raise nearly every type on broken files
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    name = shown(os.fspath(path))
    raise ImageError(f"cannot read {name}: {shown(reason)}", shown(reason))


def _read_any(path: str | os.PathLike[str]) -> Photograph:
    """What Pillow reads without loss."""
    with open_known(path) as image:
        icc, kind = image.info.get("icc_profile"), image.mode
        if kind in ("I", "F"):
            return Photograph(np.asarray(open_image(path)))
        image.load()
        ImageOps.exif_transpose(image, in_place=True)  # copies nothing where there is nothing to turn
        upright = plain(image)
        pixels = np.asarray(upright)
        pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
        if upright.mode[0] != kind[0] and kind not in ("P", "1"):
            icc = None  # a profile of CMYK describes no RGB
    return Photograph(pixels if pixels.ndim == 3 else pixels[..., None], icc)


def _read_png(path: str | os.PathLike[str]) -> Photograph:
    """PNG with colours or transparency of 16 bits."""
    with open_known(path) as image:  # Pillow reads what is around the pixels, and refuses too many
        icc, orientation = image.info.get("icc_profile"), image.getexif().get(ExifTags.Base.Orientation, 1)
    try:
        import imagecodecs
    except ImportError:
        raise ValueError(NEEDED) from None

    return Photograph(_upright(imagecodecs.png_decode(Path(path).read_bytes()), orientation), icc)


def _read_tiff(path: str | os.PathLike[str]) -> Photograph:
    """TIFF: grey or RGB of 16 bits, and whatever else Pillow reads."""
    try:
        import tifffile
    except ImportError:
        with open_known(path) as image:
            bits = image.tag_v2.get(258, 8)  # type: ignore[attr-defined]
            if image.mode != "I;16" and 16 in (bits if isinstance(bits, tuple) else (bits,)):
                raise ValueError(NEEDED) from None
        return _read_any(path)

    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        if page.dtype != np.uint16:
            return _read_any(path)
        kind = getattr(page.photometric, "name", "")
        if kind not in ("RGB", "MINISBLACK") or page.axes not in ("YX", "YXS", "SYX"):
            raise ValueError(f"a TIFF of {page.dtype} {kind} {page.axes} is not taken: grey or RGB is")
        if page.imagewidth * page.imagelength > MAX_PIXELS:
            raise ValueError(_TOO_LARGE)
        pixels = page.asarray()
        tags = {code: page.tags[code].value for code in (274, 34675) if code in page.tags}
    if page.axes == "SYX":
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3:
        pixels = pixels[..., : (2 if kind == "MINISBLACK" else 4)]
    return Photograph(_upright(pixels, tags.get(274, 1)), tags.get(34675))


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Pixels with an axis of channels, turned as EXIF's number says."""
    flip = _FLIPS.get(orientation, lambda pixels: pixels)
    return flip(pixels if pixels.ndim == 3 else pixels[..., None])


def plain(image: Image.Image) -> Image.Image:
    """The picture in one of the modes L, LA, RGB, RGBA and I;16."""
    if image.mode.startswith("I;16") or (image.mode in ("L", "RGB") and not image.has_transparency_data):
        return image
    grey = image.mode in ("1", "L", "LA", "La")
    if image.mode in ("LA", "RGBA", "La", "RGBa", "PA") or image.has_transparency_data:
        return image.convert("LA" if grey else "RGBA")
    return image.convert("L" if grey else "RGB")


def picture_pixels(image: Image.Image) -> NDArray[Any]:
    """``(H, W)`` or ``(H, W, C)``: 8 or 16 bits, or float32 as they are of a picture of fractions.

    Raises:
        ValueError: Whole numbers of 32 bits do not fit into 16.
    """
    if image.mode == "F":
        return np.asarray(image)
    if image.mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"a picture of mode I has values from 0 to 65,535, not {values.min()} to {values.max()}")
        return values.astype(np.uint16)
    pixels = np.asarray(plain(image))
    return pixels.astype(pixels.dtype.newbyteorder("="))


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
    def finish(self) -> None:
        """All rows are written: complete the file."""

    def close(self) -> None:  # noqa: B027 not every writer holds something
        """Let the file go, complete or not."""


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
        self.file.write(_PNG)
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

    def finish(self) -> None:
        """Complete the file."""
        self._data(self.compressor.flush())
        self._chunk(b"IEND", b"")
        self.file.flush()

    def close(self) -> None:
        """Let the file go, complete or not."""
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
            raise ValueError(NEEDED) from None

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

    def finish(self) -> None:
        """Complete the file."""
        self.rows.flush()

    def close(self) -> None:
        """Let the file go, complete or not."""
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

    def finish(self) -> None:
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
