"""Data sets by name: torchvision's, and those of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tokenmix.data.dataset import Probe, Skipped, decodes, unreadable
from tokenmix.data.memory import data_root
from tokenmix.tasks.classification.folder import split_off
from tokenmix.tasks.classification.images import ArrayImages, ClassData, ImageSet, TableImages
from tokenmix_runtime.terminal import say

# class in torchvision.datasets, keywords of (train, val, test), default image size
_TRAIN_TEST: tuple[dict[str, Any], ...] = ({"train": True}, {}, {"train": False})
TORCHVISION: dict[str, tuple[str, tuple[dict[str, Any], ...], int]] = {
    "cifar10": ("CIFAR10", _TRAIN_TEST, 32),
    "cifar100": ("CIFAR100", _TRAIN_TEST, 32),
    "flowers102": ("Flowers102", ({"split": "train"}, {"split": "val"}, {"split": "test"}), 224),
    "food101": ("Food101", ({"split": "train"}, {}, {"split": "test"}), 224),
    "pets": ("OxfordIIITPet", ({"split": "trainval"}, {}, {"split": "test"}), 224),
}
_VAL_SHARE = 0.1  # of the training images, where a data set has no validation images of its own


def load_torchvision(
    name: str,
    *,
    seed: int = 0,
    download: bool = False,
    image_size: int | None = None,
    log: Callable[[str], None] = say,
) -> ClassData:
    """One of torchvision's data sets, from `data_root`.

    Its files are verified by torchvision, so the pictures are not decoded in advance.

    Raises:
        ValueError: It is not there and ``download`` is false, or the download failed.
    """
    import torchvision.datasets

    class_name, splits, default_size = TORCHVISION[name]
    root = data_root()
    sets: dict[str, ImageSet] = {}
    classes: list[str] = []
    for split, keywords in zip(("train", "val", "test"), splits, strict=True):
        if not keywords:
            sets[split] = ImageSet([], [])
            continue
        if download:
            log(f"{name}: looking for the {split} images in {root}, downloading what is missing")
        try:
            source = getattr(torchvision.datasets, class_name)(root, download=download, **keywords)
        except (RuntimeError, OSError) as error:
            if download:
                raise ValueError(f"{name} could not be downloaded to {root}: {error}") from error
            raise ValueError(
                f"{name} is not in {root}: pass --download (download=True) to download it there, "
                "or set TOKENMIX_DATA to the folder that has it"
            ) from error
        classes = [str(label) for label in source.classes]
        sets[split] = _from_torchvision(source, f"{name}/{'_'.join(str(value) for value in keywords.values())}", split)
    split_off(sets, _subset, classes, seed=seed, log=log, name=name, share=_VAL_SHARE)
    return ClassData(name, sets["train"], sets["val"], sets["test"], image_size or default_size, classes)


def _from_torchvision(source: Any, prefix: str, split: str) -> ImageSet:
    labels = [int(label) for label in (source.targets if hasattr(source, "targets") else source._labels)]
    pixels = getattr(source, "data", None)
    if isinstance(pixels, np.ndarray):  # CIFAR: (N, 32, 32, 3), all in memory
        names = [f"{prefix.split('/')[0]}/{split}/{row}" for row in range(len(labels))]
        return ArrayImages(torch.from_numpy(pixels).permute(0, 3, 1, 2), labels, names, crop_pct=1.0)
    names = [f"{prefix}/{row}" for row in range(len(labels))]
    return TableImages(source, 0, range(len(labels)), labels, names)


def _subset(images: ImageSet, rows: list[int]) -> ImageSet:
    labels, names = [images.labels[row] for row in rows], [images.names[row] for row in rows]
    kind = {"flip": images.flip, "glyphs": images.glyphs, "crop_pct": images.crop_pct}
    if isinstance(images, ArrayImages):
        return ArrayImages(images.pixels[rows], labels, names, **kind)
    assert isinstance(images, TableImages)
    return TableImages(images.source, images.column, [images.rows[row] for row in rows], labels, names, **kind)


def load_hub(
    name: str, *, seed: int = 0, image_size: int = 224, check: bool | Probe = True, log: Callable[[str], None] = say
) -> ClassData:
    """The data set ``owner/name`` of the Hugging Face hub, which its library ``datasets`` downloads into its own cache.

    The first column of pictures and the first column of class labels are used (``label`` before others). Missing
    validation and test images are split off from the training images by ``seed``; a test set without labels counts as
    missing.

    Raises:
        ValueError: The library is not installed, the data set cannot be loaded, or it has no such columns.
    """
    try:
        import datasets
    except ImportError as error:
        raise ValueError("data sets of the Hugging Face hub need its library: pip install 'tokenmix[hub]'") from error
    try:
        loaded = datasets.load_dataset(name)
    except Exception as error:  # whatever the library, the network or the data set's own files raise
        raise ValueError(f"the Hugging Face data set {name!r} cannot be loaded: {error}") from error
    if "train" not in loaded:
        raise ValueError(f"the Hugging Face data set {name!r} has no split 'train', only {', '.join(loaded)}")
    features = loaded["train"].features
    image = _column(features, datasets.Image, ("image", "img"), "pictures", name, log)
    label = _column(features, datasets.ClassLabel, ("label", "fine_label", "labels"), "class labels", name, log)
    classes = list(features[label].names)
    skipped: list[Skipped] = []
    sets: dict[str, ImageSet] = {}
    for split, known in (("train", ("train",)), ("val", ("validation", "valid", "val")), ("test", ("test",))):
        found = next((key for key in known if key in loaded), None)
        if found is None:
            sets[split] = ImageSet([], [])
            continue
        # Undecoded, so that our decoder sees the files: theirs would clip 16-bit images and ignore transparency.
        source = loaded[found].cast_column(image, datasets.Image(decode=False))
        labels = [int(value) if value is not None else -1 for value in source[label]]
        rows = [row for row, value in enumerate(labels) if 0 <= value < len(classes)]
        if len(rows) < len(labels):
            log(f"{name}: {len(labels) - len(rows):,} images of {found} have no label and are not used")
        images = TableImages(source, image, rows, [labels[row] for row in rows], [f"{found}/{row}" for row in rows])
        failed = unreadable(images, log, decodes if check is True else check) if check else {}
        skipped += failed.values()
        sets[split] = _subset(images, [row for row in range(len(images)) if row not in failed])
    if not len(sets["train"]):
        raise ValueError(f"the Hugging Face data set {name!r} has no readable labelled image in 'train'")
    split_off(sets, _subset, classes, seed=seed, log=log, name=name)
    return ClassData(f"hf:{name}", sets["train"], sets["val"], sets["test"], image_size, classes, skipped=skipped)


def _column(
    features: Any, kind: type, preferred: tuple[str, ...], what: str, name: str, log: Callable[[str], None]
) -> str:
    columns = [column for column in features if isinstance(features[column], kind)]
    if not columns:
        raise ValueError(f"the Hugging Face data set {name!r} has no column of {what}; it has {', '.join(features)}")
    chosen = next((column for column in preferred if column in columns), columns[0])
    if len(columns) > 1:
        log(f"{name}: columns of {what}: {', '.join(columns)}; using {chosen!r}")
    return chosen
