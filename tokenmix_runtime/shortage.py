"""Want of memory, threads or processes, told from other errors: every library says it in words of its own."""

from __future__ import annotations

import errno

_MEMORY = (
    *("out of memory", "can't allocate memory", "cannot allocate memory", "defaultcpuallocator", "bad_alloc"),
    *("bad allocation", "unable to allocate", "failed to allocate memory", "not enough memory", "alloc_failed"),
    *("failed to map segment", "could not allocate", "std::length_error"),
)
_THREADS = ("can't start new thread", "resource temporarily unavailable", "thread creation failed", "pthread_create")


class OutOfMemory(MemoryError):
    """Something does not fit into memory; the message says what, and what would."""


def shortage(error: BaseException) -> str | None:
    """What the machine lacks, in a few words, if that is what an error says; None for any other error."""
    if isinstance(error, MemoryError):
        return "out of memory"
    if isinstance(error, OSError):
        if error.errno == errno.ENOMEM:
            return "out of memory"
        return _NO_THREADS if isinstance(error, BlockingIOError) else None
    if isinstance(error, ValueError | KeyError) or not isinstance(error, Exception):
        return None
    text = str(error).lower()
    if any(words in text for words in _MEMORY):
        return "out of memory"
    return _NO_THREADS if any(words in text for words in _THREADS) else None


_NO_THREADS = "the system lets this user start no more threads or processes (ulimit -u, ulimit -v)"
