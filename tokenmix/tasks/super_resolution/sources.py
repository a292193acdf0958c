"""Data sets for super-resolution by name or folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tokenmix.data.dataset import Skipped
from tokenmix.data.random_numbers import permutation
from tokenmix.tasks.super_resolution.data import ArrayPhotographs, FilePhotographs, PhotographData
from tokenmix.tasks.super_resolution.layouts import Pair, find_pairs

BENCHMARKS = ("set5", "set14", "b100", "bsd100", "urban100", "manga109")
"""Folders of these names, in lower case, are all for judging."""
NAMED = {"photographs": "16 photographs of scikit-image and scikit-learn; embedded"}
SHARES = {"val": 0.1, "test": 0.1}

# Of each part the files in the packages' folders of pictures.
EMBEDDED = {
    "train": (
        *("skimage/brick.png", "skimage/coins.png", "skimage/grass.png", "skimage/gravel.png"),
        *("skimage/hubble_deep_field.jpg", "skimage/ihc.png", "skimage/moon.png", "skimage/motorcycle_left.png"),
        *("skimage/retina.jpg", "sklearn/china.jpg", "sklearn/flower.jpg"),
    ),
    "val": ("skimage/camera.png", "skimage/rocket.jpg"),
    "test": ("skimage/astronaut.png", "skimage/chelsea.png", "skimage/coffee.png"),
}


def load_photographs(spec: str, *, seed: int, check: bool, log: Callable[[str], None]) -> PhotographData:
    """The data set that ``spec`` names.

    A folder of one of the benchmarks' names is all for judging. Where another folder has no validation or test
    pictures, a tenth of the training pictures each, one at least, become them, chosen by ``seed``.

    Args:
        spec: ``photographs`` or a folder, see `tokenmix.tasks.super_resolution.layouts`.
        seed: Decides which pictures are split off.
        check: Look whether the pictures can be opened and are large enough, and leave out those that are not.
        log: Hears what was decided.

    Raises:
        ValueError: There is no such folder, no picture, or too few.
    """
    if spec in NAMED:
        return _embedded()
    path = Path(spec).expanduser()
    found = find_pairs(path, 2)
    skipped: list[Skipped] = []
    if check:
        found = {split: _readable(pairs, skipped, log) for split, pairs in found.items()}
    origins = {split: split for split in ("train", "val", "test")}
    if path.resolve().name.lower() in BENCHMARKS:
        whole = next(iter(found))
        found, origins = {"train": [], "val": [], "test": found[whole]}, origins | {"test": whole}
        log(f"{path}: a benchmark, all {len(found['test'])} pictures are for judging")
    else:
        for split in ("val", "test"):
            if not found.get(split):
                found[split], origins[split] = _split_off(found, split, seed), "train"
                log(f"{path}: {len(found[split])} training pictures become {split}, chosen by seed {seed}")
    parts = [
        FilePhotographs(path, origins[split], [pair.name for pair in found[split]])
        for split in ("train", "val", "test")
    ]
    return PhotographData(path.resolve().name, *parts, skipped=skipped)


def _readable(pairs: list[Pair], skipped: list[Skipped], log: Callable[[str], None]) -> list[Pair]:
    """The pairs whose pictures have a readable header, and what is wrong with the others."""
    from tokenmix.runtime.images import open_known
    from tokenmix.tasks.super_resolution.metrics import WINDOW

    good = []
    for pair in pairs:
        try:
            for path in [pair.high] + ([pair.low] if pair.low else []):
                with open_known(path) as image:
                    if min(image.size) < WINDOW:
                        raise ValueError(f"{image.width} x {image.height} pixels are too few")
            good.append(pair)
        except Exception as error:  # whatever Pillow raises on a broken header
            skipped.append(Skipped(pair.name, str(error) or type(error).__name__))
            log(f"left out {pair.name}: {skipped[-1].reason}")
    return good


def _split_off(found: dict[str, list[Pair]], split: str, seed: int) -> list[Pair]:
    """Take a share of the training pictures away, and return it."""
    train = found.get("train", [])
    if len(train) < 3:
        raise ValueError(
            f"{len(train)} pictures to learn from are too few to take some for {split} away: add others, or folders "
            "train, val and test"
        )
    count = max(1, round(SHARES[split] * len(train)))
    taken = set(permutation(len(train), seed, sorted(SHARES).index(split))[:count].tolist())
    found["train"] = [pair for place, pair in enumerate(train) if place not in taken]
    return [pair for place, pair in enumerate(train) if place in taken]


def _embedded() -> PhotographData:
    """The photographs of two packages."""
    try:
        import skimage.data
        import sklearn.datasets
    except ImportError as error:
        raise ValueError(f"the data set 'photographs' needs {error.name}: pip install 'tokenmix[demo]'") from error

    folders = {
        "skimage": Path(skimage.data.__file__).parent,
        "sklearn": Path(sklearn.datasets.__file__).parent / "images",
    }
    parts = []
    for names in EMBEDDED.values():
        pictures = []
        for name in names:
            package, file = name.split("/")
            with Image.open(folders[package] / file) as image:
                pictures.append(np.asarray(image.convert("RGB")))
        parts.append(ArrayPhotographs(pictures, [name.split("/")[1] for name in names]))
    return PhotographData("photographs", *parts)
