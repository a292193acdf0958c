"""What is refused before it is read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_KINDS = {
    stat.S_IFDIR: "folder",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


def regular_file(path: str | os.PathLike[str]) -> Path:
    """The path, if it leads to a file: a fifo could be waited for without end, a device read without end.

    Raises:
        ValueError: It leads to something else; the message says to what.
        OSError: There is nothing, or the system does not let us look.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise ValueError(f"{os.fspath(path)} is a {_KINDS.get(stat.S_IFMT(mode), 'special file')}, not a file")
    return Path(path)
