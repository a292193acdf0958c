"""What is in a tar shard: one pass over its headers finds every labelled picture and where its bytes lie.

WebDataset's conventions: the files of a sample stand together and share their path up to the first dot of the base
name, the key; what follows is the kind. ``x.jpg`` and ``x.cls`` are the picture ``x`` and its class.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from tokenmix_runtime.images import EXTENSIONS
from tokenmix_runtime.untrusted import regular_file

_BLOCK = 512  # bytes; all that a tar holds is padded to it
_LONGEST_LABEL = 2**20  # bytes


class Sample(NamedTuple):
    """A labelled picture: its file's name in the shard, where its bytes lie, and its class, a number or a name."""

    name: str
    offset: int
    size: int
    label: int | str


class Contents(NamedTuple):
    """What a shard holds: pictures, (name, reason) of the samples that cannot be used, and what is wrong with itself.

    ``damage`` is empty for a whole shard. What stands before the damage can be used.
    """

    samples: list[Sample]
    skipped: list[tuple[str, str]]
    damage: str


class _Member(NamedTuple):
    key: str
    kind: str
    name: str
    offset: int
    size: int


def read_contents(path: Path) -> Contents:
    """The contents of the tar at ``path``. A damaged one raises nothing: it is described.

    Raises:
        ValueError: It is no file.
    """
    samples: list[Sample] = []
    skipped: list[tuple[str, str]] = []
    damage: list[str] = []
    with regular_file(path).open("rb") as file:
        # A damage is noted after the last whole member, so that the sample it falls in may have lost its end.
        for key, group in groupby(_members(file, path.stat().st_size, damage), key=lambda member: member.key):
            try:
                samples.append(_sample(file, list(group)))
            except ValueError as error:
                skipped.append((key, str(error)))
    if damage:
        last = f"what follows {samples[-1].name} is lost" if samples else "all is lost"
        return Contents(samples, skipped, f"{damage[0]}: {last}")
    return Contents(samples, skipped, "")


def _members(file: BinaryIO, length: int, damage: list[str]) -> Iterator[_Member]:
    """The whole files of a tar of ``length`` bytes; what is wrong with it is appended to ``damage``."""
    start = file.read(_BLOCK)
    if start[:2] == b"\x1f\x8b" or start[:4] == b"\x28\xb5\x2f\xfd":
        damage.append("it is compressed, and pictures are read from any place (decompress it, or use 'pipe:zcat ...')")
        return
    if not start.strip(b"\0"):
        if not start or length % _BLOCK:
            damage.append("it is empty")
        return
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.offset_data + member.size > length:
                    damage.append(f"it ends after {length:,} bytes, within {member.name}")
                    return
                folder, _, base = member.name.rpartition("/")
                stem, dot, kind = base.partition(".")
                about = base == member.name and re.fullmatch("__.+__", stem)  # WebDataset's own notes: __meta__.json
                if member.isreg() and not member.sparse and stem and dot and not about:
                    key = f"{folder}/{stem}" if folder else stem
                    yield _Member(key, kind.lower(), member.name, member.offset_data, member.size)
            end = tar.offset
    except (tarfile.TarError, OSError, ValueError) as error:
        damage.append(f"it is no whole tar file ({error})")
        return
    file.seek(end)
    after = file.read(_BLOCK)
    if len(after) < _BLOCK:
        damage.append(f"it ends after {length:,} bytes, without a tar's end mark")
    elif after.strip(b"\0"):  # the module tarfile takes a bad header for the end
        damage.append(f"the header at byte {end:,} is broken")


def _sample(file: BinaryIO, members: list[_Member]) -> Sample:
    kinds = {member.kind: member for member in members}
    if len(kinds) < len(members):
        raise ValueError("two of its files have the same name")
    picture = next((kinds[suffix[1:]] for suffix in EXTENSIONS if suffix[1:] in kinds), None)
    if picture is None:
        raise ValueError(f"no picture, only {', '.join(f'.{kind}' for kind in kinds)}")
    label = _label(file, kinds)
    if isinstance(label, int) and label < 0:
        raise ValueError(f"no label: its class is {label}")
    return Sample(picture.name, picture.offset, picture.size, label)


def _label(file: BinaryIO, kinds: dict[str, _Member]) -> int | str:
    if "cls" in kinds:
        text = _read(file, kinds["cls"]).strip()
        label: Any = int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else text
    elif "json" in kinds:
        try:
            about = json.loads(_read(file, kinds["json"]))
        except (json.JSONDecodeError, RecursionError):
            raise ValueError("no label: .json is not JSON") from None
        label = about.get("label", about.get("cls")) if isinstance(about, dict) else None
    else:
        raise ValueError("no label: neither .cls nor .json")
    if isinstance(label, bool) or not isinstance(label, int | str) or label == "":
        raise ValueError("no label: .cls is empty" if "cls" in kinds else "no label: .json has no 'label' or 'cls'")
    return label


def _read(file: BinaryIO, member: _Member) -> str:
    """A small text file."""
    if member.size > _LONGEST_LABEL:
        raise ValueError(f"no label: .{member.kind} has {member.size:,} bytes")
    file.seek(member.offset)
    try:
        return file.read(member.size).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"no label: .{member.kind} is not UTF-8") from None
