"""Pictures with a class each, from the name that a user wrote."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tokenmix.data.dataset import Probe
from tokenmix.data.memory import data_root
from tokenmix.tasks.classification.digits import load_digits
from tokenmix.tasks.classification.folder import load_folder
from tokenmix.tasks.classification.images import ClassData
from tokenmix.tasks.classification.matching_digits import SIZE_PX, load_matching_digits
from tokenmix.tasks.classification.named import TORCHVISION, load_hub, load_torchvision
from tokenmix.tasks.classification.shard_sets import is_shard_spec, load_shards
from tokenmix_runtime.names import unknown
from tokenmix_runtime.terminal import say

KNOWN = {
    "digits": "scikit-learn's 1,797 handwritten digits, 10 classes; embedded, needs no download",
    "matching_digits": "3,008 photographs with two digits far apart, of the same colour or not; embedded",
    "cifar10": "60,000 small photos, 10 classes; --download",
    "cifar100": "60,000 small photos, 100 classes; --download",
    "flowers102": "8,189 photos of flowers, 102 classes; --download",
    "food101": "101,000 photos of dishes, 101 classes; --download",
    "pets": "7,349 photos of cats and dogs, 37 breeds; --download",
    "imagenet": "1,281,167 photos, 1,000 classes, from a folder 'imagenet' in TOKENMIX_DATA; no download",
}


def load_pictures(
    spec: str | os.PathLike[str],
    *,
    seed: int = 0,
    download: bool = False,
    log: Callable[[str], None] = say,
    image_size: int | None = None,
    check: bool | Probe = True,
) -> ClassData:
    """The data set that ``spec`` names, for classification; see `tokenmix.sources.load_data`.

    Raises:
        ValueError: An unknown name or path, nothing readable in it, not downloaded, or a missing library.
    """
    name = os.fspath(spec)
    path = Path(name).expanduser()
    if name == "digits":
        data = load_digits(image_size=image_size or 32)
    elif name == "matching_digits":
        data = load_matching_digits(image_size=image_size or SIZE_PX)
    elif name in TORCHVISION:
        data = load_torchvision(name, seed=seed, download=download, image_size=image_size, log=log)
    elif name == "imagenet":
        data = _imagenet(seed, image_size or 224, check, log)
    elif is_shard_spec(name):
        data = load_shards(name, seed=seed, image_size=image_size or 224, check=bool(check), log=log)
    elif name.startswith("hf:"):
        data = load_hub(name.removeprefix("hf:"), seed=seed, image_size=image_size or 224, check=check, log=log)
    elif path.is_dir():
        data = load_folder(path, seed=seed, image_size=image_size or 224, check=check, log=log)
    elif path.exists():
        raise ValueError(f"{name} is a file; a data set is a folder with one folder of images per class")
    else:
        raise ValueError(unknown("data set", name, KNOWN) + "; there is no folder of this name either")
    log(data.summary())
    return data


def is_plain_folder(spec: str) -> bool:
    """Whether this means a folder of pictures: no name of a data set, and no tar shards."""
    known = spec in KNOWN or spec in TORCHVISION or spec.startswith("hf:")
    return not known and not is_shard_spec(spec) and Path(spec).expanduser().is_dir()


def _imagenet(seed: int, image_size: int, check: bool | Probe, log: Callable[[str], None]) -> ClassData:
    """ImageNet-1K as its owner has laid it out: class folders or tar shards in ``train`` and ``val``."""
    path = data_root() / "imagenet"
    if not path.is_dir():
        raise ValueError(
            f"there is no {path}: give the place of ImageNet-1K with --data (data=), a folder with train/ and val/ or "
            "tar shards; or set TOKENMIX_DATA to the folder that holds it as 'imagenet'. Its licence forbids a download"
        )
    if is_shard_spec(os.fspath(path)):
        return load_shards(os.fspath(path), seed=seed, image_size=image_size, check=bool(check), log=log)
    return load_folder(path, seed=seed, image_size=image_size, check=check, log=log)
