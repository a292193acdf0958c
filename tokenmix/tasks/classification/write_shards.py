"""Writing tar shards as WebDataset has them: pictures in their own bytes, each with its class's number."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tokenmix.data.random_numbers import permutation
from tokenmix.files import new_folders, write_json
from tokenmix.tasks.classification.images import ClassData, ImageSet
from tokenmix_runtime.images import EXTENSIONS, stored_as
from tokenmix_runtime.limits import check_number
from tokenmix_runtime.terminal import say

_SUFFIXES = {"jpeg": "jpg", "mpo": "jpg", "jpeg2000": "jp2", "tiff": "tif"}  # where Pillow's name is not the extension


def pack_data(
    data: ClassData, out: str | os.PathLike[str], *, shard_size: int = 1000, log: Callable[[str], None] = say
) -> dict[str, int]:
    """Write ``train-000000.tar``, ..., ``val-``, ``test-`` and ``classes.json`` into the new folder ``out``.

    Files keep their bytes; pictures without a file become PNG. Training images are shuffled, always in the same way, so
    that a shard has all classes. The same data set gives the same bytes. The folder appears when all is written.

    Args:
        data: Loaded, with what it left out left out.
        out: A folder that does not exist or is empty.
        shard_size: Pictures per shard; the last of a split may have fewer.
        log: Receives one line per shard.

    Returns:
        The number of shards per split.

    Raises:
        ValueError: There is something in ``out``, or ``shard_size`` is less than 1.
        ImageError: A picture cannot be read.
    """
    if shard_size < 1:
        raise ValueError(f"shard_size must be 1 or more, not {shard_size}")
    check_number("shard_size", shard_size)
    target = Path(out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{target} exists and is not an empty folder: choose another one")
    shards = {}
    with new_folders(target.parent), contextlib.ExitStack() as stack:
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
        stack.callback(shutil.rmtree, temporary, ignore_errors=True)
        for split in ("train", "val", "test"):
            images: ImageSet = getattr(data, split)
            order = permutation(len(images), 0).tolist() if split == "train" else list(range(len(images)))
            begins = range(0, len(order), shard_size)
            for number, begin in enumerate(begins):
                path = temporary / f"{split}-{number:06d}.tar"
                _write(path, images, order[begin : begin + shard_size], begin)
                log(f"wrote {path.name} ({number + 1:,} of {len(begins):,})")
            shards[split] = len(begins)
        write_json(temporary / "classes.json", data.classes)
        temporary.chmod(0o755)
        os.replace(temporary, target)
    return shards


def _write(path: Path, images: ImageSet, rows: Sequence[int], begin: int) -> None:
    with tarfile.open(path, "w") as tar:
        for place, row in enumerate(rows, begin):
            content = images.encoded(row)
            if content is None:
                buffer = io.BytesIO()
                images.load(row).save(buffer, "png")
                content = buffer.getvalue()
            _, _, base = images.names[row].rpartition("/")
            stem, _ = os.path.splitext(base)
            key = f"{place:08d}-{re.sub(r'[^0-9A-Za-z_-]', '_', stem)}"  # a key has no dot
            _add(tar, f"{key}.{_suffix(base, content)}", content)
            _add(tar, f"{key}.cls", str(images.labels[row]).encode())


def _suffix(name: str, content: bytes) -> str:
    suffix = os.path.splitext(name)[1].lower()
    if suffix in EXTENSIONS:
        return suffix[1:]
    form = stored_as(content)[0].lower()
    return _SUFFIXES.get(form, form)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # without a time or an owner
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
