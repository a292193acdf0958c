"""Text from files on a terminal: it is shown, and does nothing there.

A name may hold any character. Those that a terminal obeys (escape sequences clear the screen, change the title or write
into the keyboard's buffer), or that turn the reading direction, so that another name is read, are shown as escapes.
"""

from __future__ import annotations

import re
from typing import IO

# C0, DEL and C1; marks and overrides of direction; separators of lines; halves of pairs, which are bytes not in UTF-8.
_ACTING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def shown(text: str, *, lines: bool = False) -> str:
    r"""The text with every character that acts as its escape, such as ``\x1b``; bytes that are not UTF-8 become ``?``.

    Args:
        text: Any.
        lines: Keep line feeds and tabs: it is a whole text, not a name.
    """

    def escape(found: re.Match[str]) -> str:
        character = found[0]
        if lines and character in "\n\t":
            return character
        return "?" if "\ud800" <= character <= "\udfff" else ascii(character)[1:-1]

    return _ACTING.sub(escape, text)


def say(text: object = "", *, file: IO[str] | None = None, flush: bool = False) -> None:
    """Print a text of one or several lines, as `shown` has it."""
    print(shown(str(text), lines=True), file=file, flush=flush)
