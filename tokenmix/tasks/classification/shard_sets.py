"""Data sets of tar shards: which shards a name means, which split each belongs to, and what their classes are."""

from __future__ import annotations

import os
import re
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import numpy as np

from tokenmix.data.dataset import Skipped, name_skipped, printable
from tokenmix.data.download_cache import is_stream, limit_bytes
from tokenmix.data.natural import natural
from tokenmix.data.split_words import SPLIT_OF, split_of
from tokenmix.data.tars import Contents
from tokenmix.data.text_files import read_json, read_text
from tokenmix.tasks.classification.folder import split_off
from tokenmix.tasks.classification.images import ClassData, ImageSet
from tokenmix.tasks.classification.shards import LANES, Shard, ShardImages
from tokenmix_runtime.terminal import say

_THREADS = 8  # shards that are fetched and read at a time
_MOST_CLASSES = 1_000_000
_BRACES = re.compile(r"\{([^{}]*,[^{}]*|(\d+)\.\.(\d+))\}")
_SPLIT_WORD = re.compile(rf"(?<![a-z])({'|'.join(sorted(SPLIT_OF, key=len, reverse=True))})(?![a-z])")


def is_shard_spec(spec: str) -> bool:
    """Whether this means tar shards: ``wds:...``, a stream, a .tar, or a folder with .tar files and without classes."""
    if spec.startswith("wds:") or is_stream(spec) or spec.endswith(".tar"):
        return True
    path = Path(spec).expanduser()
    if not path.is_dir() or not _in_folder(path):
        return False
    splits = [name for name in subfolders(path) if split_of(name)]
    return len(splits) == len(subfolders(path)) and not any(subfolders(path / name) for name in splits)


def load_shards(
    spec: str, *, seed: int = 0, image_size: int = 224, check: bool = True, log: Callable[[str], None] = say
) -> ClassData:
    """The labelled pictures in tar shards, as WebDataset writes them.

    A shard belongs to the split whose name is a word of its own name (``imagenet-train-0003.tar``) or its folder's;
    if that is so of none, all are train. Missing val and test are split off as `load_folder` does. Classes are named by
    a list ``classes.txt`` or ``classes.json`` beside the shards or one folder above; else by what the shards say.

    Args:
        spec: A folder, or patterns joined by ``::``, each a path, an address or ``pipe:command``, with ``{000..127}``
            and ``{a,b}`` expanded; perhaps after ``wds:``.
        seed: Decides which pictures are split off.
        image_size: The default image size of the data set, pixels.
        check: Decode every picture first (once for a shard), so that the broken ones are skipped.
        log: Receives progress, what was skipped and what was decided.

    Raises:
        ValueError: No such shards, a stream that cannot be fetched, nothing usable in them, splits or classes that do
            not fit together.
    """
    groups = _by_split(_shards(spec), spec)
    shards = [shard for group in groups.values() for shard in group]
    found = _contents(shards, check, log)
    skipped = [
        Skipped(printable(f"{shard.name}/{name}"), reason)
        for shard, contents in zip(shards, found, strict=True)
        for name, reason in contents.skipped
    ]
    count = sum(len(contents.samples) for contents in found)
    name_skipped(skipped, count + len(skipped), log)
    for shard, contents in zip(shards, found, strict=True):
        if contents.damage:
            log(f"damaged shard {shard.source}: {contents.damage}")
            skipped.append(Skipped(shard.name, contents.damage, damaged=True))
    if not count:
        reason = f" (first: {skipped[0].name}: {skipped[0].reason})" if skipped else ""
        raise ValueError(f"{spec}: no usable image in {len(shards):,} shards{reason}")
    classes, numbers = _classes(spec, shards, found)
    sets: dict[str, ImageSet] = {}
    begin = 0
    for split, group in groups.items():
        sets[split] = _images(group, found[begin : begin + len(group)], numbers)
        begin += len(group)
    if not len(sets["train"]):
        raise ValueError(f"{spec}: no usable image for training")
    _say_limit(shards, found, log)
    split_off(sets, lambda images, rows: cast(ShardImages, images).subset(rows), classes, seed=seed, log=log, name=spec)
    return ClassData(_name(spec), sets["train"], sets["val"], sets["test"], image_size, classes, skipped=skipped)


def expand(pattern: str) -> Iterator[str]:
    """``a{0..2}`` -> ``a0 a1 a2``, ``{x,y}`` -> ``x y``, as shells do (no braces within braces); zeros are kept."""
    match = _BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    words, first, last = match.groups()
    if first is None:
        parts = words.split(",")
    else:
        padded = any(len(end) > 1 and end.startswith("0") for end in (first, last))
        width = max(len(first), len(last)) if padded else 0
        low, high = int(first), int(last)
        steps = range(low, high + 1) if low <= high else range(low, high - 1, -1)
        parts = [f"{number:0{width}d}" for number in steps]
    for part in parts:
        for rest in expand(pattern[match.end() :]):
            yield pattern[: match.start()] + part + rest


def subfolders(path: Path) -> list[str]:
    """The names of the folders in a folder, in their natural order, without hidden ones."""
    with os.scandir(path) as entries:
        return sorted((one.name for one in entries if one.is_dir() and not one.name.startswith(".")), key=natural)


def _in_folder(path: Path) -> list[str]:
    """The shards in a folder and its folders of splits."""
    splits = [path / name for name in subfolders(path) if split_of(name)]
    tars = (tar for folder in (path, *splits) for tar in folder.glob("*.tar") if not tar.name.startswith("."))
    return sorted(map(str, tars), key=natural)


def _shards(spec: str) -> list[Shard]:
    sources: list[str] = []
    for pattern in spec.removeprefix("wds:").split("::"):
        folder = Path(pattern).expanduser()
        if not is_stream(pattern) and folder.is_dir():
            inside = _in_folder(folder)
            if not inside:
                raise ValueError(f"{folder}: no .tar file in this folder, nor in its folders train, val, test")
            sources += inside
            continue
        expanded = [source if is_stream(source) else os.path.expanduser(source) for source in expand(pattern)]
        missing = [source for source in expanded if not is_stream(source) and not os.path.isfile(source)]
        if missing:
            raise ValueError(f"{pattern}: {len(missing):,} of {len(expanded):,} files are missing, first {missing[0]}")
        sources += expanded
    if len(set(sources)) < len(sources):
        twice = next(source for source in sources if sources.count(source) > 1)
        raise ValueError(f"{spec}: {twice} stands twice")
    # Names are as short as they can be told apart, and never hold a command or an address with its keys.
    places = [_place(source) for source in sources]
    bases = [place.rpartition("/")[2] for place in places]
    if len(set(bases)) < len(bases):
        bases = ["/".join(place.split("/")[-2:]) for place in places]
    if len(set(bases)) < len(bases):
        bases = [f"{number}-{base}" for number, base in enumerate(bases)]
    return [Shard(base, source) for base, source in zip(bases, sources, strict=True)]


def _place(source: str) -> str:
    """The path of a shard, also in an address or a command."""
    if not is_stream(source):
        return Path(os.path.abspath(source)).as_posix()
    found = re.findall(r"[^\s'\"?&=]+\.tar\b", source)
    return found[-1] if found else source.removeprefix("pipe:").split("?")[0]


def _by_split(shards: Sequence[Shard], spec: str) -> dict[str, list[Shard]]:
    groups: dict[str, list[Shard]] = {"train": [], "val": [], "test": []}
    other = []
    for shard in shards:
        folder, _, base = _place(shard.source).lower().rpartition("/")
        words = _SPLIT_WORD.findall(base) or [word for word in [folder.rpartition("/")[2]] if word in SPLIT_OF]
        if words:
            groups[SPLIT_OF[words[-1]]].append(shard)
        else:
            other.append(shard)
    if len(other) == len(shards):
        groups["train"] = other
    elif other:
        raise ValueError(f"{spec}: {other[0].name} has no split in its name (train, val or test), and others have")
    elif not groups["train"]:
        raise ValueError(f"{spec}: has shards of {' and '.join(k for k, v in groups.items() if v)}, but none of train")
    return groups


def _contents(shards: Sequence[Shard], check: bool, log: Callable[[str], None]) -> list[Contents]:
    said = time.monotonic()
    found: list[Contents] = []
    # Decoding switches warnings off, which is not safe in threads: the outer block puts the filters back as they were.
    with warnings.catch_warnings(), ThreadPoolExecutor(_THREADS) as pool:
        try:
            for contents in pool.map(lambda shard: shard.contents(check=check), shards):
                found.append(contents)
                if time.monotonic() - said >= 5:
                    said = time.monotonic()
                    log(f"reading shards: {len(found):,} of {len(shards):,}")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return found


def _images(shards: Sequence[Shard], found: Sequence[Contents], numbers: dict[int | str, int]) -> ShardImages:
    samples = [sample for contents in found for sample in contents.samples]
    return ShardImages(
        shards,
        np.repeat(np.arange(len(shards)), [len(contents.samples) for contents in found]),
        np.array([sample.offset for sample in samples], np.int64),
        np.array([sample.size for sample in samples], np.int64),
        [numbers[sample.label] for sample in samples],
        [
            printable(f"{shard.name}/{sample.name}")
            for shard, contents in zip(shards, found, strict=True)
            for sample in contents.samples
        ],
    )


def _classes(spec: str, shards: Sequence[Shard], found: Sequence[Contents]) -> tuple[list[str], dict[int | str, int]]:
    """The names of the classes, and the number of each label."""
    labels = {sample.label for contents in found for sample in contents.samples}
    words = sorted((label for label in labels if isinstance(label, str)), key=natural)
    if words and len(words) < len(labels):
        raise ValueError(f"{spec}: some labels are numbers and others words, such as {words[0]!r}")
    classes = _class_list(shards)
    if words:
        classes = classes or words
        numbers: dict[int | str, int] = {name: number for number, name in enumerate(classes)}
        for word in words:
            if word not in numbers:
                raise ValueError(f"{spec}: the label {word!r} is not in the list of classes beside the shards")
    else:
        most = max(label for label in labels if isinstance(label, int))
        if most >= _MOST_CLASSES:
            raise ValueError(f"{spec}: a label is {most}, which is no number of a class")
        classes = classes or [str(number) for number in range(most + 1)]
        if most >= len(classes):
            raise ValueError(f"{spec}: a label is {most}, but the list beside the shards has {len(classes)} classes")
        numbers = {label: int(label) for label in labels}
    if len(classes) < 2:
        raise ValueError(f"{spec}: only one class, {classes[0]!r}")
    return [printable(name) for name in classes], numbers


def _class_list(shards: Sequence[Shard]) -> list[str]:
    """What ``classes.txt`` or ``classes.json`` beside the files or one folder above says; else nothing."""
    folders = {Path(os.path.abspath(shard.source)).parent for shard in shards if not is_stream(shard.source)}
    for folder in sorted(folders) + sorted({folder.parent for folder in folders}):
        text, table = folder / "classes.txt", folder / "classes.json"
        if text.is_file():
            return _named_once([line.strip() for line in read_text(text).splitlines() if line.strip()], text)
        if table.is_file():
            names = read_json(table)
            if isinstance(names, dict) and set(names) == {str(number) for number in range(len(names))}:
                names = [names[str(number)] for number in range(len(names))]
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise ValueError(f'{table}: must be a list of names, or an object such as {{"0": "cat", "1": "dog"}}')
            return _named_once(names, table)
    return []


def _named_once(names: list[str], path: Path) -> list[str]:
    """The names, each of which is one class."""
    if double := next((name for name, count in Counter(names).items() if count > 1), None):
        raise ValueError(f"{path} names {double!r} twice: each class needs a name of its own")
    return names


def _say_limit(shards: Sequence[Shard], found: Sequence[Contents], log: Callable[[str], None]) -> None:
    """Say so if the streams that are read at a time do not fit together where they are kept."""
    sizes = [
        max((sample.offset + sample.size for sample in contents.samples), default=0)
        for shard, contents in zip(shards, found, strict=True)
        if is_stream(shard.source)
    ]
    needed = sum(sorted(sizes)[-LANES:])
    if needed > limit_bytes():
        log(
            f"training reads {min(LANES, len(sizes))} shards at a time, together {needed / 1e9:.3g} GB, and only "
            f"{limit_bytes() / 1e9:.3g} GB are kept: they will be fetched again and again; raise TOKENMIX_CACHE_GB"
        )


def _name(spec: str) -> str:
    """What to call the data set: its folder, or what its first shard's name begins with unless that is a split."""
    first = spec.removeprefix("wds:").split("::")[0]
    path = Path(first).expanduser()
    if not is_stream(first) and path.is_dir():
        return path.resolve().name
    folder, _, base = _place(next(expand(first))).rpartition("/")
    stem = re.sub(r"[-_.]*[0-9]*\.tar$", "", base)
    return folder.rpartition("/")[2] if stem.lower() in SPLIT_OF else stem or base
