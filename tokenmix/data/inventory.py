"""What lies in a folder: every file is a picture, knowingly ignored, or named with the reason why it is not used.

One lister with one set of rules, for training, checking, calibration, prediction and export.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tokenmix.data.natural import natural
from tokenmix_runtime.images import EXTENSIONS, UNREAD
from tokenmix_runtime.terminal import shown

# Left behind by systems and programs, which no user has put there.
IGNORED_FOLDERS = frozenset(
    {"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "__pycache__", "#recycle"}
)
IGNORED_FILES = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r", "zbthumbnail.info"})
# Notes for people, and what programs keep for themselves, which no reader asks for.
_NOTES = ("readme", "license", "licence", "citation", "changelog", "copying")
_NOTE_ENDINGS = (".md", ".rst", ".html", ".htm", ".url", ".lnk", ".cache", ".log", ".py", ".ipynb", ".sh")
OTHER = "file that is no picture and that nothing here reads: not used"
_BEGINS = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF")  # of common pictures


@dataclass
class Inventory:
    """The files below a folder, by their paths relative to it, with forward slashes.

    Attributes:
        root: The folder.
        pictures: Files that have the ending of a picture, in their natural order.
        others: Files of any other kind.
        ignored: Files that systems leave behind, hidden ones, and notes for people.
        folders: All folders that are not ignored.
        unusable: Pictures that are not read, or whose name does not tell that they are pictures, with the reason.
        used: Files that a reader of the layout has said it uses.
    """

    root: Path
    pictures: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    unusable: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def use(self, files: Iterable[str]) -> None:
        """Note that these files are read."""
        self.used.update(files)

    def below(self, folder: str) -> list[str]:
        """The pictures below a folder, by their paths relative to the root; ``"."`` is the root."""
        if folder in (".", ""):
            return list(self.pictures)
        prefix = folder.rstrip("/") + "/"
        return [name for name in self.pictures if name.startswith(prefix)]

    def unused(self, reason: str = "not used: it lies outside of what the layout reads") -> dict[str, list[str]]:
        """By the reason, the files that nobody reads and that are not knowingly ignored."""
        found: dict[str, list[str]] = {}
        for name, why in self.unusable.items():
            found.setdefault(why, []).append(name)
        if left := [name for name in self.pictures if name not in self.used]:
            found.setdefault(f"picture {reason}", []).extend(left)
        if left := [name for name in self.others if name not in self.used]:
            found[OTHER] = left
        return found


def take_inventory(root: str | os.PathLike[str]) -> Inventory:
    """List a folder and all folders below it, following links, each folder once.

    Args:
        root: The folder.

    Raises:
        ValueError: It is no folder, or cannot be read.
    """
    base = Path(root)
    if not base.is_dir():
        raise ValueError(f"{base}: there is no such folder")
    found = Inventory(base)
    _walk(base, "", found, {os.path.realpath(base)})
    found.pictures.sort(key=natural)
    found.others.sort(key=natural)
    return found


def _walk(folder: Path, prefix: str, found: Inventory, seen: set[str]) -> None:
    try:
        with os.scandir(folder) as listed:
            entries = sorted(listed, key=lambda entry: natural(entry.name))
    except OSError as error:
        raise ValueError(f"{folder} cannot be listed: {error.strerror or error}") from None
    for entry in entries:
        name, path = entry.name, prefix + entry.name
        try:
            is_folder = entry.is_dir()
        except OSError as error:  # a link to itself
            found.unusable[path] = f"cannot be followed: {error.strerror or error}"
            continue
        if is_folder:
            if name.startswith(".") or name.lower() in IGNORED_FOLDERS:
                found.ignored.append(path + "/")
                continue
            if entry.is_symlink():
                place = os.path.realpath(entry.path)
                if place in seen:
                    found.unusable[path + "/"] = "link to a folder that is read already"
                    continue
                seen.add(place)
            found.folders.append(path)
            _walk(Path(entry.path), path + "/", found, seen)
        elif _is_ignored(name):
            found.ignored.append(path)
        elif (ending := os.path.splitext(name)[1].lower()) in EXTENSIONS:
            found.pictures.append(path)
        elif ending in UNREAD:
            found.unusable[path] = UNREAD[ending]
        elif _looks_like_a_picture(entry.path, ending):
            found.unusable[path] = "picture whose name does not end as one: rename it, to .jpg say"
        else:
            found.others.append(path)


def _is_ignored(name: str) -> bool:
    """Whether a file is none of the data: hidden, left behind by a system, or a note for people."""
    name = name.lower()
    if name.startswith(".") or name in IGNORED_FILES:
        return True
    return name.endswith(_NOTE_ENDINGS) or (name.split(".")[0] in _NOTES and not name.endswith(EXTENSIONS))


def _looks_like_a_picture(path: str, ending: str) -> bool:
    """Of files without an ending that is known to be something else."""
    if ending in (".txt", ".xml", ".json", ".yaml", ".yml", ".csv", ".md", ".npy", ".npz", ".mat", ".tar", ".zip"):
        return False
    try:
        if not os.path.isfile(path):  # a pipe would wait for ever
            return False
        with open(path, "rb") as file:
            return file.read(8).startswith(_BEGINS)
    except OSError:
        return False


def summary(names: Sequence[str], shown_names: int = 3) -> str:
    """Some of the names, and how many more there are."""
    more = f", and {len(names) - shown_names:,} more" if len(names) > shown_names else ""
    return ", ".join(shown(name) for name in names[:shown_names]) + more
