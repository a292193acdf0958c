"""Enlarging a picture of any size in tiles, whose borders cannot be seen, within a bounded memory.

A network that looks a known number of pixels far gets so many around each tile, and what it makes of the tile is what
it makes of it within the whole picture. After each layer the part of these surroundings that no later layer will look
at is cut off; without that they would double the work. One that sees the whole picture (Fourier transforms, attention)
cannot be cut exactly; its tiles overlap, and are blended into one another there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tokenmix.tasks.super_resolution.model import Upscaler
from tokenmix.tasks.super_resolution.receptive import receptive_radii
from tokenmix.tasks.super_resolution.resize import resize

Pixels = NDArray[Any]
Progress = Callable[[int, int], None]
"""Called with the number of tiles that are done, and of all."""

MEMORY_MB = 1024
LEAST_TILE, MOST_TILE = 64, 512
_WHOLE = 256**2  # pixels of a picture that a network which sees all of it gets at once
_SEEING = (192, 16, 32)  # tile, halo and overlap for such a network
_BICUBIC = 3  # pixels around a tile that its transparency needs


@dataclass(frozen=True)
class Tiling:
    """How a picture is cut; all in pixels of the picture that is enlarged.

    Attributes:
        tile: Side of a tile.
        halo: What the network sees around it, without being asked for it.
        overlap: How far a tile reaches into the next one; 0 where nothing is blended.
        radii: Of an `Upscaler` how far each of its parts looks, see `receptive_radii`; together at most the halo.
    """

    tile: int
    halo: int
    overlap: int = 0
    radii: tuple[int, ...] = ()


def choose_tiling(
    model: nn.Module, height: int, width: int, *, tile: int | None = None, memory_mb: float = MEMORY_MB
) -> Tiling:
    """The tiles for a picture of that size, in pixels.

    Args:
        model: See `strips`.
        height: Of the picture.
        width: Of the picture.
        tile: Their side in pixels; the default is the largest, up to 512, for which the network stays within the
            memory.
        memory_mb: Megabytes that the network's maps may take.

    Raises:
        ValueError: The tile is smaller than a pixel.
    """
    if tile is not None and tile < 1:
        raise ValueError(f"a tile has at least 1 pixel, not {tile}")
    radii = receptive_radii(model) if isinstance(model, Upscaler) else None
    radius = sum(radii) if radii else getattr(model, "radius", None)
    if radius is None:
        side, halo, overlap = _SEEING
        if tile is None and height * width <= _WHOLE:
            return Tiling(max(height, width), 0)
        side = tile or side
        return Tiling(side, halo, min(overlap, side // 2))
    halo = max(radius, _BICUBIC)
    if tile is None:
        window = math.isqrt(int(memory_mb * 1e6 / bytes_per_pixel(model)))
        tile = max(LEAST_TILE, min(MOST_TILE, window - 2 * halo))
    return Tiling(tile, halo, radii=tuple(radii or ()))


@torch.inference_mode()
def bytes_per_pixel(model: nn.Module) -> float:
    """About what a network's maps take at once for each pixel of its input: the largest layer's, and two kept aside."""
    side, most, widest = 16, 0, 0

    def measure(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal most, widest
        sizes = [one.numel() * one.itemsize for one in (*inputs, output) if isinstance(one, Tensor)]
        most, widest = max(most, sum(sizes)), max(widest, max(sizes[:-1], default=0))

    leaves = [module for module in model.modules() if not list(module.children())]
    hooks = [module.register_forward_hook(measure) for module in leaves]
    try:
        model(_like(model, torch.zeros(1, channels_of(model) or 3, side, side)))
    finally:
        for hook in hooks:
            hook.remove()
    return (most + 2 * widest) / side**2


def channels_of(model: nn.Module) -> int | None:
    """Channels that a network takes; None if it takes any number."""
    return getattr(model, "in_chans", None)


def strips(pixels: Pixels, model: nn.Module, tiling: Tiling, progress: Progress | None = None) -> Iterator[Pixels]:
    """The enlarged picture from the top down, in strips ``(h, s W, C)`` of the picture's type.

    Args:
        pixels: ``(H, W, C)``: 1 to 4 channels, see `tokenmix.tasks.super_resolution.photographs.Photograph`, of uint8,
            uint16, or floats in 0..1, which are not clamped.
        model: ``(B, C, H, W) -> (B, C, s H, s W)`` for values in 0..1, in eval mode, with its ``scale``.
        tiling: From `choose_tiling`.
        progress: Hears after each tile.
    """
    scale: int = model.scale  # type: ignore[assignment]
    height, width, channels = pixels.shape
    rows, columns = _spans(height, tiling), _spans(width, tiling)
    kind = np.dtype(np.float32) if tiling.overlap else pixels.dtype
    carried: Pixels | None = None
    for row, (top, bottom) in enumerate(rows):
        strip = np.zeros(((bottom - top) * scale, width * scale, channels), kind)
        for column, (left, right) in enumerate(columns):
            part = _enlarged(model, pixels, (top, bottom), (left, right), tiling)
            place = strip[:, left * scale : right * scale]
            if tiling.overlap:
                weights = _ramp(rows, row, scale)[:, None] * _ramp(columns, column, scale)
                place += part * weights[..., None]
            else:
                place[:] = _stored(part, kind)
            if progress is not None:
                progress(row * len(columns) + column + 1, len(rows) * len(columns))
        if carried is not None:
            strip[: len(carried)] += carried
        done = len(strip) if bottom == height else (rows[row + 1][0] - top) * scale
        carried = strip[done:].copy()
        yield _stored(strip[:done], pixels.dtype)


def _spans(length: int, tiling: Tiling) -> list[tuple[int, int]]:
    """Where tiles begin and end."""
    side = max(tiling.tile, 1)
    step = side - tiling.overlap
    begins = range(0, max(length - tiling.overlap, 1), step)
    return [(begin, min(begin + side, length)) for begin in begins]


def _ramp(spans: list[tuple[int, int]], index: int, scale: int) -> NDArray[np.float32]:
    """How much of each enlarged line of a tile counts: those of two tiles that overlap add up to 1."""
    begin, end = spans[index]
    weights = np.ones((end - begin) * scale, np.float32)
    if index > 0 and (shared := (spans[index - 1][1] - begin) * scale):
        weights[:shared] = (np.arange(shared) + 0.5) / shared
    if index + 1 < len(spans) and (shared := (end - spans[index + 1][0]) * scale):
        weights[-shared:] = 1 - (np.arange(shared) + 0.5) / shared
    return weights


def _enlarged(
    model: nn.Module, pixels: Pixels, rows: tuple[int, int], columns: tuple[int, int], tiling: Tiling
) -> Pixels:
    """One tile, ``(s h, s w, C)`` in 0..1, made from what is around it too."""
    scale: int = model.scale  # type: ignore[assignment]
    spans, sides = (rows, columns), pixels.shape[:2]
    begins = [max(0, begin - tiling.halo) for begin, _ in spans]
    ends = [min(side, end + tiling.halo) for (_, end), side in zip(spans, sides, strict=True)]
    values = pixels[begins[0] : ends[0], begins[1] : ends[1]].astype(np.float32)
    if pixels.dtype.kind == "u":
        values /= np.iinfo(pixels.dtype).max
    margins = [(begin - first, last - end) for (begin, end), first, last in zip(spans, begins, ends, strict=True)]
    colours = 3 if values.shape[2] > 2 else 1
    result = _network(model, values[..., :colours], margins, tiling.radii)
    if values.shape[2] > colours:  # transparency is no photograph: it is enlarged as it is
        alpha = _inner(resize(values[..., colours:], scale), margins, scale, (0, 1))
        result = np.concatenate((result, alpha.clip(0, 1)), axis=2)
    return result


Margins = Sequence[tuple[int, int]]
"""Pixels around a tile: (above, below) and (left, right)."""


@torch.inference_mode()
def _network(model: nn.Module, values: Pixels, margins: Margins, radii: Sequence[int]) -> Pixels:
    """A tile's enlarged colours ``(s h, s w, C)`` from those with their margins.

    A network of one channel takes each channel on its own; one of RGB takes grey as such.
    """
    x = torch.from_numpy(np.ascontiguousarray(values)).permute(2, 0, 1)[None]
    taken, given = channels_of(model), x.shape[1]
    if taken == 1:
        x = x.transpose(0, 1)
    elif taken is not None and taken != given:
        if given != 1:
            raise ValueError(f"the network takes {taken} channels, and the picture has {given}")
        x = x.expand(-1, taken, -1, -1)
    x = _like(model, x)
    if radii:
        y = _by_parts(model, x, margins, radii)
    else:
        y = _inner(model(x), margins, model.scale)  # type: ignore[arg-type]
    y = y.to("cpu", torch.float32)
    if taken == 1:
        y = y.transpose(0, 1)
    elif given == 1:
        y = y.mean(1, keepdim=True)
    return y[0].permute(1, 2, 0).numpy()


def _by_parts(model: Any, x: Tensor, margins: Margins, radii: Sequence[int]) -> Tensor:
    """An `Upscaler`'s output without margins: each part keeps of them what the later ones will look at."""
    y, here, needed = x, list(margins), sum(radii)
    for (part, _), radius in zip(model.parts(), radii, strict=True):
        y = part(y)
        needed -= radius
        left = [(min(before, needed), min(after, needed)) for before, after in here]
        y = _inner(y, [(b - i, a - j) for (b, a), (i, j) in zip(here, left, strict=True)], 1)
        here = left
    return model.finish(y, _inner(x, margins, 1))


def _inner(picture: Any, margins: Margins, scale: int, axes: tuple[int, int] = (-2, -1)) -> Any:
    """An array or tensor without margins, which are ``scale`` times as wide there, along the axes of height, width."""
    index = [slice(None)] * picture.ndim
    for axis, (before, after) in zip(axes, margins, strict=True):
        index[axis] = slice(before * scale, picture.shape[axis] - after * scale)
    return picture[tuple(index)]


def _like(model: nn.Module, x: Tensor) -> Tensor:
    """The tensor where a network's parameters are, and of their type."""
    for parameter in model.parameters():
        return x.to(parameter.device, parameter.dtype)
    return x


def _stored(values: Pixels, kind: np.dtype[Any]) -> Pixels:
    """Values in 0..1 as a picture of that type holds them; others as they are."""
    if values.dtype == kind:
        return values
    if kind.kind != "u":
        return values.astype(kind)
    most = np.iinfo(kind).max
    return np.rint(values * np.float32(most)).clip(0, most).astype(kind)
