"""Where strangers' files stop: who says that code, addresses and paths in a file may be used.

The rule: code, addresses and paths are taken from the person (typed on the command line, or passed in a call), and from
a file only if the person says that the file is their own, with ``--trust``, ``trust=True`` or `trusting`. A file that
is native code itself is loaded only if this process wrote these very bytes, or the person says that it is their own.
How large anything may be that a file asks for is in `tokenmix_runtime.untrusted`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar

from tokenmix_runtime.untrusted import shown

_trusted: ContextVar[bool] = ContextVar("_trusted", default=False)
_origin: ContextVar[str | None] = ContextVar("_origin", default=None)
_named: set[str] = set()  # code that the person has named in this process
_written: set[str] = set()  # SHA-256 of files of native code that this process has written itself, or has as its own
_anew: ContextVar[bool] = ContextVar("_anew", default=False)


@contextlib.contextmanager
def trusting(trust: bool = True) -> Iterator[None]:
    """Inside, this thread takes code, addresses and paths from files too: the person says that these are their own.

    Args:
        trust: False changes nothing.
    """
    token = _trusted.set(trust or _trusted.get())
    try:
        yield
    finally:
        _trusted.reset(token)


def is_trusted() -> bool:
    """Whether this thread is inside of `trusting`."""
    return _trusted.get() and not _anew.get()


@contextlib.contextmanager
def judging_anew() -> Iterator[None]:
    """Inside, this thread judges as a process would to which the person has said nothing yet."""
    token = _anew.set(True)
    try:
        yield
    finally:
        _anew.reset(token)


def named_code() -> list[str]:
    """The Python objects that the person has named in this process, for one that it starts: see `permit_code`."""
    return sorted(_named)


@contextlib.contextmanager
def speaking(origin: str | None) -> Iterator[None]:
    """Inside, what is built was named by a file, or by the person (None).

    Args:
        origin: The file's name, for messages.
    """
    token = _origin.set(origin)
    try:
        yield
    finally:
        _origin.reset(token)


def permit_code(name: str) -> None:
    """Raise unless this Python object, ``module:name``, may be imported and called now: the one place that decides.

    It may if the person names it, which is remembered for this process, if a file names it that is trusted, or if a
    file names what the person has named in this process.

    Raises:
        ValueError: Only a file names it.
    """
    origin = _origin.get()
    if origin is None or is_trusted():
        _named.add(name)
    elif name not in _named or _anew.get():
        raise refusal(origin, "Python code", name)


def vouch_for(digest: str) -> None:
    """Remember a file of native code as this process's own work, by the SHA-256 of its bytes."""
    _written.add(digest)


def permit_native(path: str | os.PathLike[str], digest: str) -> None:
    """Raise unless the native code in this file may be loaded, which runs it: the one place that decides.

    It may if `vouch_for` was told of these bytes, or inside of `trusting`.

    Args:
        path: The file, for the message.
        digest: The SHA-256 of its bytes.

    Raises:
        ValueError: Nobody has said that it is our own.
    """
    if not is_trusted() and (digest not in _written or _anew.get()):
        raise ValueError(
            f"{os.fspath(path)} is native code, which runs when it is loaded, and was not written by this process: if "
            "the file is your own, say so with --trust (trust=True; in Python around any call: with "
            "tokenmix.safety.trusting())"
        )


def refusal(origin: str, what: str, value: object) -> ValueError:
    """The error for what a file must not say.

    Args:
        origin: The file.
        what: Its kind, such as ``"Python code"``.
        value: What stands there.
    """
    return ValueError(
        f"{origin} names {what}, {shown(value)}, which is not taken from a file: type it or pass it yourself, or, if "
        "the file is your own, say so with --trust (trust=True; in Python around any call: with "
        "tokenmix.safety.trusting())"
    )
