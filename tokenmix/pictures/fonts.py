"""Fonts for names in any script: Pillow's own has few letters, so that others are looked for on the machine.

Where no font has a name's letters a drawing shows its number, and `numbered` tells what the numbers stand for.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from PIL import ImageFont, features

_NO_LETTER = "\U0010ffff"  # which no font has: what it draws instead
_BOXES = ("lastresort", "adobeblank", "notdef")  # fonts that have a sign for everything, and no letter
_SPECIAL = ("bold", "italic", "oblique", "condensed", "light", "mono", "serif", "math", "emoji")  # to be tried last


def font_for(text: str, size: int) -> Any | None:
    """A font of that size in pixels in which a text can be drawn, or None if there is none here."""
    path = _file_with("".join(sorted(set(text) - {" "})))
    if path is None:
        return None
    return ImageFont.truetype(path, size) if path else ImageFont.load_default(size)


def numbered(names: Sequence[str]) -> dict[int, str]:
    """The names that no font here has, by their place, which is drawn instead."""
    return {number: name for number, name in enumerate(names) if font_for(name, 14) is None}


@cache
def _file_with(letters: str) -> str | None:
    """The file of a font that has all letters; empty for Pillow's own, None if there is none."""
    if _has(ImageFont.load_default(14), letters):
        return ""
    if any(_is_joined(letter) for letter in letters) and not features.check("raqm"):
        return None  # its letters would stand unjoined, in the wrong order
    for path in _files():
        try:
            if _has(ImageFont.truetype(path, 14), letters):
                return path
        except OSError:  # broken, or of pictures of one size
            continue
    return None


def _has(font: Any, letters: Iterable[str]) -> bool:
    missing = bytes(font.getmask(_NO_LETTER))
    return all(bytes(font.getmask(letter)) != missing for letter in letters)


def _is_joined(letter: str) -> bool:
    """Whether a letter is written from the right to the left or together with others."""
    return unicodedata.bidirectional(letter) in ("R", "AL") or unicodedata.category(letter) in ("Mn", "Mc")


@cache
def _files() -> list[str]:
    """The machine's fonts, plain ones first."""
    files = {path for folder in folders() for path in folder.rglob("*")}
    found = [path for path in files if path.suffix.lower() in (".ttf", ".otf", ".ttc")]
    names = {path: path.stem.lower().replace("-", "").replace(" ", "") for path in found}
    kept = [path for path in found if not names[path].startswith(_BOXES)]
    return [str(path) for path in sorted(kept, key=lambda path: (any(word in names[path] for word in _SPECIAL), path))]


def folders() -> list[Path]:
    """Where this kind of system has its fonts."""
    home, variables = Path.home(), os.environ
    if sys.platform == "win32":
        local = variables.get("LOCALAPPDATA", str(home / "AppData" / "Local"))
        return [Path(variables.get("WINDIR", "C:/Windows")) / "Fonts", Path(local) / "Microsoft" / "Windows" / "Fonts"]
    if sys.platform == "darwin":
        return [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library" / "Fonts"]
    data = [variables.get("XDG_DATA_HOME") or str(home / ".local" / "share")]
    data += (variables.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share").split(":")
    return [Path(folder) / "fonts" for folder in data]
