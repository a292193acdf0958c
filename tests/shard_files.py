"""Shards for tests, written by webdataset."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import webdataset


def pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (12, 16, 3), np.uint8)


def write_shards(folder: Path, split: str, sizes: list[int], *, first: int = 0, classes: int = 3) -> list[Path]:
    """Shards of some sizes of PNG pictures; picture ``i`` has `pixels(i)` and the class ``i % classes``."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, size in enumerate(sizes):
        paths.append(folder / f"{split}-{number:06d}.tar")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            with webdataset.TarWriter(str(paths[-1])) as writer:
                for i in range(first, first + size):
                    writer.write({"__key__": f"{i:06d}", "png": pixels(i), "cls": i % classes})
        first += size
    return paths
