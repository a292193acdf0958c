"""Writing files so that a reader only ever sees whole ones."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, which it replaces unless something is raised; missing folders are made.

    Raises:
        OSError: It cannot be written.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def check_other_file(out: str | os.PathLike[str], source: str | os.PathLike[str]) -> None:
    """Refuse to write an answer over the file that is asked about, also where a link leads there.

    Raises:
        ValueError: ``out`` is the file ``source``.
    """
    if os.path.exists(out) and os.path.exists(source) and os.path.samefile(out, source):
        raise ValueError(f"--out {os.fspath(out)} is the file that is read: give another name")
