"""Writing files so that a reader, or a run that was killed, only ever sees whole ones."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import json
import math
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from tokenmix_runtime.terminal import shown

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
    with new_folders(target.parent):
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
        temporary.touch(exist_ok=False)
        try:
            yield temporary
            sync(temporary)
            os.replace(temporary, target)
            sync(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folders(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Make a folder and those above it; on an exception the ones that were made and are empty go again."""
    path = Path(folder)
    made = [part for part in (path, *path.parents) if not part.exists()]
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # something is in it
            for part in made:
                part.rmdir()
        raise


def sync(path: str | os.PathLike[str]) -> None:
    """Wait until a file's bytes, or the names in a folder, are on the disk."""
    if os.name == "nt" and Path(path).is_dir():
        return  # Windows opens no folders
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)  # Windows syncs only what it may write
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: str | os.PathLike[str]) -> None:
    """Remove what is temporary in ``folder`` and was left by those who were killed; nobody else may write there."""
    for path in Path(folder).glob(".*.tmp"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
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


def finite(value: Any) -> Any:
    """A value for JSON, with None for each NaN and infinity in it, in dicts and lists too."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


class Busy(ValueError):
    """Another process is at work in a folder."""


@contextlib.contextmanager
def locked(folder: str | os.PathLike[str], *, wait_s: float = 0.0) -> Iterator[None]:
    """Keep other processes out of ``folder`` (made if missing); the system lets go when this one ends, however it ends.

    On an exception a folder in which nothing else was written is left as it was found, or not at all. Does nothing on
    systems and file systems without POSIX locks.

    Args:
        folder: Which.
        wait_s: How many seconds another process there has to end.

    Raises:
        Busy: Another process is at work there.
        ValueError: It is no folder.
    """
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file, and a folder is needed: choose another one with --out")
    with new_folders(path), contextlib.ExitStack() as stack:
        deadline = time.monotonic() + wait_s
        while (file := _lock(path / ".lock")) is None and time.monotonic() < deadline:
            time.sleep(0.1)
        if file is None:
            raise Busy(f"another process is at work in {path}: wait for it, or choose another folder with --out")
        stack.enter_context(file)
        try:
            yield
        except BaseException:
            if os.listdir(path) == [".lock"]:
                if fcntl is None:
                    file.close()  # Windows removes no open files
                (path / ".lock").unlink(missing_ok=True)
            raise


def _lock(path: Path) -> IO[str] | None:
    """The file, open and locked, or None: another process has it. A file system without locks gives it to everyone."""
    file = path.open("a")
    if fcntl is None:
        return file
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine = os.path.samestat(os.fstat(file.fileno()), path.stat())  # else its owner has just taken it away
    except (BlockingIOError, PermissionError, FileNotFoundError):
        mine = False
    except OSError:
        mine = True
    if not mine:
        file.close()
        return None
    return file


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
