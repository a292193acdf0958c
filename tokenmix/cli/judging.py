"""What ``tokenmix eval`` prints: numbers in a line, classes in a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tokenmix.cli.output import table

SHOWN = 25  # classes in the printed table
_PLAIN = ("loss", "brier")  # numbers that are no percentages
_HEADERS = {
    **{"class": "class", "images": "images", "top1": "top1, %", "confused_with": "most often taken for"},
    **{"mask_AP": "mask AP, %", "mask_AP50": "mask AP50, %", "box_AP": "box AP, %", "box_AP50": "box AP50, %"},
    **{"IoU": "IoU, %", "Acc": "accuracy, %"},
}


def numbers_line(numbers: Mapping[str, float]) -> str:
    """Names and values; percentages with their sign, and a dash for what does not exist."""
    return "  ".join(f"{name} {_number(name, value)}" for name, value in numbers.items())


def _number(name: str, value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.4f}" if name in _PLAIN else f"{value:.2f} %"


def class_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The classes, or the hardest ones of many."""
    columns = [name for name in _HEADERS if rows and name in rows[0]]
    judged = next((name for name in ("top1", "mask_AP", "box_AP", "IoU") if name in columns), "class")
    shown = rows if len(rows) <= SHOWN else sorted(rows, key=lambda row: _rank(row[judged]))[:SHOWN]
    text = table([_HEADERS[name] for name in columns], [[_cell(row, name) for name in columns] for row in shown])
    more = f"\nthe hardest {SHOWN} of {len(rows):,} classes; --json has all" if len(rows) > SHOWN else ""
    return text + more


def _rank(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _cell(row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    if name == "confused_with":
        return f"{value} ({row['confused']:,})" if value else ""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
