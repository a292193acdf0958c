"""Data sets for super-resolution by name or folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tokenmix.data.dataset import Skipped, printable
from tokenmix.data.inventory import summary, take_inventory
from tokenmix.data.judged import choose, part_of
from tokenmix.data.random_numbers import permutation
from tokenmix.tasks.super_resolution.data import ArrayPhotographs, FilePhotographs, PhotographData, Photographs
from tokenmix.tasks.super_resolution.layouts import Pair, find_pairs
from tokenmix.tasks.super_resolution.metrics import WINDOW
from tokenmix_runtime.images import open_known

NAMED = {"photographs": "16 photographs of scikit-image and scikit-learn; embedded"}
SPLITS = ("train", "val", "test")
SHARES = {"val": 0.1, "test": 0.1}
# SSIM's window within the border that is not judged, a multiple of the scale, which is 4 at most in what is published.
SMALLEST = WINDOW + 2 * 4 + 1
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
Log = Callable[[str], None]


def load_photographs(spec: str, *, seed: int, check: bool, log: Log) -> PhotographData:
    """The data set that ``spec`` names, to train on.

    Where a folder has no validation or test pictures, a tenth of the training pictures each, one at least, become them,
    chosen by ``seed``.

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
    found, skipped = _found(path, check, log)
    parts = {split: FilePhotographs(path, [split], pairs) for split, pairs in found.items()}
    missing = [split for split in SPLITS[1:] if split not in parts]
    if missing:
        train = parts.get("train", FilePhotographs(path, ["train"], []))
        for split, rows in _split_off(len(train), missing, seed, path).items():
            parts[split] = train.subset(rows)
        told = " and ".join(f"{len(parts[split])} become {split}" for split in missing)
        log(f"{path}: of the training pictures {told}, chosen by seed {seed}")
    train, val, test = (parts[split] for split in SPLITS)
    return PhotographData(path.resolve().name, train, val, test, skipped=skipped, split_off=bool(missing))


def load_judged(
    spec: str, learnt: Mapping[str, Any] | None, split: str | None, *, seed: int, log: Log
) -> tuple[str, Photographs]:
    """The name of a data set, and the pictures of it that a network is judged by.

    Args:
        spec: See `load_photographs`.
        learnt: What the network says of its data, see `tokenmix.data.judged.choose`.
        split: Which part; None: of a folder all that it has not learnt from, else the test pictures.
        seed: Of the split, where the folder has none and the network does not know the folder.
        log: Hears what was decided.

    Raises:
        ValueError: See `load_photographs`.
    """
    if spec in NAMED:
        return spec, part_of(_embedded(), split, spec)
    path = Path(spec).expanduser()
    found, _ = _found(path, True, log)
    whole = len(found) == 1
    folders = ["" if whole else part for part, pairs in found.items() for _ in pairs]
    everything = FilePhotographs(path, list(found), [pair for pairs in found.values() for pair in pairs])
    names, labels = everything.names, [0] * len(everything)
    chosen, notes = choose(path, everything.contents(), folders, names, labels, learnt, split, seed)
    for note in notes:
        log(note)
    return path.resolve().name, everything.subset(chosen)


def _found(path: Path, check: bool, log: Log) -> tuple[dict[str, list[Pair]], list[Skipped]]:
    """The pictures of a folder by split, and what was left out."""
    inventory = take_inventory(path)
    found, skipped = find_pairs(path, 2, inventory), list[Skipped]()
    if not check:
        return found, skipped
    taken = {file for pairs in found.values() for pair in pairs for file in (pair.high, pair.low)}
    if others := [name for name in inventory.pictures if inventory.root / name not in taken]:
        log(f"{path}: {len(others):,} other pictures are no part of it and not taken: {summary(others)}")
    for split, pairs in found.items():
        wrong = {pair.name: reason for pair in pairs if (reason := _problem(pair))}
        skipped += [Skipped(printable(name), reason) for name, reason in wrong.items()]
        found[split] = [pair for pair in pairs if pair.name not in wrong]
    for one in skipped[:10]:
        log(f"left out {one.name}: {one.reason}")
    found = {split: pairs for split, pairs in found.items() if pairs}
    if not found:
        raise ValueError(
            f"{path}: none of its pictures can be used; first of all {skipped[0].name}: {skipped[0].reason}"
        )
    return found, skipped


def _problem(pair: Pair) -> str:
    """Why a picture cannot be used, as far as its header tells."""
    try:
        for path in filter(None, (pair.low, pair.high)):
            with open_known(path) as image:
                width, height = image.size
        if min(width, height) < SMALLEST:
            return f"{width} x {height} pixels are too few to be judged: {SMALLEST} x {SMALLEST} are needed"
    except Exception as error:  # whatever Pillow raises on a broken header
        return str(error) or type(error).__name__
    return ""


def _split_off(count: int, missing: list[str], seed: int, path: Path) -> dict[str, list[int]]:
    """Rows of the training pictures for each of the parts that are missing, and what remains as ``train``."""
    if count <= len(missing):
        raise ValueError(
            f"{path}: {count} pictures to learn from are too few to take some for {' and '.join(missing)} away: add "
            "others, or folders train, val and test"
        )
    order, parts = permutation(count, seed).tolist(), {}
    for split in missing:
        taken = max(1, round(SHARES[split] * count))
        parts[split], order = sorted(order[:taken]), order[taken:]
    return {**parts, "train": sorted(order)}


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
            with open_known(folders[package] / file) as image:
                pictures.append(np.asarray(image.convert("RGB")))
        parts.append(ArrayPhotographs(pictures, [name.split("/")[1] for name in names]))
    train, val, test = parts
    return PhotographData("photographs", train, val, test)
