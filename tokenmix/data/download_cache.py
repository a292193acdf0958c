"""Bringing a stream's bytes here, once: from the web, from a command, from what fsspec knows; into a bounded folder."""

from __future__ import annotations

import contextlib
import errno
import http.client
import math
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tokenmix.files import atomic_path

_WAITS_S = (1.0, 4.0)  # between the tries
_TIMEOUT_S = 60.0  # without a byte from the web
_DEFAULT_LIMIT_GB = 200.0
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))  # the disk, or what one may use of it


def is_stream(source: str) -> bool:
    """Whether this names a stream, ``pipe:command`` or ``scheme://...``, and not a file here."""
    return source.startswith("pipe:") or "://" in source


def fetch(source: str, target: Path, inspect: Callable[[Path], None]) -> None:
    """Write the stream's bytes to ``target``, atomically, where the oldest other files make room for it.

    Args:
        source: ``pipe:`` and a shell command, an address of the web, or an address that fsspec opens (``s3://``, ...).
        target: Its folder holds fetched files only.
        inspect: Looks at the fetched file before it is put in its place; an OSError of it is a failed transfer.

    Raises:
        ValueError: The stream failed three times, or the disk is full.
    """
    for wait in (*_WAITS_S, None):
        try:
            with atomic_path(target) as temporary:
                with _opened(source) as stream, temporary.open("wb") as file:
                    shutil.copyfileobj(stream, file, 2**20)
                inspect(temporary)
            break
        except (OSError, EOFError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in _FULL:
                raise ValueError(
                    f"the disk of {target.parent} is full: set TOKENMIX_DATA to a folder with more room, "
                    "or TOKENMIX_CACHE_GB to what fits"
                ) from error
            if wait is None:
                raise ValueError(f"cannot fetch {source}, tried {len(_WAITS_S) + 1} times: {error}") from error
            time.sleep(wait)
    _make_room(target)


@contextlib.contextmanager
def _opened(source: str) -> Iterator[Any]:
    if source.startswith("pipe:"):
        with subprocess.Popen(source.removeprefix("pipe:"), shell=True, stdout=subprocess.PIPE) as process:
            yield process.stdout
        if process.returncode:
            raise OSError(f"the command ended with code {process.returncode}")
    elif source.startswith(("http://", "https://")):
        with urllib.request.urlopen(source, timeout=_TIMEOUT_S) as answer:
            yield answer
            if answer.length:  # what is still to come; reading in pieces does not notice
                raise OSError(f"the connection ended {answer.length:,} bytes early")
    else:
        import fsspec

        with fsspec.open(source, "rb") as file:
            yield file


def limit_bytes() -> float:
    """How much fetched files may take: the environment's ``TOKENMIX_CACHE_GB`` (1e9 bytes), else 200 GB."""
    text = os.environ.get("TOKENMIX_CACHE_GB") or str(_DEFAULT_LIMIT_GB)
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = math.nan
    if not (math.isfinite(gigabytes) and gigabytes >= 0):  # NaN would keep nothing but the newest file
        raise ValueError(f"TOKENMIX_CACHE_GB must be a number of gigabytes, 0 or more, not {text!r}")
    return gigabytes * 1e9


def _make_room(newest: Path) -> None:
    """Remove the oldest files beside ``newest``, also those of killed processes, until the rest is within the limit."""
    found = []
    for path in newest.parent.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process makes room too
            stat = path.stat()
            found.append((stat.st_mtime_ns, stat.st_size, path))
    excess = sum(size for _, size, _ in found) - limit_bytes()
    for _, size, path in sorted(found):
        if excess <= 0:
            return
        if path != newest:
            path.unlink(missing_ok=True)
            excess -= size
