"""Reading pictures: a file in one of the formats of photographs becomes a correct 8-bit RGB image, or one clear error.

What is decided here, once for training, evaluation and prediction:

* The camera's rotation (EXIF) is applied. Animations give their first frame.
* Transparent pictures are laid over white. A TIFF with more channels than it shows, as those of satellites have, is
  refused: they would be lost, or taken for transparency.
* 16-bit grey is scaled by 1/257, so that 65535 becomes 255; of 16-bit colours the upper 8 bits are taken. 32-bit
  integers and floats have no declared white: floats within 0..1 are scaled by 255, values within 0..255 are kept,
  within 0..65535 scaled by 1/257, anything else is stretched from its minimum and maximum.
* A picture of more than ``MAX_PIXELS`` is not decoded, except a JPEG, which is decoded at 1/2, 1/4 or 1/8 of its size.
* Files of more than ``MAX_BYTES`` are not read.
* Only the formats in ``FORMATS`` are opened, whatever the file's name says: Pillow's others run programs
  (EPS), read what is no picture, or are hardly used, and so hardly tested. What is no file is not read at all.
* Pillow's warnings about single files are not shown: the picture decodes completely, or it is an `ImageError`.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import warnings
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, JpegImagePlugin, TiffImagePlugin, UnidentifiedImageError

from tokenmix_runtime.terminal import shown
from tokenmix_runtime.untrusted import regular_file

MAX_PIXELS = 178_956_970  # Pillow's own limit for "this must be an attack": half a gigabyte as RGB
MAX_BYTES = 2**31  # of a file: such a picture with 16 bits per channel, not compressed, and its notes
# Pillow's words; JPEG reads MPO too. TGA has no mark at its begin, so it is tried last.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF", "ICO", "TGA")
EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".avif", ".ico"),
)
_HEIC = "photograph in HEIC, which is not read: convert it to JPEG (pip install pillow-heif; or the phone's settings)"
UNREAD = {  # endings of pictures that are not opened
    **dict.fromkeys((".heic", ".heif", ".hif"), _HEIC),
    **dict.fromkeys((".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2"), "raw photograph: develop it"),
    **dict.fromkeys((".svg", ".eps", ".pdf", ".ai"), "drawing, no picture of pixels: render it to PNG"),
    **dict.fromkeys((".psd", ".xcf"), "file of a paint program: save it as PNG"),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv", ".webm"), "film: cut it into pictures"),
}
SCALE, DECLARED, OWN_RANGE = "scale", "16 bits", "its own range"  # see `to_rgb`
_PLACES_ON_EARTH = (33550, 33922, 34264, 34735)  # GeoTIFF's tags: there a fourth channel is no transparency


class ImageError(ValueError):
    """A picture that cannot be used; ``reason`` says why, without the name of the file.

    Examples:
        >>> from tokenmix_runtime.images import decode
        >>> try:
        ...     decode(b"", "empty.jpg")
        ... except ImageError as error:
        ...     print(error.reason)
        the file is empty
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


def open_image(path: str | os.PathLike[str], *, at_least: int | None = None) -> Image.Image:
    """Decode the file at ``path`` completely, as RGB.

    Args:
        path: A file in one of `FORMATS`.
        at_least: Allow a JPEG to be decoded at 1/2, 1/4 or 1/8 of its size (much faster), as long as neither side
            falls below this many pixels. The default decodes at full size.

    Raises:
        ImageError: The file is missing, no file, empty, broken, truncated, too large or no picture.

    Examples:
        >>> from tokenmix_runtime.images import open_image
        >>> open_image("cat.jpg", at_least=448).mode  # doctest: +SKIP
        'RGB'
    """
    with _binary(path) as file:
        return decode(file, os.fspath(path), at_least=at_least)


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The bytes of the file at ``path``.

    Raises:
        ImageError: It cannot be read.
    """
    with _binary(path) as file:
        return file.read()


@contextlib.contextmanager
def _binary(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """The opened file; an `ImageError` for what the system does not let us read, and for what is no file."""
    name = os.fspath(path)
    try:
        with open(regular_file(path), "rb") as file:
            if (size := os.fstat(file.fileno()).st_size) > MAX_BYTES:
                raise ValueError(f"{name} is of {size / 1e9:.1f} GB, more than any picture that would be decoded")
            yield file
    except ImageError:
        raise
    except (OSError, ValueError) as error:  # ValueError: no file, or a null byte in its name
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error).removeprefix(f"{name} is ")
        raise ImageError(f"cannot read {shown(name)}: {shown(reason)}", shown(reason)) from error


def decode(file: BinaryIO | bytes, name: str, *, at_least: int | None = None) -> Image.Image:
    """Decode an opened file or a file's bytes as RGB; ``name`` is for the message. See `open_image`.

    Raises:
        ImageError: The content is empty, broken, truncated, too large or no picture.
    """
    if isinstance(file, bytes):
        file = io.BytesIO(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if not file.read(1):
                raise ImageError("the file is empty")
            file.seek(0)
            with _open_any_size(file) as image:
                _limit(image, at_least)
                _refuse_lost_channels(image)
                image.load()
                return to_rgb(image)
        except Image.DecompressionBombError:
            reason = f"over the limit of {MAX_PIXELS / 1e6:.0f} megapixels"
        except UnidentifiedImageError:
            reason = unread(name)
        except MemoryError:
            reason = "not enough memory to decode it"
        except Exception as error:  # Pillow's format plugins raise nearly every type on broken files
            reason = shown(str(error) or type(error).__name__)
    raise ImageError(f"cannot read {shown(name)}: {reason}", reason)


def unread(name: str) -> str:
    """Why a file of that name, in which no known format was found, is not read."""
    ending = os.path.splitext(name)[1].lower()
    return UNREAD.get(ending, "not a picture of a known format (JPEG, PNG, WebP, TIFF, ...)")


@functools.cache
def formats() -> list[str]:
    """Those of `FORMATS` that this Pillow can read."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def open_known(file: str | os.PathLike[str] | BinaryIO) -> Image.Image:
    """Pillow's ``Image.open``, which reads the header alone, of a file in one of `FORMATS`.

    Raises:
        ValueError: It is no file.
        OSError: It cannot be read, or is no picture.
        Image.DecompressionBombError: It has more than ``MAX_PIXELS``.
    """
    if isinstance(file, str | os.PathLike):
        file = regular_file(file)
    return Image.open(file, formats=formats())


class Stored(NamedTuple):
    """How a picture is stored: format and mode in Pillow's words, and whether there are more pictures in its file."""

    format: str
    mode: str
    more: bool


def stored_as(content: bytes) -> Stored:
    """Such as ``("JPEG", "L", False)``, of a picture that `decode` can decode."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _open_any_size(io.BytesIO(content)) as image:
            return Stored(image.format or "", image.mode, bool(getattr(image, "is_animated", False)))


def _open_any_size(file: BinaryIO) -> Image.Image:
    """The opened picture; a JPEG's size is not limited yet."""
    try:
        return open_known(file)
    except Image.DecompressionBombError:
        file.seek(0)
        if file.read(3) != b"\xff\xd8\xff":
            raise
        file.seek(0)
        return JpegImagePlugin.JpegImageFile(file)  # opens without the check; _limit reduces it


def _limit(image: Image.Image, at_least: int | None) -> None:
    """Make a JPEG decode at a reduced size where that is wanted or needed; raise if the picture stays too large."""
    width, height = image.size
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        divisor = next((d for d in (1, 2, 4, 8) if width * height <= MAX_PIXELS * d * d), 8)
        if at_least is not None:
            while divisor < 8 and min(width, height) // (2 * divisor) >= at_least:
                divisor *= 2
        if divisor > 1:
            image.draft(None, (width // divisor, height // divisor))  # None keeps the mode
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"{width} x {height} pixels are over the limit of {MAX_PIXELS / 1e6:.0f} megapixels")


def _refuse_lost_channels(image: Image.Image) -> None:
    """Raise if a TIFF has more channels than its colours have, which are not transparency for certain."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return
    tags = image.tag_v2
    channels, colours = tags.get(277, 1), {2: 3, 5: 4, 6: 3, 8: 3}.get(tags.get(262, 1), 1)
    kinds = tags.get(338, ())  # of the other channels: 1 and 2 are transparency, 0 is anything
    transparency = channels == colours + 1 and len(kinds) == 1 and kinds[0] in (1, 2)
    if channels > colours and (not transparency or any(tag in tags for tag in _PLACES_ON_EARTH)):
        raise ImageError(
            f"a TIFF of {channels} channels, of which {colours} would be read: save those that are to be seen as a "
            "picture of one or three"
        )


def to_rgb(image: Image.Image) -> Image.Image:
    """The same picture upright, 8-bit RGB, over white where it is transparent (the module's text has the rules).

    Of one that had more than 8 bits ``info["scale"]`` says what was white: ``"16 bits"``, ``"1"``, ``"255"``,
    ``"65535"``, or ``"its own range"``.
    """
    with contextlib.suppress(Exception):  # EXIF that cannot be read or rewritten says nothing about the pixels
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        return _grey(_from_16_bit(np.asarray(image)), DECLARED)
    if image.mode in ("I", "F"):
        values = np.asarray(image)
        if image.mode == "I" and image.format in ("PNG", "PPM"):
            return _grey(_from_16_bit(values), DECLARED)
        return _grey(*_from_32_bit(values))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _grey(levels: np.ndarray, scale: str) -> Image.Image:
    """(H, W) uint8 as RGB, with a note of what was white."""
    image = Image.fromarray(levels).convert("RGB")
    image.info[SCALE] = scale
    return image


def _from_16_bit(values: np.ndarray) -> np.ndarray:
    return ((values.astype(np.int64).clip(0, 65535) + 128) // 257).astype(np.uint8)


def _from_32_bit(values: np.ndarray) -> tuple[np.ndarray, str]:
    levels = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(levels.min()), float(levels.max())
    if low >= 0 and high <= 1 and values.dtype.kind == "f":
        levels, scale = levels * 255, "1"
    elif low >= 0 and high <= 255:
        scale = "255"
    elif low >= 0 and high <= 65535:
        levels, scale = levels / 257, "65535"
    else:
        levels, scale = (levels - low) * (255 / max(high - low, np.finfo(np.float64).tiny)), OWN_RANGE
    return np.rint(levels).astype(np.uint8), scale
