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
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tokenmix.data.inventory import Inventory, summary, take_inventory
from tokenmix.data.split_words import split_of

HIGH = ("high", "hr", "gt", "hq", "target", "targets", "original", "ground_truth")
_MARK = r"[_-](?:HR|LR|GT|LQ)$"  # at the end of a name
LOW = ("low", "lr", "lq", "input", "inputs", "lr_bicubic", "lrbicx", "bicubic")


@dataclass(frozen=True)
class Pair:
    """A large picture, the small one if it is given, and what they are called."""

    name: str
    high: Path
    low: Path | None = None


def find_pairs(path: Path, scale: int, inventory: Inventory | None = None) -> dict[str, list[Pair]]:
    """The pictures of a folder by split, ``train``, ``val`` and ``test``; a folder without splits is all ``train``.

    Small pictures of another scale are not taken: then they are made.

    Args:
        path: The folder.
        scale: How many times larger the large ones are.
        inventory: What the folder holds; None: it is looked up.

    Raises:
        ValueError: There is no such folder or no picture in it, or a large picture has no small one where others have.
    """
    inventory = take_inventory(path) if inventory is None else inventory
    found = _challenge(inventory, scale)
    if not found:
        folders = _folders(inventory, ".").values()
        splits: dict[str, str] = {}
        for name in folders:
            split = split_of(name)
            if split in splits:
                raise ValueError(f"{path}: {splits[split]} and {name} are both its part {split!r}: put them into one")
            if split:
                splits[split] = name
        if "train" not in splits and len(splits) < len(folders):
            splits = {}  # a word among others
        found = {split: _pairs(inventory, name, scale) for split, name in splits.items()}
        found = found or {"train": _pairs(inventory, ".", scale)}
    found = {split: found[split] for split in ("train", "val", "test") if found.get(split)}
    if not found:
        raise ValueError(f"{path}: no pictures in it")
    return found


def _folders(inventory: Inventory, where: str) -> dict[str, str]:
    """The folders with pictures right below a folder: the names in lower case, and the paths from the root."""
    prefix = "" if where == "." else f"{where}/"
    names = [name[len(prefix) :] for name in inventory.below(where)]
    return {part.lower(): f"{prefix}{part}" for name in names if "/" in name for part in [name.split("/")[0]]}


def _challenge(inventory: Inventory, scale: int) -> dict[str, list[Pair]]:
    """What the folders of a challenge hold, here or one folder deeper."""
    found: dict[str, list[Pair]] = {}
    for parent in (".", *_folders(inventory, ".").values()):
        folders = _folders(inventory, parent)
        for lower, high in folders.items():
            match = re.fullmatch(r"(?P<set>.+?)(?:_(?P<split>train|valid|val|test))?_hr", lower)
            if match is None:
                continue
            stem, size = lower[: -len("_hr")], f"x{scale}"
            places = [(f"{stem}_lr_bicubic", size), (f"{stem}_lr_bicubic_{size}", f"{stem}_lr_bicubic", size)]
            found_low = [low for parts in places if (low := _inside(inventory, parent, parts)) is not None]
            pairs = _matched(inventory, high, found_low[0] if found_low else None, scale)
            found.setdefault(split_of(match["split"] or "train"), []).extend(pairs)
    return found


def _inside(inventory: Inventory, where: str, parts: Iterable[str]) -> str | None:
    """The folder at the end of a path of names in lower case, or None."""
    for part in parts:
        folders = _folders(inventory, where)
        if part not in folders:
            return None
        where = folders[part]
    return where


def _pairs(inventory: Inventory, where: str, scale: int) -> list[Pair]:
    """The pictures of one split."""
    folders = _folders(inventory, where)
    combined = sorted(name for name in folders if re.fullmatch(r"image_srf_\d+", name))
    if combined:
        own = f"image_srf_{scale}"
        return _combined(inventory, folders[own if own in combined else combined[0]], own in combined)
    high = next((folders[name] for name in HIGH if name in folders), None)
    if high is None:
        return _matched(inventory, where, None, scale)
    low = next((folders[name] for name in LOW if name in folders), None)
    return _matched(inventory, _sized(inventory, high, scale) or high, low and _sized(inventory, low, scale), scale)


def _sized(inventory: Inventory, where: str, scale: int) -> str | None:
    """The folder itself, or the one in it for the scale; None if there are only folders for other scales."""
    folders = _folders(inventory, where)
    own = next((folders[name] for name in (f"x{scale}", str(scale), f"{scale}x") if name in folders), None)
    return own or (None if any(re.fullmatch(r"x?\d+x?", name) for name in folders) else where)


def _combined(inventory: Inventory, where: str, given: bool) -> list[Pair]:
    """Large and small pictures in one folder, told apart by the end of their names; ``given``: of the right scale."""
    files = {Path(name).stem: inventory.root / name for name in inventory.below(where)}
    pairs = []
    for stem, high in files.items():
        if stem.upper().endswith("HR"):
            name = re.sub(r"_SRF_\d+_HR$", "", stem, flags=re.IGNORECASE)
            pairs.append(Pair(name, high, files.get(stem[:-2] + "LR") if given else None))
    return _checked(inventory, pairs, where, given)


def _matched(inventory: Inventory, high: str, low: str | None, scale: int) -> list[Pair]:
    """The large pictures of a folder with the small ones of the same name, with or without ``x2`` at its end."""
    stems: dict[str, list[str]] = {}
    keys: dict[str, list[str]] = {}
    for name in () if low is None else inventory.below(low):
        stem = _stem(name, low or "")
        stems.setdefault(stem, []).append(name)
        key = re.sub(rf"[_-]?(?:x{scale}|{scale}x)[a-z]?$|{_MARK}", "", stem, flags=re.IGNORECASE)
        keys.setdefault(key, []).append(name)
    pairs = []
    for name in inventory.below(high):
        stem = _stem(name, high)
        bare = re.sub(_MARK, "", stem, flags=re.IGNORECASE)
        small = stems.get(stem) or keys.get(stem) or keys.get(bare) or []
        if len(small) > 1:
            raise ValueError(f"{inventory.root}: {small[0]} and {small[1]} could both go with {name}: rename one")
        pairs.append(Pair(name, inventory.root / name, inventory.root / small[0] if small else None))
    return _checked(inventory, pairs, low or high, bool(stems))


def _stem(name: str, folder: str) -> str:
    """The path in the folder without its ending."""
    return Path(name).relative_to(folder).with_suffix("").as_posix()


def _checked(inventory: Inventory, pairs: list[Pair], where: str, complete: bool) -> list[Pair]:
    """The pairs, each of which must have a small picture if they are to be ``complete``."""
    alone = [pair.name for pair in pairs if pair.low is None]
    if alone and complete:
        raise ValueError(
            f"{inventory.root / where}: {len(alone)} of {len(pairs)} large pictures have no small one of the same name "
            f"({summary(alone)}): add them, or take the folder of small pictures away, and they are made"
        )
    return pairs


def speaking_folders(pictures: Iterable[str]) -> str:
    """What in the paths of a folder's pictures speaks for super-resolution, in words; empty if nothing does."""
    folders = sorted({part for name in pictures for part in Path(name).parts[:-1]})
    for name in folders:
        if re.fullmatch(r".+_(HR|LR_bicubic)|image_SRF_\d+", name, re.IGNORECASE):
            return f"a folder {name}"
    lower = {name.lower(): name for name in folders}
    high, low = (next((lower[key] for key in keys if key in lower), None) for keys in (HIGH, LOW))
    return f"folders {high} and {low}" if high and low else ""
