"""What a model says of a user's file, the options of the command that asks, and where answers go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Option:
    """An option of a command that belongs to a task: its name on the command line, and argparse's keywords.

    Examples:
        >>> Option("--top-k", {"type": int, "default": 5}).name
        'top_k'
    """

    flag: str
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        """How argparse calls it."""
        return self.flag.removeprefix("--").replace("-", "_")


@dataclass(frozen=True)
class Answer:
    """What a model says of one file of a user.

    Attributes:
        values: As JSON.
        lines: For people.
        rows: For a table, each with the same names: of a class, an object, or the file as a whole.

    Examples:
        >>> Answer({"label": "cat"}, ["cat.jpg: cat"]).values["label"]
        'cat'
    """

    values: dict[str, Any]
    lines: Sequence[str] = ()
    rows: Sequence[Mapping[str, Any]] = ()


def answers_folder(out: str | None, usual: str) -> Path:
    """Where ``--out`` puts the answers to a user's files; it need not be there yet.

    Raises:
        ValueError: It is a file.
    """
    folder = Path(out or usual)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out {folder} is a file; give a folder")
    return folder
