"""Writing files so that a reader, or a run that was killed, only ever sees whole ones."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from tokenmix.terminal import shown

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


_NUMBER = re.compile(r"[+-](?:inf|nan|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)")
_LONGEST = 200  # bytes of a file's name, of the 255 that file systems take: a temporary name beside it is longer


class DiskFull(OSError):
    """There is no room for a file, and nothing is left that could be removed; the message says how much is missing."""


def is_full(error: BaseException) -> bool:
    """Whether the error says that the disk, or the user's share of it, has no room left."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success its content is synced and renamed to ``path``.

    The rename is synced too. On an exception the temporary file is removed and ``path`` stays as it was; a process that
    is killed leaves it, for ``sweep``. Missing folders are made.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.touch(exist_ok=False)
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, target)
        sync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: str | os.PathLike[str]) -> None:
    """Wait until a file's bytes, or the names in a folder, are on the disk."""
    if os.name == "nt" and Path(path).is_dir():
        return  # Windows opens no folders
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: str | os.PathLike[str]) -> None:
    """Remove the temporary files in ``folder`` that writers left who were killed; nobody else may write there."""
    for path in Path(folder).glob(".*.tmp"):
        path.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(path: str | os.PathLike[str], header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table with its header as CSV, atomically; None makes an empty cell. Texts are as `csv_cell` has them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in (header, *rows):
        writer.writerow([csv_cell(cell) if isinstance(cell, str) else cell for cell in row])
    write_text(path, text.getvalue())


def csv_cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula and no terminal for a command.

    One that begins with ``=``, ``+``, ``-`` or ``@`` and is no number gets an apostrophe before it.
    """
    text = shown(text)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") and not _NUMBER.fullmatch(text) else text


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; NaN and infinity are errors, since JSON has neither."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


@contextlib.contextmanager
def locked(folder: str | os.PathLike[str], *, wait_s: float = 0.0) -> Iterator[None]:
    """Keep other processes out of ``folder`` (made if missing); the system lets go when this one ends, however it ends.

    Does nothing on systems and file systems without POSIX locks.

    Args:
        folder: Which.
        wait_s: How many seconds another process there has to end.

    Raises:
        ValueError: Another process is at work there, or it is no folder.
    """
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file, and a folder is needed: choose another one with --out")
    path.mkdir(parents=True, exist_ok=True)
    with (path / ".lock").open("a") as file:
        deadline = time.monotonic() + wait_s
        while not _lock(file) and time.monotonic() < deadline:
            time.sleep(0.1)
        if not _lock(file):
            raise ValueError(f"another process is at work in {path}: wait for it, or choose another folder with --out")
        yield


def _lock(file: IO[str]) -> bool:
    """Whether this process has the lock now; a file system without locks gives it to everyone."""
    if fcntl is not None:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        except OSError:
            pass
    return True


def sha256(path: str | os.PathLike[str]) -> str:
    """The hexadecimal SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def slug(name: str) -> str:
    """A file or folder name for any text: readable, and different for different texts."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")
    return plain if plain == name else f"{plain[:40]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def short_name(stem: str, ending: str) -> str:
    """``stem`` + ``ending`` as a name that file systems take: a very long stem is cut, and gets a hash of it all."""
    if len(os.fsencode(stem + ending)) <= _LONGEST:
        return stem + ending
    digest = hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]
    room = _LONGEST - len(os.fsencode(ending)) - len(digest) - 1
    return f"{os.fsencode(stem)[:room].decode('utf-8', 'ignore')}-{digest}{ending}"
