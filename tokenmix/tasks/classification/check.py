"""What is in a data set, and what about it would spoil training or judging, before anything is trained."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tokenmix.data.dataset import Pictures, unreadable
from tokenmix.data.depth import DARK, Depth, depth_of
from tokenmix.data.inventory import summary
from tokenmix.data.likeness import Look, look_of, told_alike
from tokenmix.tasks.classification.images import ClassData, ImageSet
from tokenmix.tasks.classification.sources import load_pictures
from tokenmix.text_tables import table
from tokenmix_runtime.images import DECLARED, Stored, decode, stored_as
from tokenmix_runtime.terminal import say

SPLITS = ("train", "val", "test")
TINY_PX = 32  # a shorter side below this is named
TOLERATED = 0.01  # the share of a split that may be in another before its judgement is called wrong
UNBALANCED = 10  # the largest class over the smallest, from which on it is said
_DEPTHS = {
    "dark": f"images of 16 bits or more have no level above {DARK} of 255 when scaled, as 12-bit cameras write them: "
    "stretch them to the whole range before, all by the same factor",
    "scaled": "images of 32 bits or floats are scaled by what range each of them has: save them in 8 or 16 bits, all "
    "by the same scale",
    "pages": "files hold several pictures, of which the first is read: save the others as files of their own",
}


class _Facts(NamedTuple):
    width: int
    height: int
    stored: Stored
    depth: Depth | None
    pixels: bytes  # a hash of the size and the decoded RGB values
    look: Look


class _Place(NamedTuple):
    split: str
    name: str
    label: int


def check_data(
    spec: str | os.PathLike[str], *, seed: int = 0, download: bool = False, log: Callable[[str], None] = say
) -> dict[str, Any]:
    """Decode every picture of a data set and report what is there and what is wrong.

    Two pictures are duplicates if their decoded RGB values are the same, whatever their files are.

    Args:
        spec: What `load_pictures` takes.
        seed: Of the split of a set that has none; the training run's.
        download: Allow a torchvision data set to be downloaded.
        log: Receives progress and what `load_pictures` says.

    Returns:
        Plain values for JSON: ``data``, ``classes``; per split ``images`` and ``per_class``; ``sizes`` in pixels,
        ``formats``, ``modes``, ``broken``, ``duplicates`` (all groups), ``leaks`` (pictures of one split that are also
        in an earlier one), ``alike`` (what is said of pictures that look nearly like one of an earlier split),
        ``imbalance`` of the training images (``effective`` is the number of equally large classes with the same
        entropy), ``depth`` (names of pictures that are odd in not being of 8 bits, or several in a file), and
        ``findings``: ``level`` is ``"error"`` for what makes training or its numbers wrong, else ``"warning"``; with
        ``kind`` and ``message``.

    Raises:
        ValueError: The data set cannot be loaded at all.
    """
    facts: dict[str, _Facts] = {}

    def look(images: Pictures, index: int) -> None:
        facts[images.names[index]] = _look(images, index)

    data = load_pictures(spec, seed=seed, download=download, log=log, check=look)
    broken = [{"name": skipped.name, "reason": skipped.reason} for skipped in data.skipped]
    places: list[_Place] = []
    fatal = 0
    for split in SPLITS:
        images: ImageSet = getattr(data, split)
        unseen = [index for index in range(len(images)) if images.names[index] not in facts]
        if unseen:  # a set that was not looked at while it was loaded, and whose broken pictures stay in it
            failed = unreadable(images, log, look)
            fatal += len(failed)
            broken += [{"name": skipped.name, "reason": skipped.reason} for skipped in failed.values()]
        places += [
            _Place(split, name, label) for name, label in zip(images.names, images.labels, strict=True) if name in facts
        ]
    if not places:
        raise ValueError(f"{spec}: none of its images can be read")
    groups = _groups(places, facts)
    report: dict[str, Any] = {
        "data": data.name,
        "classes": data.classes,
        "splits": {split: _split(getattr(data, split), len(data.classes)) for split in SPLITS},
        "sizes": _sizes(places, facts),
        "formats": dict(Counter(facts[place.name].stored.format for place in places).most_common()),
        "modes": dict(Counter(facts[place.name].stored.mode for place in places).most_common()),
        "broken": broken,
        "duplicates": [[place._asdict() | {"label": data.classes[place.label]} for place in group] for group in groups],
        "leaks": _leaks(groups),
        "alike": _alike(data, facts, groups),
        "imbalance": _imbalance(data),
        "depth": _depth(places, facts),
    }
    return report | {"findings": _findings(data, report, fatal)}


def _look(images: Pictures, index: int) -> _Facts:
    content = images.encoded(index)
    if content is None:
        picture, stored = images.load(index), Stored("array", "RGB", False)
    else:
        picture = decode(content, images.names[index])
        stored = stored_as(content)
    pixels = hashlib.blake2b(f"{picture.width} {picture.height} ".encode(), digest_size=16)
    pixels.update(picture.tobytes())
    return _Facts(picture.width, picture.height, stored, depth_of(picture), pixels.digest(), look_of(picture))


def _split(images: ImageSet, classes: int) -> dict[str, Any]:
    return {"images": len(images), "per_class": np.bincount(images.labels, minlength=classes).tolist()}


def _sizes(places: Sequence[_Place], facts: dict[str, _Facts]) -> dict[str, Any]:
    sides = np.array([facts[place.name][:2] for place in places])
    tiny = [place.name for place, side in zip(places, sides.min(1).tolist(), strict=True) if side < TINY_PX]
    summary = {
        axis: {"min": int(values.min()), "median": float(np.median(values)), "max": int(values.max())}
        for axis, values in zip(("width", "height"), sides.T, strict=True)
    }
    return {**summary, "tiny": tiny}


def _groups(places: Sequence[_Place], facts: dict[str, _Facts]) -> list[list[_Place]]:
    """Pictures with the same pixels, where there is more than one."""
    by_pixels: defaultdict[bytes, list[_Place]] = defaultdict(list)
    for place in places:
        by_pixels[facts[place.name].pixels].append(place)
    return [group for group in by_pixels.values() if len(group) > 1]


def _leaks(groups: Sequence[Sequence[_Place]]) -> list[dict[str, Any]]:
    """For each pair of splits, the pictures of the later one that are also in the earlier one."""
    leaks = []
    for at, later in enumerate(SPLITS):
        for earlier in SPLITS[:at]:
            pairs = []
            for group in groups:
                first = next((place.name for place in group if place.split == earlier), None)
                if first is not None:
                    pairs += [[place.name, first] for place in group if place.split == later]
            if pairs:
                leaks.append({"of": later, "in": earlier, "images": len(pairs), "pairs": pairs})
    return leaks


def _alike(data: ClassData, facts: dict[str, _Facts], groups: Sequence[Sequence[_Place]]) -> list[str]:
    """What is to be said about pictures that look nearly like one of an earlier split, but for copies."""
    names = {split: getattr(data, split).names for split in SPLITS}
    copies = {place.name for group in groups for place in group}
    return told_alike(names, {name: found.look for name, found in facts.items()}, copies)


def _depth(places: Sequence[_Place], facts: dict[str, _Facts]) -> dict[str, list[str]]:
    """Names of pictures that become 8 bits in a way that may not be meant, and of files with several pictures."""
    found = {place.name: facts[place.name] for place in places}
    return {
        "dark": [name for name, one in found.items() if one.depth and one.depth.dark],
        "scaled": [name for name, one in found.items() if one.depth and one.depth.scale != DECLARED],
        "pages": [name for name, one in found.items() if one.stored.more],
    }


def _imbalance(data: ClassData) -> dict[str, Any]:
    counts = np.bincount(data.train.labels, minlength=len(data.classes))
    shares = counts[counts > 0] / counts.sum()
    order = np.argsort(counts, kind="stable").tolist()
    return {
        "largest": [data.classes[order[-1]], int(counts[order[-1]])],
        "smallest": [[data.classes[label], int(counts[label])] for label in order[:5]],
        "ratio": float(counts.max() / counts[counts > 0].min()),
        "effective": float(np.exp(-(shares * np.log(shares)).sum())),
    }


def _findings(data: ClassData, report: dict[str, Any], fatal: int) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []

    def add(wrong: bool, kind: str, message: str) -> None:
        found.append({"level": "error" if wrong else "warning", "kind": kind, "message": message})

    for leak in report["leaks"]:
        count, total = leak["images"], report["splits"][leak["of"]]["images"]
        share = count / total
        pairs = _some([f"{a} = {b}" for a, b in leak["pairs"]])
        add(
            share > TOLERATED,
            "leak",
            f"{count:,} of {total:,} {leak['of']} images ({100 * share:.1f} %) are also in {leak['in']}: {pairs}",
        )
    for message in report["alike"]:
        add(False, "alike", message)
    for split in SPLITS:
        counts = report["splits"][split]["per_class"]
        absent = [name for name, count in zip(data.classes, counts, strict=True) if not count]
        if split == "train":
            absent += data.left_out
        if absent:
            add(split == "train", "missing class", f"{len(absent):,} classes without {split} images: {_some(absent)}")
    for skipped in data.skipped:
        if skipped.damaged:
            add(True, "damaged shard", f"{skipped.name}: {skipped.reason}")
    for reason, names in data.unused.items():
        add(False, "not used", f"{len(names):,} x {reason}: {summary(names)}")
    broken = [f"{one['name']} ({one['reason']})" for one in report["broken"]]
    if broken:
        add(fatal > 0, "broken", f"{len(broken):,} images cannot be used: {_some(broken)}")
    conflicts = [group for group in report["duplicates"] if len({place["label"] for place in group}) > 1]
    if conflicts:
        names = [" = ".join(f"{place['name']} ({place['label']})" for place in group) for group in conflicts]
        add(False, "conflicting labels", f"{len(conflicts):,} pictures have several labels: {_some(names)}")
    copies = [group for group in report["duplicates"] if len({place["split"] for place in group}) < len(group)]
    if copies:
        names = [" = ".join(place["name"] for place in group) for group in copies]
        add(False, "duplicates", f"{len(copies):,} pictures are there more than once in a split: {_some(names)}")
    imbalance = report["imbalance"]
    if imbalance["ratio"] >= UNBALANCED:
        rarest = _some([f"{name} {count:,}" for name, count in imbalance["smallest"] if count])
        add(False, "imbalance", f"the largest class has {imbalance['ratio']:.0f} times the smallest's images: {rarest}")
    for kind, message in _DEPTHS.items():
        if names := report["depth"][kind]:
            add(False, kind, f"{len(names):,} {message}: {_some(names)}")
    if report["sizes"]["tiny"]:
        tiny = report["sizes"]["tiny"]
        add(False, "tiny", f"{len(tiny):,} images have a side below {TINY_PX} pixels: {_some(tiny)}")
    return found


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f", and {len(names) - most:,} more" if len(names) > most else "")


def report_lines(report: Mapping[str, Any]) -> list[str]:
    """What is there, in words: sizes of the splits, of the pictures, formats, and the balance of the classes."""
    rows = []
    for split, numbers in report["splits"].items():
        counts = np.array(numbers["per_class"])
        per_class = f"{counts.min():,}-{counts.max():,}, median {np.median(counts):,.0f}"
        rows.append([split, f"{numbers['images']:,}", f"{np.count_nonzero(counts):,}", per_class])
    width, height = report["sizes"]["width"], report["sizes"]["height"]
    balance = report["imbalance"]
    (largest, most), (smallest, fewest) = balance["largest"], balance["smallest"][0]
    return [
        "\n" + table(["split", "images", "classes", "images per class"], rows) + "\n",
        f"pixels: {width['min']} to {width['max']} wide (median {width['median']:.0f}), "
        f"{height['min']} to {height['max']} high (median {height['median']:.0f})",
        *(
            f"{what}: " + ", ".join(f"{name} {count:,}" for name, count in report[what].items())
            for what in ("formats", "modes")
        ),
        f"balance: largest class {largest!r} ({most:,} training images), smallest {smallest!r} ({fewest:,}); "
        f"as even as {balance['effective']:.1f} of {len(report['classes']):,} classes",
    ]
