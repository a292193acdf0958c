"""Columns of dates as people write them, the step between them, and how they go on.

Times are NumPy's ``datetime64[us]``, without a zone: dates with an offset are moved to UTC.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.datetime64]

_ISO = re.compile(
    r"(\d{4}-\d{2}(?:-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?)?)?)\s*(Z|[+-]\d{2}(?::?\d{2})?)?"
)
_QUARTER = re.compile(r"(?:(\d{4})[-/ ]?Q([1-4])|Q([1-4])[-/ ]?(\d{4}))", re.IGNORECASE)
_WEEK = re.compile(r"(\d{4})[-/ ]?W(\d{2})(?:-?([1-7]))?", re.IGNORECASE)
_BASIC = re.compile(r"(\d{8})[ T](\d{2}):?(\d{2})(?::?(\d{2}))?Z?")  # ISO 8601 without marks between the digits
_MIDNIGHT = re.compile(r"(?<=[ T])24(?=:00(:00)?$)")  # the end of a day
_DIGITS, _LETTERS = re.compile(r"\d+"), re.compile(r"[^\W\d_]+")
_EPOCHS = {10: "s", 13: "ms", 16: "us", 19: "ns"}  # by their number of digits, from 2001 to 2286
_COMPACT = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S", 6: "%Y%m", 4: "%Y"}
_DATES = (
    "%Y/%m/%d", "%Y.%m.%d", "%Y-%m-%d", "%d.%m.%Y", "%d.%m.%y", "%d/%m/%Y", "%m/%d/%Y", "%d/%m/%y", "%m/%d/%y",
    "%d-%m-%Y", "%m-%d-%Y", "%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y",
    "%Y %b %d", "%Y-%b-%d", "%a %b %d %Y", "%a, %d %b %Y", "%b %Y", "%B %Y", "%b-%Y", "%b-%y", "%m/%Y", "%Y/%m",
)  # fmt: skip
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %H", " %I:%M %p", " %I:%M:%S %p", ", %H:%M", "T%H:%M:%S")
_FIRST_HOURS = np.datetime64("1900-01-01")  # ten digits below are seconds since 1970, up to the year 2030
_SAMPLE = 50  # cells that a format has to read before it may read all
_DAY = 86_400_000_000  # microseconds
_UNITS = (("day", _DAY), ("hour", _DAY // 24), ("minute", 60_000_000), ("second", 1_000_000), ("millisecond", 1000))


@dataclass(frozen=True)
class Step:
    """The distance of two neighbouring times: ``count`` times ``unit``.

    Attributes:
        count: How many units.
        unit: ``"us"``, ``"month"`` (the same day of the month), ``"month end"``, or ``"weekday"`` (Monday to Friday).
        day: Of the month, where shorter months have an earlier one; else 0.
    """

    count: int
    unit: str
    day: int = 0

    def __str__(self) -> str:
        count, name = self.count, self.unit
        if self.unit.startswith("month"):
            months, name = next((m, n) for m, n in ((12, "year"), (3, "quarter"), (1, "month")) if count % m == 0)
            count //= months
        elif self.unit == "us":
            size, name = next(((s, n) for n, s in _UNITS if count % s == 0), (1, "microsecond"))
            count //= size
        return name if count == 1 else f"{count} {name}s"

    @property
    def season(self) -> int:
        """Steps in the usual season: a day of shorter steps, a week of days, a year of weeks or months; otherwise 1."""
        if self.unit == "weekday":
            return 5
        if self.unit.startswith("month"):
            return max(1, 12 // self.count)
        longer = next((length for length in (_DAY, 7 * _DAY, 364 * _DAY) if self.count < length), self.count)
        return round(longer / self.count)


def parse_times(cells: Sequence[str], form: str | None = None) -> tuple[Times, list[str]]:
    """Times from the text of a column, and notes about what had to be decided.

    Args:
        cells: One for each row.
        form: The format as of `datetime.strptime`, where it is known.

    Raises:
        ValueError: If the cells are no dates, or dates that can be read in two ways.
    """
    stripped = [cell.strip() for cell in cells]
    if any(late := [bool(_MIDNIGHT.search(cell)) for cell in stripped]):
        begins, notes = parse_times([_MIDNIGHT.sub("00", cell) for cell in stripped], form)
        return begins + np.where(late, _DAY, 0).astype("timedelta64[us]"), notes
    if form is not None:
        times = _by_format(stripped, form)
        if times is None:
            bad = next(cell for cell in stripped if _by_format([cell], form) is None)
            raise ValueError(f"the date {bad!r} is not of the form {form!r}")
        return times, []
    for read in (_iso, _quarters, _weeks, _numbers):
        found = read(stripped)
        if found is not None:
            return found
    return _by_known_formats(stripped)


def looks_like_times(cells: Sequence[str]) -> bool:
    """Whether a few cells are dates, and no plain numbers."""
    if not cells or any(_is_number(cell) for cell in cells):
        return False
    try:
        parse_times(cells)
    except ValueError as error:
        return "two ways" in str(error)
    return True


def are_regular_numbers(cells: Sequence[str]) -> bool:
    """Whether a few whole numbers, of more digits than a year has, are evenly spaced dates."""
    if len(cells) < 3 or not all(cell.strip().removesuffix(".0").isdecimal() for cell in cells):
        return False
    found = _numbers([cell.strip() for cell in cells]) if min(map(len, cells)) >= 8 else None
    return found is not None and _regularity(found[0]) == 2


def usual_form(cells: Sequence[str]) -> list[bool]:
    """Which cells have the form of most: the same marks between digits and letters, however many these are."""
    forms = [_LETTERS.sub("a", _DIGITS.sub("9", cell.strip())) for cell in cells]
    most = Counter(forms).most_common(1)
    return [form == most[0][0] for form in forms]


def step_of(times: Times) -> Step | None:
    """The step that more than half of the neighbours have, None where there is none, or less than two times."""
    distance = _most_common(times, "us")
    if distance == _DAY and len(times) > 7 and bool(np.is_busday(times.astype("datetime64[D]")).all()):
        return Step(1, "weekday")
    if distance is not None and distance < 28 * _DAY:
        return Step(distance, "us")
    months = _most_common(times, "M")
    if months is not None:
        if bool(_at_month_end(times).all()):
            return Step(months, "month end")
        days, firsts = _day_of_month(times), times.astype("datetime64[M]")
        longest = ((firsts + 1).astype("datetime64[D]") - firsts.astype("datetime64[D]")).astype(np.int64) - 1
        if np.array_equal(days, np.minimum(days.max(), longest)):
            return Step(months, "month", 0 if days.min() == days.max() else int(days.max()) + 1)
    return None if distance is None else Step(distance, "us")


def further_times(last: np.datetime64, step: Step, count: int) -> Times:
    """The next ``count`` times after ``last``."""
    day, ahead = last.astype("datetime64[D]"), step.count * np.arange(1, count + 1)
    if step.unit == "us":
        return last.astype("datetime64[us]") + ahead.astype("timedelta64[us]")
    if step.unit == "weekday":
        days = np.busday_offset(day, ahead, roll="backward")
    else:
        months = day.astype("datetime64[M]") + ahead.astype("timedelta64[M]")
        longest = (months + 1).astype("datetime64[D]") - months.astype("datetime64[D]") - np.timedelta64(1, "D")
        after = day - day.astype("datetime64[M]").astype("datetime64[D]")
        after = np.timedelta64(step.day - 1, "D") if step.day else after
        days = months.astype("datetime64[D]") + (longest if step.unit == "month end" else np.minimum(longest, after))
    return days + (last.astype("datetime64[us]") - day)


def told_time(time: np.datetime64) -> str:
    """A time for people: to the second, or as much more as it has."""
    whole, exact = (str(time.astype(f"datetime64[{unit}]")).replace("T", " ") for unit in ("s", "us"))
    fraction = exact.rpartition(".")[2].rstrip("0")
    return f"{whole}.{fraction}" if fraction else whole


def _most_common(times: Times, unit: str) -> int | None:
    """The distance that more than half of the neighbours have, in whole units of ``datetime64``."""
    distances = np.diff(np.asarray(times.astype(f"datetime64[{unit}]").astype(np.int64), dtype=np.int64))
    values, counts = np.unique(distances[distances > 0], return_counts=True)
    return int(values[counts.argmax()]) if len(values) and 2 * counts.max() > len(distances) else None


def _iso(cells: Sequence[str]) -> tuple[Times, list[str]] | None:
    matches = [_ISO.fullmatch(cell) for cell in cells]
    if not matches or not all(matches):
        return None
    try:
        times = np.array([m[1].replace(",", ".") for m in matches if m], dtype="datetime64[us]")
    except ValueError:
        return None
    zones = [m[2] for m in matches if m]
    if not any(zones):
        return times, []
    if not all(zones):
        raise ValueError("some dates have a time zone and some have none: write all in the same way")
    offsets = {zone: _offset(zone) for zone in set(zones)}
    moved = times - np.array([offsets[zone] for zone in zones], dtype="timedelta64[m]")
    return moved, [] if set(offsets.values()) == {0} else ["dates have offsets and were moved to UTC"]


def _offset(zone: str) -> int:
    """Minutes before UTC of ``Z``, ``+02``, ``+0200`` or ``+02:00``."""
    if zone == "Z":
        return 0
    digits = zone[1:].replace(":", "").ljust(4, "0")
    return (-1 if zone[0] == "-" else 1) * (60 * int(digits[:2]) + int(digits[2:]))


def _quarters(cells: Sequence[str]) -> tuple[Times, list[str]] | None:
    matches = [_QUARTER.fullmatch(cell) for cell in cells]
    if not matches or not all(matches):
        return None
    months = [f"{m[1] or m[4]}-{3 * int(m[2] or m[3]) - 2:02d}" for m in matches if m]
    return np.array(months, dtype="datetime64[us]"), []


def _weeks(cells: Sequence[str]) -> tuple[Times, list[str]] | None:
    """Weeks of ISO 8601, by their Mondays where no day is told."""
    matches = [match for match in map(_WEEK.fullmatch, cells) if match]
    if not matches or len(matches) < len(cells):
        return None
    try:
        days = [date.fromisocalendar(int(m[1]), int(m[2]), int(m[3] or 1)) for m in matches]
    except ValueError:
        return None
    notes = [] if all(m[3] for m in matches) else ["weeks were read as their Mondays"]
    return np.array(days, dtype="datetime64[us]"), notes


def _numbers(cells: Sequence[str]) -> tuple[Times, list[str]] | None:
    """Seconds or parts of them since 1970, or digits in the order year, month, day."""
    basic = [_BASIC.fullmatch(cell) for cell in cells]
    whole = ["".join(m.groups("")) if m else cell.removesuffix(".0") for m, cell in zip(basic, cells, strict=True)]
    if not whole or not all(cell.isdecimal() for cell in whole):
        return None
    lengths = {len(cell) for cell in whole}
    if len(lengths) != 1:
        return None
    (length,) = lengths
    compact = _by_format(whole, _COMPACT[length]) if length in _COMPACT else None
    if compact is not None and (length not in _EPOCHS or compact.min() >= _FIRST_HOURS):
        return compact, []
    if length not in _EPOCHS:
        return None
    unit = _EPOCHS[length]
    try:
        times = np.array([int(cell) for cell in whole], dtype=np.int64).astype(f"datetime64[{unit}]")
    except OverflowError:
        return None
    return times.astype("datetime64[us]"), [f"dates are numbers and were read as {unit} since 1970, UTC"]


def _by_known_formats(cells: Sequence[str]) -> tuple[Times, list[str]]:
    every = max(1, len(cells) // _SAMPLE)
    readings: dict[str, Times] = {}
    for form in _formats():
        if cells and _by_format(cells[::every], form) is not None:
            times = _by_format(cells, form)
            if times is not None:
                readings[form] = times
    if not readings:
        shown = cells[0] if cells else ""
        raise ValueError(f"{shown!r} is no date that can be read; give its form, for example %d/%m/%Y %H:%M")
    different = {times.tobytes(): form for form, times in reversed(readings.items())}
    ranks = {form: _regularity(readings[form]) for form in different.values()}
    best = [form for form, rank in ranks.items() if rank == max(ranks.values())]
    if len(best) > 1:
        raise ValueError(f"the date {cells[0]!r} can be read in two ways: give its form, one of {sorted(best)}")
    notes = [f"dates were read as {best[0]}, the only order in which they are regular"] if len(ranks) > 1 else []
    return readings[best[0]], notes


def _regularity(times: Times) -> int:
    """2 for times of one step, 1 for increasing ones, 0 for others."""
    if not bool((np.diff(times) > np.timedelta64(0)).all()):
        return 0
    step = step_of(times)
    return 2 if step is not None and bool((further_times(times[0], step, len(times) - 1) == times[1:]).all()) else 1


def _formats() -> Iterator[str]:
    for day in _DATES:
        for clock in _CLOCKS:
            yield day + clock


def _by_format(cells: Sequence[str], form: str) -> Times | None:
    try:
        return np.array([datetime.strptime(cell, form).replace(tzinfo=None) for cell in cells], dtype="datetime64[us]")
    except ValueError:
        return None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _day_of_month(times: Times) -> NDArray[np.int64]:
    return (times.astype("datetime64[D]") - times.astype("datetime64[M]").astype("datetime64[D]")).astype(np.int64)


def _at_month_end(times: Times) -> NDArray[np.bool_]:
    return (times.astype("datetime64[D]") + 1).astype("datetime64[M]") > times.astype("datetime64[M]")
