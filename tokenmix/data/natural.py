"""The order of names that people expect."""

from __future__ import annotations

import re
import unicodedata


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """A sort key that puts 2 before 10 and ignores case."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(0, int(part), "") if part.isascii() and part.isdigit() else (1, 0, part) for part in parts], name


def same(name: str) -> str:
    """What is equal of names that look equal: é as one character (NFC) and as two (NFD)."""
    return unicodedata.normalize("NFC", name)
