"""Folders of pictures for super-resolution, as people have them: large pictures, and the small ones that go with them.

Known are

* DIV2K's, Flickr2K's and DF2K's: ``DIV2K_train_HR/0001.png`` with ``DIV2K_train_LR_bicubic/X2/0001x2.png``, and
  ``_valid_`` beside; ``Flickr2K_HR`` with ``Flickr2K_LR_bicubic/X2``; several such sets in one folder;
* pairs: a folder of large pictures (``high``, ``HR``, ``GT``, ``target``, ...) beside one of small ones (``low``,
  ``LR``, ``LQ``, ``input``, ``LR_bicubic/X2``, ...);
* the benchmarks of SelfExSR: ``image_SRF_2/img_001_SRF_2_HR.png`` with ``..._LR.png``;
* a folder of pictures, nested as deep as they like, from which the small ones are made;
* the last three in ``train``, ``val`` and ``test``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tokenmix.names import unknown
from tokenmix.tasks.classification.folder import SPLITS, subfolders, visible_pictures

HIGH = ("high", "hr", "gt", "hq", "target", "targets", "original", "ground_truth")
LOW = ("low", "lr", "lq", "input", "inputs", "lr_bicubic", "lrbicx", "bicubic")


@dataclass(frozen=True)
class Pair:
    """A large picture, the small one if it is given, and what they are called."""

    name: str
    high: Path
    low: Path | None = None


def find_pairs(path: Path, scale: int) -> dict[str, list[Pair]]:
    """The pictures of a folder by split, ``train``, ``val`` and ``test``; a folder without splits is all ``train``.

    Small pictures of another scale are not taken: then they are made.

    Args:
        path: The folder.
        scale: How many times larger the large ones are.

    Raises:
        ValueError: There is no such folder or no picture in it, or a large picture has no small one where others have.
    """
    if not path.is_dir():
        raise ValueError(f"{path} is no folder of pictures")
    found = _challenge(path, scale)
    if not found:
        splits = {SPLITS[name.lower()]: name for name in subfolders(path) if name.lower() in SPLITS}
        if splits and "train" not in splits and len(splits) < len(subfolders(path)):
            splits = {}
        found = {split: _pairs(path / name, scale, path) for split, name in splits.items()}
        found = found or {"train": _pairs(path, scale, path)}
    found = {split: pairs for split, pairs in found.items() if pairs}
    if not found:
        raise ValueError(f"{path}: no pictures in it")
    return found


def _challenge(path: Path, scale: int) -> dict[str, list[Pair]]:
    """What the folders of a challenge hold, here or one folder deeper."""
    found: dict[str, list[Pair]] = {}
    for parent in (path, *(path / name for name in subfolders(path))):
        for name in subfolders(parent):
            match = re.fullmatch(r"(?P<set>.+?)(?:_(?P<split>train|valid|val|test))?_HR", name, re.IGNORECASE)
            if match is None:
                continue
            split = SPLITS[(match["split"] or "train").lower()]
            stem = name[: -len("_HR")]
            candidates = [
                parent / f"{stem}_LR_bicubic" / f"X{scale}",
                parent / f"{stem}_LR_bicubic_X{scale}" / f"{stem}_LR_bicubic" / f"X{scale}",
                parent / f"{stem}_LR_bicubic_X{scale}",
            ]
            low = next((one for one in candidates if one.is_dir()), None)
            found.setdefault(split, []).extend(_matched(parent / name, low, scale, path))
    return found


def _pairs(path: Path, scale: int, root: Path) -> list[Pair]:
    """The pictures of one split."""
    names = {name.lower(): name for name in subfolders(path)}
    combined = sorted(key for key in names if re.fullmatch(r"image_srf_\d+", key))
    if combined:
        own = f"image_srf_{scale}"
        return _combined(path / names[own if own in combined else combined[0]], own in combined)
    high = next((path / names[key] for key in HIGH if key in names), None)
    if high is None:
        return _matched(path, None, scale, root)
    low = next((path / names[key] for key in LOW if key in names), None)
    if low is not None:
        sizes = {name.lower(): name for name in subfolders(low)}
        size = next((sizes[key] for key in (f"x{scale}", str(scale), f"{scale}x") if key in sizes), None)
        if size is not None:
            low = low / size
        elif any(re.fullmatch(r"x?\d+x?", key) for key in sizes):
            low = None  # only of other scales
    sizes = {name.lower(): name for name in subfolders(high)}
    return _matched(high / sizes[f"x{scale}"] if f"x{scale}" in sizes else high, low, scale, root)


def _combined(path: Path, given: bool) -> list[Pair]:
    """Large and small pictures in one folder, told apart by the end of their names; ``given``: of the right scale."""
    files = {Path(name).stem: path / name for name in visible_pictures(path)}
    pairs = []
    for stem, high in files.items():
        if stem.upper().endswith("HR"):
            name = re.sub(r"_SRF_\d+_HR$", "", stem, flags=re.IGNORECASE)
            pairs.append(Pair(name, high, files.get(stem[:-2] + "LR") if given else None))
    return _checked(pairs, path, given)


def _matched(high: Path, low: Path | None, scale: int, root: Path) -> list[Pair]:
    """The large pictures of a folder with the small ones of the same name, with or without ``x2`` at its end."""
    small = {} if low is None else {_key(name, scale): low / name for name in visible_pictures(low)}
    pairs = []
    for name in visible_pictures(high):
        file = high / name
        pairs.append(Pair(file.relative_to(root).as_posix(), file, small.get(_key(name, scale))))
    return _checked(pairs, low or high, bool(small))


def _key(name: str, scale: int) -> str:
    """What large and small pictures have in common: the path without ending, and without the scale at its end."""
    stem = Path(name).with_suffix("").as_posix()
    return re.sub(rf"[_-]?(?:x{scale}|{scale}x)[a-z]?$|[_-](?:HR|LR|GT|LQ)$", "", stem, flags=re.IGNORECASE)


def _checked(pairs: list[Pair], where: Path, complete: bool) -> list[Pair]:
    """The pairs, each of which must have a small picture if they are to be ``complete``."""
    alone = [pair for pair in pairs if pair.low is None]
    if alone and complete:
        raise ValueError(
            f"{where}: {len(alone)} of {len(pairs)} large pictures have no small one of the same name, the first of "
            f"them {alone[0].name}: add them, or take the folder of small pictures away, and they are made"
        )
    return pairs


def of_split(found: dict[str, list[Pair]], split: str) -> list[Pair]:
    """The pictures of one split.

    Raises:
        ValueError: The folder has no such split.
    """
    if split not in found:
        raise ValueError(unknown("split", split, found))
    return found[split]
