"""Columns of numbers as people write them: decimal points or commas, thousands set off by a mark, a space or nothing.

A cell such as ``1.179`` can be read in two ways: a thousand and more, or three decimals. What tells is, in this order,
the other cells of its column, the other columns of its file, and the size of the column's whole numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DECIMALS = {"point": ".", "comma": ","}  # what a user may say
_THOUSAND = 1000.0
# 1.179 and 1'178,80, but not 0.179 and 1.178.80: groups of three behind the same mark, and decimals behind another one
_GROUPED = re.compile(
    r"[+-]?[1-9]\d{0,2}(?P<mark>[.,'\u2019 \u00a0\u2009\u202f])\d{3}(?:(?P=mark)\d{3})*"
    r"(?:(?!(?P=mark))(?P<decimal>[.,])\d*)?"
)
_EITHER = re.compile(r"\s*[+-]?[1-9]\d{0,2}[.,]\d{3}\s*")


def number(cell: str, decimal: str | None = None) -> float:
    """The number in a cell, NaN if there is none.

    Args:
        cell: Its text.
        decimal: ``"."`` or ``","``, which decides what can be read in two ways; None: those have decimals.
    """
    text = cell.strip()
    grouped = _GROUPED.fullmatch(text)
    if grouped and not (_EITHER.fullmatch(text) and grouped["mark"] == (decimal or grouped["mark"])):
        text = text.replace(grouped["mark"], "")
    if text.count(",") == 1 and "." not in text:
        text = text.replace(",", ".")
    try:
        return float("nan") if "_" in text else float(text)
    except ValueError:
        return float("nan")


def decimal_marks(cells: Sequence[str]) -> set[str]:
    """The decimal marks, ``"."`` and ``","``, that cells prove which can be read in one way only."""
    if _plain(cells) is not None:  # none has a comma
        return {"."} if any("." in cell and not _EITHER.fullmatch(cell) for cell in cells) else set()
    marks = set()
    for cell in cells:
        if ("." in cell or "," in cell) and not _EITHER.fullmatch(cell) and np.isfinite(number(cell)):
            grouped = _GROUPED.fullmatch(cell.strip())
            if grouped is None:
                marks.add("," if "," in cell else ".")
            elif grouped["decimal"]:
                marks.add(grouped["decimal"])
            else:
                marks.add("." if grouped["mark"] == "," else ",")
    return marks


def numbers(
    cells: Sequence[str], proven: set[str], elsewhere: set[str], *, comma_divides: bool = False
) -> tuple[NDArray[np.float64], str | None]:
    """A column as numbers, NaN where there is none, and what had to be decided.

    Args:
        cells: Its text.
        proven: Its `decimal_marks`.
        elsewhere: Those of all columns of the file.
        comma_divides: Whether a comma divides the file's columns, and so hardly the decimals.
    """
    mark = _only(proven)
    if mark is not None:
        return _read(cells, mark), None
    either = [cell for cell in cells if ("." in cell or "," in cell) and _EITHER.fullmatch(cell)]
    if not either:
        return _read(cells, None), None
    mark, why = _only(elsewhere), "as in the other columns"
    whole = [cell for cell in cells if cell.strip().lstrip("+-").isdecimal() and float(cell) != 0]
    if mark is None and whole:
        size, other = (np.median([abs(number(cell)) for cell in part]) for part in (whole, either))
        thousands = size > np.sqrt(_THOUSAND) * other
        point = ("." in either[0]) != thousands
        mark, why = "." if point else ",", f"so that they are nearer in size to whole numbers such as {whole[0]!r}"
    elif mark is None:
        mark = "." if comma_divides or "." in either[0] else ","
        why = "as the comma divides the columns" if comma_divides else "as nothing else tells"
    grouped = sum(mark not in cell for cell in either)
    if not grouped and not whole and mark == ".":  # as programs write decimals
        return _read(cells, mark), None
    said, otherwise = ("thousands", "decimals") if grouped else ("decimals", "thousands")
    shown = next(cell for cell in either if not grouped or mark not in cell)
    word = next(word for word, sign in DECIMALS.items() if sign != mark)
    return _read(cells, mark), (
        f"{grouped or len(either):,} cells such as {shown.strip()!r} are read as {said}, {why}; "
        f"if they are {otherwise}, say so (--decimal {word}, or :decimal={word})"
    )


def _read(cells: Sequence[str], mark: str | None) -> NDArray[np.float64]:
    plain = _plain(cells) if mark != "," else None
    return np.array([number(cell, mark) for cell in cells]) if plain is None else plain


def _plain(cells: Sequence[str]) -> NDArray[np.float64] | None:
    """Cells that Python reads as numbers, at once; not those that only a program would write, such as ``1_000``."""
    if any("_" in cell for cell in cells):
        return None
    try:
        return np.array(cells, dtype=np.float64)
    except ValueError:
        return None


def _only(marks: set[str]) -> str | None:
    return next(iter(marks)) if len(marks) == 1 else None
