"""Freed memory that stays with the process: on a CPU a step otherwise fetches the same pages from the system again.

Each page so fetched is filled with zeros first. A step at batch 8 takes 8 to 15 % less time without, at the same peak
(``benchmarks/LOG.md``).
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_MOST = (1 << 31) - 1
_USUAL_MMAP = 32 << 20  # where glibc's own threshold ends up once large blocks were freed
_USUAL_TRIM = 2 * _USUAL_MMAP


@contextlib.contextmanager
def kept_memory() -> Iterator[None]:
    """Within it the C library keeps what is freed; afterwards all of that goes back to the system.

    It does nothing where the C library is not glibc.
    """
    library = _library()
    if library is None:
        yield
        return
    _set(library, _MOST, _MOST)
    try:
        yield
    finally:
        _set(library, _USUAL_TRIM, _USUAL_MMAP)
        library.malloc_trim(0)


def _set(library: ctypes.CDLL, trim: int, mmap: int) -> None:
    library.mallopt(_TRIM_THRESHOLD, trim)
    library.mallopt(_MMAP_THRESHOLD, mmap)


def _library() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if all(hasattr(library, name) for name in ("mallopt", "malloc_trim")) else None
