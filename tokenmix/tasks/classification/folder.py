"""Image folders: ``path/train/class/x.jpg`` with ``val`` and ``test`` beside, ``path/class/x.jpg``, or with a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenmix.data.dataset import Pictures, Probe, Skipped, printable, unreadable
from tokenmix.data.depth import Depth, depth_of, told_depths
from tokenmix.data.inventory import OTHER, Inventory, summary, take_inventory
from tokenmix.data.likeness import Look, look_of, told_alike
from tokenmix.data.memory import WORTH, checked
from tokenmix.data.natural import natural, same
from tokenmix.data.random_numbers import stratified
from tokenmix.data.split_words import NAMES, split_in, split_of
from tokenmix.tasks.classification.images import ClassData, FileImages, ImageSet
from tokenmix.tasks.classification.label_tables import Labels, read_label_tables
from tokenmix_runtime.images import EXTENSIONS
from tokenmix_runtime.terminal import say

VAL_SHARE = 0.15
TEST_SHARE = 0.15
SPLITS = ("train", "val", "test")


@dataclass
class ClassFolders:
    """The pictures of each split by their class, and what is not read.

    Attributes:
        splits: Split to class to files, relative to the folder; a folder without splits is all ``train``.
        unlabelled: Pictures that lie outside of class folders.
        unused: By the reason, files that are not read.
        whole: Whether the folder has no splits of its own.
        notes: What was decided.
    """

    splits: dict[str, dict[str, list[str]]] = field(default_factory=lambda: {split: {} for split in SPLITS})
    unlabelled: list[str] = field(default_factory=list)
    unused: dict[str, list[str]] = field(default_factory=dict)
    whole: bool = True
    notes: list[str] = field(default_factory=list)

    def rows(self) -> list[tuple[str, str, str]]:
        """(split, class, file) of every picture."""
        return [
            (split, label, name)
            for split, classes in self.splits.items()
            for label, names in classes.items()
            for name in names
        ]


def read_class_folders(root: Path, *, judged: bool = False) -> ClassFolders:
    """Recognise how a folder is laid out: by where its pictures lie, or by a table of labels beside them.

    A folder whose name is a split's is one if there are folders with pictures in it; else it is a class like those
    beside it. Tables are looked at where folders do not tell at least two classes.

    Args:
        root: The folder.
        judged: The pictures are only judged: they may have no classes.

    Raises:
        ValueError: There are two readings, or none; the message shows what was found.
    """
    inventory = take_inventory(root)
    wrong: ValueError | None = None
    found = ClassFolders()
    try:
        found = _by_folders(inventory, judged=judged)
    except ValueError as error:
        wrong = error
    reason = "outside of the class folders: not used"
    labels = None
    if len({label for _, label, _ in found.rows()}) < 2:
        try:
            labels = read_label_tables(inventory)
        except ValueError as error:
            if wrong or not judged:
                raise
            found.notes.append(f"{error}; the table is not used")
    if labels is not None:
        found, wrong, reason = _by_table(labels), None, "without a class in the table: not used"
        inventory.use(labels.files)
    if wrong is not None:
        raise wrong
    inventory.use(name for _, _, name in found.rows())
    found.unlabelled = [name for name in inventory.pictures if name not in inventory.used]
    found.unused |= inventory.unused(reason)
    return found


def _by_table(labels: Labels) -> ClassFolders:
    found = ClassFolders(unused=labels.unused, notes=labels.notes)
    for picture, (split, label) in labels.rows.items():
        found.splits[split or "train"].setdefault(label, []).append(picture)
    found.whole = not any(found.splits[split] for split in ("val", "test"))
    return found


def _by_folders(inventory: Inventory, *, judged: bool) -> ClassFolders:
    root, base = inventory.root, _unwrapped(inventory, "")
    tops = _children(inventory, base)
    named = {name: split_of(name) for name in tops if split_of(name)}
    spoken = {name: split_in(name) for name in tops}
    if all(spoken.values()) and len(set(spoken.values())) > 1:  # ``train_images`` and ``test_images``
        named = spoken
    nested = {name: split for name, split in named.items() if _children(inventory, f"{base}{name}/")}
    beside = [name for name in tops if name not in named]
    found = ClassFolders()
    if nested:
        _check_splits(root, nested, beside, len(named))
        found.whole = False
        for name, split in nested.items():
            inner = _unwrapped(inventory, f"{base}{name}/", split)
            _read_classes(inventory, inner, found.splits[split])
    elif named and not beside and judged:
        pass  # pictures without classes
    elif named and not beside:
        folders = " and ".join(map(repr, named))
        raise ValueError(
            f"{root}: {folders} hold pictures, but no folder of a class. If these are parts of the data set, put the "
            f"pictures of each class into a folder of its own inside; if they are classes, rename them: {NAMES} are "
            "taken for parts"
        )
    elif rows := _splits_of_classes(inventory, base, tops):
        found.whole = False
        for label, split, names in rows:
            found.splits[split].setdefault(label, []).extend(names)
    else:
        _read_classes(inventory, base, found.splits["train"])
    return found


def _splits_of_classes(inventory: Inventory, base: str, labels: list[str]) -> list[tuple[str, str, list[str]]]:
    """(class, split, pictures), where the parts lie in the classes' folders: ``cat/train`` and ``cat/test``."""
    found = []
    for label in labels:
        parts = {f"{base}{label}/{name}": split_of(name) for name in _children(inventory, f"{base}{label}/")}
        rows = [(label, split, inventory.below(folder)) for folder, split in parts.items()]
        if not all(parts.values()) or sum(len(names) for *_, names in rows) < len(inventory.below(f"{base}{label}")):
            return []
        found += rows
    return found if len({split for _, split, _ in found}) > 1 else []


def _children(inventory: Inventory, prefix: str) -> list[str]:
    """The folders right below a place in which there are pictures, in their natural order."""
    depth = prefix.count("/")
    parts = (name.split("/") for name in inventory.pictures if name.startswith(prefix))
    return sorted({part[depth] for part in parts if len(part) > depth + 1}, key=natural)


def _unwrapped(inventory: Inventory, prefix: str, split: str = "") -> str:
    """The place itself, or the one folder in it, where that is all there is: archives are often unpacked so."""
    while True:
        inner = _children(inventory, prefix)
        direct = any(name.startswith(prefix) and "/" not in name[len(prefix) :] for name in inventory.pictures)
        if direct or len(inner) != 1 or not _children(inventory, f"{prefix}{inner[0]}/"):
            return prefix
        if split and split_of(inner[0]) not in ("", split):
            return prefix
        if not split and split_of(inner[0]):
            return prefix
        prefix = f"{prefix}{inner[0]}/"


def _check_splits(root: Path, nested: dict[str, str], beside: list[str], named: int) -> None:
    """Raise if the folders that look like splits can be read in two ways."""
    twice = [split for split in SPLITS if list(nested.values()).count(split) > 1]
    if twice:
        names = " and ".join(repr(name) for name, split in nested.items() if split == twice[0])
        raise ValueError(f"{root}: {names} are the same split: keep one of them")
    if beside and named == 1:
        (name,) = nested
        others = ", ".join(map(repr, beside[:5]))
        raise ValueError(
            f"{root}: {name!r} can be a part of the data set, whose classes are the folders in it, or a class beside "
            f"{others}. If it is a part, move the others away; if it is a class, rename it: {NAMES} are taken for parts"
        )


def _read_classes(inventory: Inventory, prefix: str, classes: dict[str, list[str]]) -> None:
    """Fill in the pictures of each folder right below a place, also of one that has none."""
    inside = [name[len(prefix) :] for name in inventory.folders if name.startswith(prefix)]
    for label in sorted((name for name in inside if "/" not in name), key=natural):
        classes[label] = inventory.below(f"{prefix}{label}")


def load_folder(
    path: Path, *, seed: int = 0, image_size: int = 224, check: bool | Probe = True, log: Callable[[str], None] = say
) -> ClassData:
    """The pictures below ``path``, one folder per class, nested as deep as they like.

    Where ``val`` or ``test`` is missing, 15 % of each class's training pictures become it, chosen by ``seed`` and their
    names; a class with too few pictures to share stays in the training set. What is not used is named.

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
    found = read_class_folders(path)
    tell(found, path, log)
    if not found.whole and not found.splits["train"]:
        there = " and ".join(split for split in SPLITS if found.splits[split])
        raise ValueError(f"{path}: has {there}, but no folder 'train' with pictures to learn from")
    rows = found.rows()
    if not rows:
        raise ValueError(_nothing(path, found))
    failed: dict[int, Skipped] = {}
    looks: dict[str, Look] = {}
    depths: dict[str, Depth] = {}
    if check:
        images = FileImages(path, [0] * len(rows), [name for _, _, name in rows])

        def look(images: Pictures, index: int) -> None:
            picture, name = images.load_reduced(index, 1), images.names[index]
            looks[name] = look_of(picture)
            if depth := depth_of(picture):
                depths[name] = depth

        if check is True and len(rows) >= WORTH:  # they are remembered, so that most times none is decoded
            failed = checked(images, images.root, images.files, log)
        else:
            failed = unreadable(images, log, look if check is True else check)
        if len(failed) == len(rows):
            first = failed[0]
            raise ValueError(
                f"{path}: none of its {len(rows)} images can be read (first: {first.name}: {first.reason})"
            )
    kept = [row for index, row in enumerate(rows) if index not in failed]
    learned = {same(label): label for split, label, _ in kept if split == "train"}
    for split, label, _ in kept:
        if same(label) not in learned:
            raise ValueError(f"{path}: class {label!r} is in {split} but has no readable image in train")
    left_out = sorted((label for label in found.splits["train"] if same(label) not in learned), key=natural)
    for label in left_out:
        log(f"class {label!r} has no readable image: left out")
    classes = sorted(learned.values(), key=natural)
    if len(classes) < 2:
        raise ValueError(
            f"{path}: only one class, {classes[0]!r}; put the images of each class into a folder of its own, or name "
            "pictures and classes in a table (labels.csv)"
        )
    numbers = {same(label): number for number, label in enumerate(classes)}
    sets: dict[str, ImageSet] = {}
    for split in SPLITS:
        members = [(numbers[same(label)], name) for at, label, name in kept if at == split]
        sets[split] = FileImages(path, [label for label, _ in members], [name for _, name in members])
    ours = split_off(sets, FileImages.subset, classes, seed=seed, log=log, name=str(path), by_name=True)
    warnings = told_depths(depths) + told_alike({split: sets[split].names for split in SPLITS}, looks)
    for warning in warnings:
        log(f"warning: {path}: {warning}")
    return ClassData(
        path.resolve().name,
        sets["train"],
        sets["val"],
        sets["test"],
        image_size,
        [printable(label) for label in classes],
        skipped=[failed[index] for index in sorted(failed)],
        left_out=[printable(label) for label in left_out],
        unused=found.unused,
        split_off=ours,
        warnings=warnings,
    )


def tell(found: ClassFolders, path: Path, log: Callable[[str], None]) -> None:
    """A line for what was decided, and per reason for files that are not used."""
    for note in found.notes:
        log(f"{path}: {note}")
    for reason, names in found.unused.items():
        log(f"{path}: {len(names):,} x {reason}: {summary(names)}")


def _nothing(path: Path, found: ClassFolders) -> str:
    """Why there is no picture with a class."""
    if found.unlabelled:
        return (
            f"{path}: {len(found.unlabelled):,} pictures, but none in a folder of its class; expected "
            f"{path / 'class' / 'image.jpg'}, or a table of pictures and classes, such as {path / 'labels.csv'}"
        )
    for reason, names in found.unused.items():
        if reason != OTHER:
            return f"{path}: no images that can be used; {len(names):,} x {reason}: {summary(names)}"
    if not found.splits["train"]:
        return f"{path}: no class folders; expected {path / 'class' / 'image.jpg'}"
    return f"{path}: no images in the class folders (extensions: {' '.join(EXTENSIONS)})"


def split_off(
    sets: dict[str, ImageSet],
    subset: Callable[[Any, list[int]], ImageSet],
    classes: list[str],
    *,
    seed: int,
    log: Callable[[str], None],
    name: str,
    share: float | None = None,
    by_name: bool = False,
) -> bool:
    """Fill the empty ones of ``sets["val"]`` and ``sets["test"]`` from ``sets["train"]``, stratified; whether any was.

    Args:
        sets: Changed in place.
        subset: Makes the set of some rows of a set.
        classes: The names, for the log.
        seed: Decides which pictures are taken.
        log: Hears of the classes that stay whole.
        name: The data set, for the message.
        share: The part of each class to take; the default is VAL_SHARE and TEST_SHARE.
        by_name: Choose by the pictures' names, so that more of them change little; else by their places.

    Raises:
        ValueError: Every class is too small to be split.
    """
    missing = [split for split in ("val", "test") if not len(sets[split])]
    if not missing:
        return False
    shares = [share or {"val": VAL_SHARE, "test": TEST_SHARE}[split] for split in missing]
    train = sets["train"]
    parts, small = stratified(train.labels, shares, seed, train.names if by_name else None)
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
    return True
