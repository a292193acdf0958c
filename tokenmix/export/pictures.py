"""What exported files are compared and calibrated on: pictures, prepared as the files take them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tokenmix.checkpoints import LoadedModel
from tokenmix.data.inventory import take_inventory
from tokenmix.data.prepare import normalise
from tokenmix.runtime.images import EXTENSIONS, ImageError, open_image
from tokenmix.runtime.preprocess import CROP_MODES, resize_and_crop

Source = Tensor | str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None
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


def pictures_of(source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Path]:
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


def readable(source: Source) -> Source:
    """The same without the picture files that cannot be read, each of which is named in a warning.

    Raises:
        ValueError: There are no pictures, or none can be read.
    """
    if source is None or isinstance(source, Tensor) or not source:
        return source
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
        warnings.warn(f"{reason}: left out", stacklevel=3)
    return kept


def prepared_picture(image: Image.Image, opened: LoadedModel, size: tuple[int, int], inside: Sequence[str]) -> Tensor:
    """``(1, 3, H, W)``: a picture as a file takes it; a dense model's is squeezed into the size whatever its shape."""
    image = image.convert("RGB")
    if "resize" not in inside:
        mode = opened.crop_mode if opened.crop_mode in CROP_MODES else "squash"
        kind: dict[str, Any] = {"crop_pct": opened.crop_pct, "interpolation": opened.interpolation, "crop_mode": mode}
        image = resize_and_crop(image, size, **kind)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    return pixels.float() if "normalize" in inside else normalise(pixels, opened.mean, opened.std)


def labels_of(source: Source, classes: Sequence[str] | None) -> list[int] | None:
    """The classes of picture files that lie in folders named after them; None where one does not, or for no files."""
    if source is None or isinstance(source, Tensor) or not classes:
        return None
    names = [path.resolve().parent.name for path in pictures_of(source)]
    return [list(classes).index(name) for name in names] if set(names) <= set(classes) else None


def inputs(
    source: Source,
    opened: LoadedModel,
    size: tuple[int, int],
    inside: Sequence[str],
) -> tuple[list[Tensor], str]:
    """Inputs of one picture each, and what they are: ``files``, ``tensor``, ``photographs`` or ``noise``.

    Args:
        source: Inputs ready to be used (N, 3, H, W), a folder, files, or None for the bundled photographs.
        opened: The model.
        size: Height and width that the file takes.
        inside: What is inside the file.

    Raises:
        ValueError: There is no picture, or one cannot be read.
    """
    if isinstance(source, Tensor):
        if source.ndim != 4 or not len(source):
            raise ValueError(f"images must be pictures (N, C, H, W), not of shape {tuple(source.shape)}")
        return list(source.detach().cpu().float().split(1)), "tensor"
    if source:
        return [prepared_picture(open_image(path), opened, size, inside) for path in pictures_of(source)], "files"
    found = [prepared_picture(image, opened, size, inside) for image in bundled_pictures()]
    if found:
        return found, "photographs"
    noise = torch.rand(4, len(opened.mean), *size, generator=torch.Generator().manual_seed(0))
    noise = 255 * noise if "normalize" in inside else normalise(255 * noise, opened.mean, opened.std)
    return list(noise.split(1)), "noise"
