"""Pictures that exported files are compared and calibrated on: a user's, or those that libraries bring along."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from tokenmix.data.inventory import take_inventory
from tokenmix_runtime.images import EXTENSIONS, ImageError, open_image

Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
_MOST = 128  # pictures of a calibration folder


def bundled_pictures() -> list[Image.Image]:
    """Photographs that scikit-image or scikit-learn bring along; empty where neither is installed."""
    if find_spec("skimage") is not None:
        from skimage import data

        return [Image.fromarray(getattr(data, name)()) for name in ("astronaut", "coffee", "chelsea", "rocket")]
    if find_spec("sklearn") is not None:
        from sklearn.datasets import load_sample_images

        return [Image.fromarray(np.asarray(pixels)) for pixels in load_sample_images().images]
    return []


def pictures_of(source: Source) -> list[Path]:
    """The picture files in a folder and below it, at most 128 of them, evenly taken; files in a list as they are.

    Names that begin with a dot are ignored in a folder, as in training.

    Raises:
        ValueError: There are none.
    """
    if not isinstance(source, str | os.PathLike):
        return [file for path in source for file in (pictures_of(path) if os.path.isdir(path) else [Path(path)])]
    folder = Path(source)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder of pictures")
    found = sorted(folder / name for name in take_inventory(folder).pictures)
    if not found:
        raise ValueError(f"{folder}: no pictures in it (extensions: {' '.join(EXTENSIONS)})")
    return [found[i * len(found) // min(_MOST, len(found))] for i in range(min(_MOST, len(found)))]


def readable(source: Source) -> list[Path]:
    """Those of `pictures_of` that can be read; each of the others is named in a warning.

    Raises:
        ValueError: There are no pictures, or none can be read.
    """
    files, kept, reasons = pictures_of(source), [], []
    for path in files:
        try:
            open_image(path, at_least=1)
        except ImageError as error:
            reasons.append(str(error))
        else:
            kept.append(path)
    if not kept:
        raise ValueError(f"none of the {len(files):,} pictures can be used; the first: {reasons[0]}")
    for reason in reasons:
        warnings.warn(f"{reason}: left out", stacklevel=4)
    return kept


def labels_of(files: Sequence[Path], classes: Sequence[str] | None) -> list[int] | None:
    """The classes of picture files that lie in folders named after them; None where one does not."""
    names = [path.resolve().parent.name for path in files]
    return [list(classes).index(name) for name in names] if classes and set(names) <= set(classes) else None
