"""Maps of classes as PNG files, which others read."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tokenmix.data.natural import same
from tokenmix.files import atomic_path, short_name
from tokenmix.pictures.colours import palette


def label_picture(label: NDArray[np.integer]) -> Image.Image:
    """(H, W) classes from 0 on, 255 for none -> a picture of these very numbers, with a palette to be looked at."""
    picture = Image.fromarray(np.asarray(label, np.uint8)).convert("P")
    picture.putpalette(palette().tobytes())
    return picture


class LabelMaps:
    """Writes each predicted map of classes as a PNG file while a set is evaluated; each process its own.

    Args:
        folder: Where; the files are named after the pictures, and no two alike even where a system ignores case.
        names: Of the pictures, by their place.
    """

    def __init__(self, folder: str | os.PathLike[str], names: Sequence[str]) -> None:
        self.folder = Path(folder)
        paths = [
            PurePosixPath(*(part for part in PurePosixPath(name).parts if part not in ("..", "/"))) for name in names
        ]
        stems = Counter(_key(path.with_suffix("")) for path in paths)
        paths = [path.with_suffix("") if stems[_key(path.with_suffix(""))] == 1 else path for path in paths]
        self.paths: list[PurePosixPath] = []
        taken: set[str] = set()
        for path in paths:  # x.jpg and x.jpg.jpg, where x.png is too, have the same one left
            free = next(name for name in _numbered(path) if _key(name) not in taken)
            taken.add(_key(free))
            self.paths.append(free)

    def update(self, prediction: Sequence[Any], batch: dict[str, Any]) -> None:
        """Write the maps (H, W) of a batch; those whose ``mask`` is False are left out."""
        for label, index, counts in zip(prediction, batch["index"].tolist(), batch["mask"].tolist(), strict=True):
            if counts:
                path = self.folder / self.paths[index]
                with atomic_path(path.with_name(short_name(path.name, ".png"))) as temporary:
                    label_picture(label.cpu().numpy()).save(temporary, "PNG", optimize=True)


def _key(path: PurePosixPath) -> str:
    """What two paths have in common that are one file on some systems, which ignore case or forms of Unicode."""
    return same(str(path)).casefold()


def _numbered(path: PurePosixPath) -> Iterator[PurePosixPath]:
    """The path, and the same with -2, -3, ... behind its name."""
    yield path
    yield from (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
