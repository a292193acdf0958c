"""Standard streams that take any text, whatever the machine has made of them: for a program's ``main``."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from tokenmix_runtime.shortage import shortage

ERRORS = "tokenmix_runtime.console"
PLAIN = {"█": "#", "·": ".", "–": "-", "…": "...", "×": "x", "±": "+-", "²": "2"}
"""What stands for a character of ours on a console that lacks it."""
_PAUSE_S = 0.01  # before a full pipe is tried again


@contextlib.contextmanager
def steady_streams(*, needed: bool) -> Iterator[Output]:
    """Let ``sys.stdout`` and ``sys.stderr`` take any text inside the block, and lose none of it that can be kept.

    A stream that is missing or closed swallows what it is given. Characters that a console cannot show are replaced. A
    full pipe that does not block is waited for. Where a stream breaks, the pipe's reader gone or the disk full, what
    follows is dropped; only standard output that is ``needed`` raises what happened, once. Streams that belong to no
    file, such as a notebook's, stay as they are.

    Args:
        needed: Whether there is no point in going on without standard output.
    """
    _occupy()
    codecs.register_error(ERRORS, _replaced)
    before = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    output = Output()
    try:
        for name, stream in before.items():
            setattr(sys, name, _steady(stream, output if name == "stdout" else Output(), needed and name == "stdout"))
        yield output
    finally:
        for name, stream in before.items():
            if (ours := getattr(sys, name)) is not stream:
                setattr(sys, name, stream)
                with contextlib.suppress(OSError, ValueError):
                    ours.flush()


class Output:
    """What became of a stream: ``error``, why it broke, or None."""

    error: OSError | None = None


def exit_code(answer: Callable[[Output], int]) -> int:
    """Run what a program of the run-time does, with steady streams of which standard output is needed.

    Args:
        answer: Returns the exit code. What it raises goes on, unless it says that standard output broke, or what the
            machine lacks: this is told in a line.

    Returns:
        Its code, 130 after Ctrl-C, 141 where nobody reads the answers, and 2 where one of the others was told.
    """
    with steady_streams(needed=True) as output:
        try:
            code = answer(output)
            sys.stdout.flush()
        except KeyboardInterrupt:
            print("\nstopped", file=sys.stderr)
            return 130
        except Exception as error:
            if isinstance(error, BrokenPipeError) and error is output.error:
                return 141
            told = f"standard output: {error}" if error is output.error else shortage(error)
            if told is None:
                raise
            print(f"tokenmix_runtime: error: {told}", file=sys.stderr)
            return 2
        return code


class _Raw(io.RawIOBase):
    """Writes all of it, or drops it."""

    def __init__(self, raw: Any, output: Output, needed: bool) -> None:
        self.raw, self.output, self.needed = raw, output, needed

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.raw.fileno()

    def isatty(self) -> bool:
        return self.raw.isatty()

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        length = len(rest)
        while rest and self.output.error is None:
            try:
                taken = self.raw.write(rest)
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK):
                    taken = None
                else:
                    self.output.error = error
                    if self.needed:
                        raise
                    break
            if not taken:
                time.sleep(_PAUSE_S)
                continue
            rest = rest[taken:]
        return length


class _Nowhere(io.BufferedIOBase):
    """Takes everything."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return len(data)


def _steady(stream: Any, output: Output, needed: bool) -> Any:
    """The stream, or one in its place."""
    if stream is None or getattr(stream, "closed", False):
        return io.TextIOWrapper(_Nowhere(), "utf-8", ERRORS, write_through=True)
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)
    if not isinstance(stream, io.TextIOWrapper) or not isinstance(raw, io.RawIOBase):
        return stream
    with contextlib.suppress(OSError, ValueError):
        stream.flush()
    lines = stream.line_buffering or stream.write_through
    binary = io.BufferedWriter(_Raw(raw, output, needed))
    return io.TextIOWrapper(binary, stream.encoding, ERRORS, line_buffering=lines, write_through=stream.write_through)


def _occupy() -> None:
    """Give closed standard streams' numbers to the null device, or the next file that is opened would get one."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(map(_replacement, text)), error.end


def _replacement(character: str) -> str:
    if character in PLAIN:
        return PLAIN[character]
    if "\ud800" <= character <= "\udfff":  # a byte of a file's name that is no UTF-8
        return "?"
    return character.encode("ascii", "backslashreplace").decode("ascii")
