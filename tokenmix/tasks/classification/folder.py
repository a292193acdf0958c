"""Image folders: ``path/train/class/x.jpg`` with ``val`` and ``test`` beside, or ``path/class/x.jpg``."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from tokenmix.data.dataset import Probe, Skipped, printable, unreadable
from tokenmix.data.memory import checked
from tokenmix.data.random_numbers import stratified
from tokenmix.runtime.images import EXTENSIONS
from tokenmix.tasks.classification.images import ClassData, FileImages, ImageSet
from tokenmix.terminal import say

VAL_SHARE = 0.15
TEST_SHARE = 0.15
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def load_folder(
    path: Path, *, seed: int = 0, image_size: int = 224, check: bool | Probe = True, log: Callable[[str], None] = say
) -> ClassData:
    """The pictures below ``path``, one folder per class, nested as deep as they like.

    Where ``val`` or ``test`` is missing, 15 % of each class's training pictures become it, chosen by ``seed``; a class
    with too few pictures to share stays in the training set. Names that start with a dot are ignored, and so are files
    whose extension is not a picture's.

    Args:
        path: The folder.
        seed: Decides which pictures are split off.
        image_size: The default image size of the data set, pixels.
        check: Decode every picture first, so that the broken ones are skipped now instead of failing later; or look at
            every picture with this function.
        log: Receives what was skipped and what was decided.

    Raises:
        ValueError: No class folders, no readable picture, fewer than two classes, or a class in val or test that train
            does not have.
    """
    found = _find(path)
    rows = [
        (split, label, name) for split, classes in found.items() for label, names in classes.items() for name in names
    ]
    if not rows:
        raise ValueError(f"{path}: no images in the class folders (extensions: {' '.join(EXTENSIONS)})")
    failed: dict[int, Skipped] = {}
    if check:
        images = FileImages(path, [0] * len(rows), [name for _, _, name in rows])
        failed = checked(images, images.root, images.files, log) if check is True else unreadable(images, log, check)
        if len(failed) == len(rows):
            first = failed[0]
            raise ValueError(
                f"{path}: none of its {len(rows)} images can be read (first: {first.name}: {first.reason})"
            )
    kept = [row for index, row in enumerate(rows) if index not in failed]
    learned = {label for split, label, _ in kept if split == "train"}
    for split, label, _ in kept:
        if label not in learned:
            raise ValueError(f"{path}: class {label!r} is in {split} but has no readable image in train")
    left_out = sorted(found["train"].keys() - learned, key=natural)
    for label in left_out:
        log(f"class {label!r} has no readable image: left out")
    classes = sorted(learned, key=natural)
    if len(classes) < 2:
        raise ValueError(
            f"{path}: only one class, {classes[0]!r}; put the images of each class into a folder of its own"
        )
    numbers = {label: number for number, label in enumerate(classes)}
    sets: dict[str, ImageSet] = {}
    for split in ("train", "val", "test"):
        members = [(numbers[label], name) for at, label, name in kept if at == split]
        sets[split] = FileImages(path, [label for label, _ in members], [name for _, name in members])
    split_off(sets, _subset, classes, seed=seed, log=log, name=str(path))
    skipped = [failed[index] for index in sorted(failed)]
    return ClassData(
        path.resolve().name,
        sets["train"],
        sets["val"],
        sets["test"],
        image_size,
        [printable(label) for label in classes],
        skipped=skipped,
        left_out=[printable(label) for label in left_out],
    )


def split_off(
    sets: dict[str, ImageSet],
    subset: Callable[[ImageSet, list[int]], ImageSet],
    classes: list[str],
    *,
    seed: int,
    log: Callable[[str], None],
    name: str,
    share: float | None = None,
) -> None:
    """Fill the empty ones of ``sets["val"]`` and ``sets["test"]`` from ``sets["train"]``, stratified.

    Args:
        sets: Changed in place.
        subset: Makes the set of some rows of a set.
        classes: The names, for the log.
        seed: Decides which pictures are taken.
        log: Hears of the classes that stay whole.
        name: The data set, for the message.
        share: The part of each class to take; the default is VAL_SHARE and TEST_SHARE.

    Raises:
        ValueError: Every class is too small to be split.
    """
    missing = [split for split in ("val", "test") if not len(sets[split])]
    if not missing:
        return
    shares = [share or {"val": VAL_SHARE, "test": TEST_SHARE}[split] for split in missing]
    train = sets["train"]
    parts, small = stratified(train.labels, shares, seed)
    needed = len(missing) + 1
    if not parts[0]:
        raise ValueError(
            f"{name}: too few images to split off {' and '.join(missing)}: a class needs at least {needed}"
        )
    for split, rows in zip([*missing, "train"], parts, strict=True):
        sets[split] = subset(train, rows)
    taken = " and ".join(f"{len(sets[split]):,} as {split}" for split in missing)
    log(f"{name}: split off from the training images by seed {seed}: {taken}")
    if small:
        shown = ", ".join(repr(classes[label]) for label in small[:10]) + (", ..." if len(small) > 10 else "")
        log(f"{name}: kept in train whole, with fewer than {needed} images: {shown}")


def _subset(images: ImageSet, rows: list[int]) -> ImageSet:
    assert isinstance(images, FileImages)
    return FileImages(images.root, [images.labels[row] for row in rows], [images.files[row] for row in rows])


def _find(path: Path) -> dict[str, dict[str, list[str]]]:
    """Every split's classes and their files, relative to ``path``; a flat folder is all train."""
    found: dict[str, dict[str, list[str]]] = {"train": {}, "val": {}, "test": {}}
    splits: dict[str, str] = {}
    for folder in subfolders(path):
        split = SPLITS.get(folder.lower())
        if split in splits:
            raise ValueError(f"{path}: {splits[split]!r} and {folder!r} are the same split: keep one of them")
        if split:
            splits[split] = folder
    if splits and "train" not in splits:
        raise ValueError(f"{path}: has {' and '.join(map(repr, splits.values()))} but no folder 'train'")
    for split, folder in (splits or {"train": "."}).items():
        for label in subfolders(path / folder):
            place = Path(folder) / label
            found[split][label] = [(place / name).as_posix() for name in visible_pictures(path / place)]
    if not found["train"]:
        where = path / splits.get("train", ".")
        raise ValueError(f"{where}: no class folders; expected {where / 'class' / 'image.jpg'}")
    return found


def subfolders(path: Path) -> list[str]:
    """The names of the folders in a folder, in their natural order, without hidden ones."""
    with os.scandir(path) as entries:
        return sorted((entry.name for entry in entries if entry.is_dir() and _visible(entry.name)), key=natural)


def visible_pictures(folder: Path) -> list[str]:
    """The picture files below a folder, paths relative to it in their natural order, without hidden ones."""
    names = []
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if _visible(name)]
        names += [
            (Path(where) / name).relative_to(folder).as_posix()
            for name in files
            if _visible(name) and os.path.splitext(name)[1].lower() in EXTENSIONS
        ]
    return sorted(names, key=natural)


def _visible(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """A sort key that puts 2 before 10 and ignores case."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(0, int(part), "") if part.isascii() and part.isdigit() else (1, 0, part) for part in parts], name
