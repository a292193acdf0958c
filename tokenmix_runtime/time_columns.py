"""Which columns of a table are its dates, one or year, month and so on apart, and which only count rows."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from tokenmix_runtime.names import unknown
from tokenmix_runtime.times import are_regular_numbers, looks_like_times, parse_times, usual_form

TIME_NAMES = ("date", "time", "datetime", "timestamp", "ds")  # always dates, and these if they can be read as such:
PERIOD_NAMES = ("month", "year", "quarter", "week", "period", "day")
ROW_NAMES = ("", "#", "id", "idx", "index", "no", "no.", "nr", "nr.", "row", "rownum", "n", "t", "step", "unnamed: 0")
YEAR_NAMES = ("decimal date", "decimal year", "decimal_date", "decimal_year")  # beside a column of dates
FIRST_YEAR = 1500  # a column that counts up to less has no dates
SAMPLE = 20  # rows that are looked at
PARTS = (
    ("year", FIRST_YEAR, 9999),
    ("month", 1, 12),
    ("day", 1, 31),
    ("hour", 0, 24),
    ("minute", 0, 59),
    ("second", 0, 59),
)
_CLOCK = re.compile(r"\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?( ?[ap]m)?", re.IGNORECASE)
_WITHOUT_NAME = re.compile(r"column \d+")


def time_column(header: Sequence[str], columns: Sequence[Sequence[str]], time: str | None) -> int | None:
    """The column with the dates: the named one, one with a usual name, or the first that looks like dates.

    Raises:
        ValueError: No column has the name ``time``.
    """
    if time == "":
        return None
    if time is not None:
        if time not in header:
            raise ValueError(unknown("column", time, header))
        return list(header).index(time)
    samples = {place: column[:SAMPLE] for place, column in enumerate(columns) if not is_clock(column)}
    titles = {place: header[place].strip().lower() for place, cells in samples.items() if not _counts(cells)}
    named = [place for place, title in titles.items() if title in TIME_NAMES]
    periods = [p for p, title in titles.items() if title in PERIOD_NAMES and _can_be_times(_usual(samples[p]))]
    if whole := named or [p for p in periods if looks_like_times(_usual(samples[p]))] or periods:
        return whole[0]
    for looks in (looks_like_times, lambda cells: looks_like_times(_usual(cells)), are_regular_numbers):
        found = [place for place, cells in samples.items() if looks(cells)]
        if found:
            return found[0]
    return None


def date_parts(header: Sequence[str], columns: Sequence[Sequence[str]]) -> tuple[list[int], list[str]]:
    """Columns named year, month and perhaps day, hour and so on: their places, and what they say together.

    Both are empty where there is no such pair of columns, or they have other numbers.
    """
    places = {name.strip().lower(): place for place, name in enumerate(header)}
    found: list[int] = []
    numbers: list[list[int]] = []
    for name, least, most in PARTS:
        if name not in places:
            break
        values = _whole(columns[places[name]], least, most)
        if values is None:  # a day that is a whole date, say
            return [], []
        found.append(places[name])
        numbers.append(values)
    if len(found) < 2:
        return [], []
    cells = []
    for row in zip(*numbers, strict=True):
        day, clock = (":".join(f"{value:02d}" for value in part) for part in (row[:3], (*row[3:], 0, 0)[:3]))
        cells.append(day.replace(":", "-") + (f" {clock}" if len(row) > 3 else ""))
    return found, cells


def is_clock(cells: Sequence[str]) -> bool:
    """Whether a column has times of the day alone."""
    filled = [cell for cell in map(str.strip, cells[:SAMPLE]) if cell]
    return bool(filled) and all(_CLOCK.fullmatch(cell) for cell in filled)


def counts_rows(name: str, cells: Sequence[str]) -> bool:
    """Whether a column that is no date counts rows, seconds or years, instead of telling a variable."""
    title = name.strip().lower()
    if title in TIME_NAMES:
        return _counts(cells)
    if title in YEAR_NAMES:
        return True
    if title not in ROW_NAMES and not _WITHOUT_NAME.fullmatch(title):
        return False
    values = _whole(cells, 0, len(cells))
    return values is not None and values == list(range(values[0], values[0] + len(values)))


def _counts(cells: Sequence[str]) -> bool:
    """Whether a column counts rows or seconds from some number below any year on."""
    try:
        values = np.array([float(cell) for cell in cells])
    except ValueError:
        return False
    steps = np.diff(values)
    even = len(steps) > 1 and np.allclose(steps, steps[0], rtol=1e-6, atol=1e-9) and steps[0] > 0
    return bool(even) and values[0] >= 0 and values[-1] < FIRST_YEAR


def _whole(cells: Sequence[str], least: int, most: int) -> list[int] | None:
    """A column of whole numbers within bounds."""
    texts = [cell.strip().removesuffix(".0") for cell in cells]
    if not all(text.isdecimal() and len(text) < 10 for text in texts):
        return None
    values = list(map(int, texts))
    return values if all(least <= value <= most for value in values) else None


def _usual(cells: Sequence[str]) -> list[str]:
    """Those of the usual form, if they are most."""
    usual = [cell for cell, same in zip(cells, usual_form(cells), strict=True) if same]
    return usual if 3 * len(usual) >= 2 * len(cells) else []


def _can_be_times(cells: Sequence[str]) -> bool:
    try:
        parse_times(cells)
    except ValueError:
        return looks_like_times(cells)
    return True
