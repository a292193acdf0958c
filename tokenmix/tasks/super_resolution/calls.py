"""``tokenmix.upscale``: what the command of its name does, as one call."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenmix.checkpoints import LoadedModel, open_model
from tokenmix.evaluate import find_device
from tokenmix.tasks.super_resolution.tiles import MEMORY_MB, Progress
from tokenmix.tasks.super_resolution.upscale_command import TASK, targets
from tokenmix.tasks.super_resolution.upscaling import upscale_file

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def upscale(
    model: str | os.PathLike[str] | LoadedModel,
    pictures: Paths,
    out: str | os.PathLike[str],
    *,
    scale: float | None = None,
    tile: int | None = None,
    memory_mb: float = MEMORY_MB,
    device: str = "auto",
    progress: Progress | None = None,
) -> list[Path]:
    """Make photographs larger and write them; 16 bits, transparency and the colour profile are kept.

    A picture in memory is enlarged by `tokenmix.tasks.super_resolution.upscale`.

    Args:
        model: A run's folder, a weights file, ``"bicubic_x2"``, or a loaded model.
        pictures: A picture's file, a folder of them, or several of these.
        out: A file, for one picture; or a folder, in which a picture keeps its name and gets the scale.
        scale: How many times larger; the default is the model's.
        tile: Side of a tile in pixels; the default suits the memory.
        memory_mb: Megabytes that the network's maps may take.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        progress: Called after each tile of a picture with the number of those that are done, and of all.

    Returns:
        The files that were written, in the pictures' order.

    Raises:
        ImageError: A picture cannot be read; those before it are written.
        ValueError: The model enlarges no pictures, an argument is out of range, or there are no pictures.

    Examples:
        >>> import tokenmix
        >>> tokenmix.upscale("runs/demo-upscale", "holiday.jpg", "larger/")  # doctest: +SKIP
        [PosixPath('larger/holiday-x2.jpg')]
    """
    loaded = model if isinstance(model, LoadedModel) else open_model(model, tasks=[TASK])
    network = loaded.model.to(find_device(device))
    listed = [pictures] if isinstance(pictures, str | os.PathLike) else list(pictures)
    factor: Any = network.scale if scale is None else scale
    pairs = targets([*(os.fspath(one) for one in listed), os.fspath(out)], factor)
    for source, target in pairs:
        upscale_file(source, target, network, scale=scale, tile=tile, memory_mb=memory_mb, progress=progress)
    return [target for _, target in pairs]
