"""Tables and bars for people, in plain text as wide as the terminal."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence


def counted(number: float, noun: str, plural: str = "") -> str:
    """``"1 epoch"``, ``"2 epochs"``, ``"1,000 steps"``; the plural is the noun's with s if none is given."""
    told = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{told} {noun if number == 1 else plural or noun + 's'}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned and wrapped to the terminal's width, between words only; numbers to the right."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    narrowest = [max(len(word) for cell in column for word in cell.split() or [""]) for column in columns]
    limit = shutil.get_terminal_size((120, 24)).columns
    while sum(widths) + 2 * (len(widths) - 1) > limit and widths != narrowest:
        room = [width if width > least else 0 for width, least in zip(widths, narrowest, strict=True)]
        widths[room.index(max(room))] -= 1
    right = [
        all(cell.replace(",", "").replace(".", "").strip("-% ").isdigit() or not cell for cell in column[1:])
        for column in columns
    ]
    lines = []
    for number, row in enumerate([header, *rows]):
        cells = [
            textwrap.wrap(cell, width, break_on_hyphens=False) or [""] for cell, width in zip(row, widths, strict=True)
        ]
        for i in range(max(map(len, cells))):
            parts = [cell[i] if i < len(cell) else "" for cell in cells]
            lines.append(
                "  ".join(
                    part.rjust(width) if flush else part.ljust(width)
                    for part, width, flush in zip(parts, widths, right, strict=True)
                ).rstrip()
            )
        if number == 0:
            lines.append("  ".join("-" * width for width in widths))
    return "\n".join(lines)


def bar(share: float, width: int = 30) -> str:
    """A horizontal bar for a share of 1."""
    full = round(share * width)
    return "█" * full + "·" * (width - full)
