"""Where data sets live, and what was found out about large ones, so that it is found out once."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from filelock import FileLock

from tokenmix.data.dataset import Pictures, Skipped, unreadable
from tokenmix.files import write_text

WORTH = 5_000  # images: fewer are looked at within seconds


def data_root() -> Path:
    """Where downloaded data sets live: the environment's ``TOKENMIX_DATA``, else ``~/.cache/tokenmix``."""
    return Path(os.environ.get("TOKENMIX_DATA") or "~/.cache/tokenmix").expanduser()


def checked(images: Pictures, root: Path, files: Sequence[str], log: Callable[[str], None]) -> dict[int, Skipped]:
    """The pictures that cannot be read, by index; of many files remembered under their names, sizes and times.

    ``files`` are theirs, relative to ``root``.

    Processes that start together wait for the one that looks. Where `data_root` cannot be written, each looks itself.
    """
    if len(images) < WORTH:
        return unreadable(images, log)
    memory = data_root() / "checked" / f"{_fingerprint(root, files)}.json"
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, NotImplementedError):
            memory.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(memory.with_suffix(".lock")))
        with contextlib.suppress(OSError, ValueError, TypeError):
            found = json.loads(memory.read_text(encoding="utf-8"))
            failed = {int(index): Skipped(**skipped) for index, skipped in found.items()}
            log(f"{root}: {len(images):,} images checked before, {len(failed):,} of them cannot be read")
            return failed
        failed = unreadable(images, log)
        with contextlib.suppress(OSError):
            write_text(memory, json.dumps({index: dataclasses.asdict(skipped) for index, skipped in failed.items()}))
    return failed


def _fingerprint(root: Path, files: Sequence[str]) -> str:
    """Of the files as they are now; a missing one has no size and no time."""
    digest = hashlib.sha256(os.path.abspath(root).encode("utf-8", "surrogateescape"))
    for name in files:
        size = time = 0
        with contextlib.suppress(OSError):
            stat = os.stat(root / name)
            size, time = stat.st_size, stat.st_mtime_ns
        digest.update(f"\0{name}\0{size}\0{time}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]
