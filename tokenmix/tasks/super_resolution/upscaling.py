"""Making a photograph larger: one call for a picture in memory, one for a file."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from tokenmix.backbones.reparameterize import reparameterize
from tokenmix.files import atomic_path, short_name
from tokenmix.tasks.super_resolution.photographs import WRITERS, holds, picture_pixels, read_photograph
from tokenmix.tasks.super_resolution.resize import resized_strips
from tokenmix.tasks.super_resolution.tiles import MEMORY_MB, Progress, choose_tiling, strips

Pixels = NDArray[Any]
MOST_SCALE = 64


def upscale(
    picture: Image.Image | Pixels | str | os.PathLike[str],
    model: nn.Module,
    *,
    scale: float | None = None,
    tile: int | None = None,
    memory_mb: float = MEMORY_MB,
    progress: Progress | None = None,
) -> Pixels:
    """A picture made larger, in tiles whose borders cannot be seen.

    Args:
        picture: A file; a Pillow picture; or an array ``(H, W)`` or ``(H, W, C)`` of uint8, uint16 or floats in 0..1,
            with grey, grey and alpha, RGB, or RGB and alpha.
        model: An `Upscaler`, or another module with a ``scale``.
        scale: How many times larger, 1 or more; the default is the model's own scale. To reach another one the model
            is applied as often as needed, and the result made smaller by bicubic interpolation.
        tile: Side of a tile in pixels of the picture; the default suits the memory.
        memory_mb: Megabytes that the network's maps may take.
        progress: Called after each tile with the number of those that are done, and of all.

    Returns:
        The array, of the picture's type and with its channels; floats are not clamped.

    Raises:
        ImageError: The file cannot be read.
        ValueError: An argument out of range.

    Examples:
        >>> upscale(np.zeros((20, 30, 3), np.uint8), Bicubic(2)).shape
        (40, 60, 3)
    """
    if isinstance(picture, str | os.PathLike):
        pixels = read_photograph(picture).pixels
    elif isinstance(picture, Image.Image):
        pixels = picture_pixels(picture)
    else:
        pixels = picture
    flat = pixels.ndim == 2
    pixels = pixels[..., None] if flat else pixels
    _check(pixels)
    with tempfile.TemporaryDirectory(prefix="upscale-") as folder:
        parts = enlarged_strips(pixels, model, Path(folder), scale, tile, memory_mb, progress)
        result = np.concatenate(list(parts))
    return result[..., 0] if flat else result


def upscale_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    model: nn.Module,
    *,
    scale: float | None = None,
    tile: int | None = None,
    memory_mb: float = MEMORY_MB,
    progress: Progress | None = None,
) -> tuple[int, int]:
    """A file's picture made larger and written to another file, with its bits, transparency and colour profile.

    A PNG or TIFF file is written strip by strip: the result is never in memory as a whole.

    Args:
        source: A photograph.
        target: The file to write; its ending, one of `WRITERS`, says the format.
        model: See `upscale`.
        scale: The same.
        tile: The same.
        memory_mb: The same.
        progress: The same.

    Returns:
        Height and width of the result in pixels.

    Raises:
        ImageError: The file cannot be read.
        ValueError: The format cannot hold the picture, or an argument is out of range.
    """
    ending = Path(target).suffix.lower()
    photograph = read_photograph(source)
    pixels = photograph.pixels
    problem = holds(ending, pixels.shape[2], pixels.dtype)
    if problem:
        raise ValueError(f"{os.fspath(target)}: {problem}")
    height, width = enlarged_size(pixels.shape[0], pixels.shape[1], model, scale)
    with tempfile.TemporaryDirectory(prefix="upscale-") as folder, atomic_path(target) as path:
        parts = enlarged_strips(pixels, model, Path(folder), scale, tile, memory_mb, progress)
        writer = WRITERS[ending](path, height, width, pixels.shape[2], pixels.dtype, photograph.icc)
        with contextlib.closing(writer):
            for strip in parts:
                writer.write(strip)
            writer.finish()
    return height, width


def output_path(source: str | os.PathLike[str], folder: Path, scale: float, taken: Collection[Path] = ()) -> Path:
    """Where an enlarged picture goes: under its own name, the scale and its own ending, or PNG's.

    Args:
        source: The picture.
        folder: Where enlarged pictures go.
        scale: How many times larger it becomes.
        taken: Paths that other pictures have; a number tells them apart.
    """
    ending = Path(source).suffix.lower()
    ending = ending if ending in WRITERS else ".png"
    number = 1
    while True:
        more = "" if number == 1 else f"-{number}"
        target = folder / short_name(Path(source).stem, f"-x{scale:g}{more}{ending}")
        if target not in taken:
            return target
        number += 1


def enlarged_size(height: int, width: int, model: nn.Module, scale: float | None) -> tuple[int, int]:
    """Height and width of a picture after it was enlarged, in pixels."""
    factor = float(model.scale if scale is None else scale)  # type: ignore[arg-type]
    return max(1, round(height * factor)), max(1, round(width * factor))


def enlarged_strips(
    pixels: Pixels,
    model: nn.Module,
    folder: Path,
    scale: float | None,
    tile: int | None,
    memory_mb: float,
    progress: Progress | None,
) -> Iterator[Pixels]:
    """The enlarged picture from the top down; ``folder`` is for pictures between. See `upscale`."""
    own: int = model.scale  # type: ignore[assignment]
    wanted = own if scale is None else scale
    if not (math.isfinite(wanted) and 1 <= wanted <= MOST_SCALE):
        raise ValueError(f"scale must be from 1 to {MOST_SCALE}, not {scale!r}")
    if own < 2 and wanted > own:
        raise ValueError(f"the model enlarges {own} times, which never makes {wanted}")
    passes = max(1, math.ceil(math.log(wanted, own) - 1e-9)) if own > 1 else 1
    fast = reparameterize(model.eval())
    current = pixels
    for number in range(1, passes + 1):
        tiling = choose_tiling(fast, *current.shape[:2], tile=tile, memory_mb=memory_mb)
        parts = strips(current, fast, tiling, _part(progress, number, passes, own))
        if number == passes and own**passes == wanted:
            yield from parts
            return
        current = _kept(parts, current, own, folder / f"{number}.pixels")
    yield from resized_strips(current, size=enlarged_size(pixels.shape[0], pixels.shape[1], model, wanted))


def _kept(parts: Iterator[Pixels], source: Pixels, scale: int, path: Path) -> Pixels:
    """The strips as one array, in a file that the system keeps in memory as far as there is room."""
    height, width, channels = source.shape
    whole = np.memmap(path, source.dtype, "w+", shape=(height * scale, width * scale, channels))
    done = 0
    for strip in parts:
        whole[done : done + len(strip)] = strip
        done += len(strip)
    return whole


def _part(progress: Progress | None, number: int, passes: int, scale: int) -> Progress | None:
    """Progress of one of several passes, whose tiles' number grows with the square of the scale."""
    if progress is None or passes == 1:
        return progress
    whole = sum(scale ** (2 * one) for one in range(passes))
    before, share = sum(scale ** (2 * one) for one in range(number - 1)), scale ** (2 * (number - 1))
    return lambda done, count: progress(round(1000 * (before + share * done / count) / whole), 1000)


def _check(pixels: Pixels) -> None:
    if pixels.ndim != 3 or not 1 <= pixels.shape[2] <= 4 or 0 in pixels.shape:
        raise ValueError(f"a picture has the shape (H, W) or (H, W, 1 to 4 channels), not {pixels.shape}")
    if pixels.dtype not in (np.uint8, np.uint16) and pixels.dtype.kind != "f":
        raise ValueError(f"a picture is of uint8, uint16 or floats in 0..1, not of {pixels.dtype}")
