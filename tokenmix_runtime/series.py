"""Multivariate time series from files: what was read, what is wrong with it, and its repair.

CSV is read by Python's ``csv`` and checked cell by cell, so that what cannot be used is told with its row; pandas
would turn a column with one bad cell into text without a word, and is not needed for anything else.
"""

from __future__ import annotations

import csv
import gzip
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tokenmix_runtime.names import unknown
from tokenmix_runtime.times import Step, Times, further_times, looks_like_times, parse_times, step_of
from tokenmix_runtime.untrusted import regular_file

TIME_NAMES = ("date", "time", "datetime", "timestamp", "ds")  # always dates, and these if they can be read as such:
PERIOD_NAMES = ("month", "year", "quarter", "week", "period", "day")
MOST_BYTES = 4 << 30  # of a file, also unpacked
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "-", "?", "nil", "#n/a", "missing"})
DELIMITERS = ("\t", ";", "|", ",", " ")  # a comma may be a decimal one, a space divides dates from clocks
_SHORTEST = {"month": 28 * 86_400_000_000, "month end": 28 * 86_400_000_000, "weekday": 86_400_000_000}
SHOWN = 5  # places that a finding names
KINDS = ("missing", "not a number", "unsorted", "repeated", "gap", "constant", "irregular", "dates", "rows")
SERIOUS = ("missing", "not a number")  # without a repair nothing can be computed


@dataclass(frozen=True)
class Finding:
    """Something that a reader of the forecasts has to know about a series.

    Attributes:
        kind: One of `KINDS`.
        message: A sentence with the places.
        count: How many cells, rows or columns.
    """

    kind: str
    message: str
    count: int

    @property
    def is_serious(self) -> bool:
        """Whether the series cannot be used without a repair."""
        return self.kind in SERIOUS


@dataclass(frozen=True)
class Series:
    """Values of M variables at T times.

    Attributes:
        name: Of the file.
        variables: Their names, M.
        values: ``(T, M)`` float64; NaN where the file has no number.
        times: ``(T,)``, or None where the file has no dates.
        step: From one time to the next, or None.
        findings: What was found in the file.
    """

    name: str
    variables: tuple[str, ...]
    values: NDArray[np.float64]
    times: Times | None = None
    step: Step | None = None
    findings: tuple[Finding, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.values)

    def select(self, variables: Sequence[str]) -> Series:
        """The same with these variables only, in this order.

        Raises:
            ValueError: If one has no such name.
        """
        for name in variables:
            if name not in self.variables:
                raise ValueError(unknown(f"variable of {self.name}", name, self.variables))
        columns = [self.variables.index(name) for name in variables]
        return replace(self, variables=tuple(variables), values=self.values[:, columns])

    def time_name(self, row: int) -> str:
        """The time of a row for people, or its number."""
        return (
            f"row {row + 1}" if self.times is None else str(self.times[row].astype("datetime64[s]")).replace("T", " ")
        )

    def next_times(self, count: int) -> Times | None:
        """The ``count`` times that follow the last one; None without dates or a step."""
        if self.times is None or self.step is None:
            return None
        return further_times(self.times[-1], self.step, count)


def read_series(
    path: str | os.PathLike[str], *, time: str | None = None, time_format: str | None = None, repair: bool = False
) -> Series:
    """A series from a CSV file (``.gz`` too) or a Parquet file: one row for each time, one column for each variable.

    Found by themselves: the delimiter, whether there is a header, decimal commas, the column and the form of the dates.
    What is wrong is listed in ``findings``; rows out of order are sorted.

    Args:
        path: The file.
        time: Name of the column with the dates, where it is not found; ``""`` for none.
        time_format: Form of the dates, as of `datetime.strptime`.
        repair: Fill missing cells and gaps between their neighbours, and keep the last of repeated times.

    Raises:
        ValueError: If it is no table of numbers, its dates cannot be read, or cells are missing and ``repair`` is not
            asked for.
    """
    file = regular_file(path)
    name = file.name.split(".")[0]
    if file.suffix in (".parquet", ".pq"):
        header, columns = _read_parquet(file)
    else:
        header, columns = _read_csv(file)
    place = _time_column(header, columns, time)
    times, findings = None, []
    if place is not None:
        try:
            times, notes = parse_times(columns[place], time_format)
        except ValueError as error:
            raise ValueError(f"{file.name}, column {header[place]!r}: {error}") from error
        findings += [Finding("dates", note, len(times)) for note in notes]
    others = [i for i in range(len(header)) if i != place]
    if not others:
        raise ValueError(f"{file.name} has no column of numbers besides the dates")
    values = np.empty((len(columns[0]), len(others)))
    for column, i in enumerate(others):
        values[:, column], found = _numbers(header[i], columns[i])
        findings += found
    made = Series(name, tuple(header[i] for i in others), values, times, findings=tuple(findings))
    return check_series(made, repair=repair)


def check_series(series: Series, *, repair: bool = False) -> Series:
    """The series sorted by time, with its step and all findings; repaired if asked for.

    Raises:
        ValueError: If values are missing and ``repair`` is false, or a variable has none at all.
    """
    findings = list(series.findings)
    values, times, step = series.values, series.times, None
    if times is not None:
        if bool((np.diff(times) < np.timedelta64(0)).any()):
            later = np.flatnonzero(np.diff(times) < np.timedelta64(0))
            findings.append(_finding("unsorted", "rows were out of order and are sorted, at", times[later + 1]))
            order = np.argsort(times, kind="stable")
            values, times = values[order], times[order]
        step = step_of(times)
        findings += _time_findings(times, step)
    if repair and times is not None:
        values, times = _regular(values, times, step)
    findings += _value_findings(series.variables, values)
    serious = [finding.message for finding in findings if finding.is_serious]
    if serious and not repair:
        raise ValueError(f"{series.name}: {'; '.join(serious)}. Correct the file, or ask for its repair")
    if repair:
        values = _filled(series.variables, values)
    return replace(series, values=values, times=times, step=step, findings=tuple(findings))


def _time_findings(times: Times, step: Step | None) -> list[Finding]:
    findings = []
    distances = np.diff(times)
    repeated = np.flatnonzero(distances == np.timedelta64(0))
    if len(repeated):
        findings.append(_finding("repeated", "times that occur more than once:", times[repeated + 1]))
    if step is None:
        if len(times) > 2:
            findings.append(Finding("irregular", "times have no common step: rows count as equally far", len(times)))
        return findings
    if step.unit == "us":
        expected = times[:-1] + np.timedelta64(step.count, "us")
    else:
        expected = np.array([further_times(time, step, 1)[0] for time in times[:-1]])
    gaps = np.flatnonzero(times[1:] > expected)
    if len(gaps):
        findings.append(_finding("gap", f"steps longer than {step}, after", times[gaps]))
    return findings


def _value_findings(variables: Sequence[str], values: NDArray[np.float64]) -> list[Finding]:
    with np.errstate(invalid="ignore"):
        first = values[np.isfinite(values).argmax(0), np.arange(values.shape[1])]
        constant = np.flatnonzero(((values == first) | np.isnan(values)).all(0))
    if not len(constant):
        return []
    names = ", ".join(variables[i] for i in constant[:SHOWN]) + (", ..." if len(constant) > SHOWN else "")
    return [Finding("constant", f"variables that never change: {names}", len(constant))]


def _regular(values: NDArray[np.float64], times: Times, step: Step | None) -> tuple[NDArray[np.float64], Times]:
    """The last row of every repeated time, and rows of NaN where a step is missing."""
    keep = np.append(np.diff(times) > np.timedelta64(0), True)
    values, times = values[keep], times[keep]
    if step is None or len(times) < 2:
        return values, times
    shortest = np.timedelta64(step.count * (1 if step.unit == "us" else _SHORTEST[step.unit]), "us")
    grid = np.append(times[:1], further_times(times[0], step, int((times[-1] - times[0]) / shortest)))
    full = grid[grid <= times[-1]]
    if not bool(np.isin(times, full).all()):  # rows between the steps would be lost
        return values, times
    result = np.full((len(full), values.shape[1]), np.nan)
    result[np.searchsorted(full, times)] = values
    return result, full


def _filled(variables: Sequence[str], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Missing values on the line between their neighbours, at the ends the nearest one."""
    result = values.copy()
    rows = np.arange(len(values))
    for column, name in enumerate(variables):
        known = np.isfinite(values[:, column])
        if not known.any():
            raise ValueError(f"the variable {name!r} has no number at all: leave it out")
        if not known.all():
            result[:, column] = np.interp(rows, rows[known], values[known, column])
    return result


def _finding(kind: str, words: str, times: Times) -> Finding:
    shown = ", ".join(str(time.astype("datetime64[s]")).replace("T", " ") for time in times[:SHOWN])
    return Finding(kind, f"{words} {shown}{', ...' if len(times) > SHOWN else ''} ({len(times)})", len(times))


def _time_column(header: Sequence[str], columns: Sequence[Sequence[str]], time: str | None) -> int | None:
    """The column with the dates: the named one, one with a usual name, or the first that looks like dates."""
    if time == "":
        return None
    if time is not None:
        if time not in header:
            raise ValueError(unknown("column", time, header))
        return list(header).index(time)
    lower = [name.strip().lower() for name in header]
    for place, name in enumerate(lower):
        if name in TIME_NAMES or (name in PERIOD_NAMES and _can_be_times(columns[place][:20])):
            return place
    return next((place for place, column in enumerate(columns) if looks_like_times(column[:20])), None)


def _can_be_times(cells: Sequence[str]) -> bool:
    try:
        parse_times(cells)
    except ValueError:
        return looks_like_times(cells)
    return True


def _numbers(name: str, cells: Sequence[str]) -> tuple[NDArray[np.float64], list[Finding]]:
    """A column as numbers, NaN where there is none, and what was found."""
    try:
        values = np.array(cells, dtype=np.float64)
    except ValueError:
        values = np.array([_number(cell) for cell in cells])
    bad = np.flatnonzero(~np.isfinite(values))
    findings = []
    for kind, wanted in (("missing", True), ("not a number", False)):
        rows = [int(row) for row in bad if (cells[int(row)].strip().lower() in MISSING) == wanted]
        if rows:
            shown = ", ".join(f"row {row + 1}" + ("" if wanted else f" ({cells[row]!r})") for row in rows[:SHOWN])
            more = ", ..." if len(rows) > SHOWN else ""
            findings.append(Finding(kind, f"{name}: {len(rows)} cells are {kind}: {shown}{more}", len(rows)))
    values[bad] = np.nan
    return values, findings


def _number(cell: str) -> float:
    text = cell.strip()
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return float(text.replace(",", ".")) if text.count(",") == 1 and "." not in text else float("nan")
    except ValueError:
        return float("nan")


def _read_csv(file: Path) -> tuple[list[str], list[list[str]]]:
    """Header and columns as text."""
    lines = [line for line in _text(file).splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise ValueError(f"{file.name} is empty")
    delimiter = _delimiter(lines[:50])
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise ValueError(f"{file.name}, line {reader.line_num}: {error}") from error
    width = len(rows[0])
    for number, row in enumerate(rows, 1):
        if len(row) != width:
            raise ValueError(f"{file.name}: row {number} has {len(row)} cells, the first one {width}")
    words = [cell for cell in rows[0] if cell.strip().lower() not in MISSING and np.isnan(_number(cell))]
    has_header = any(not looks_like_times([cell]) for cell in words)
    header = [cell.strip() for cell in rows.pop(0)] if has_header else [f"variable {i + 1}" for i in range(width)]
    header = [name or f"column {i + 1}" for i, name in enumerate(header)]
    if len(set(header)) < width:
        twice = next(name for name in header if header.count(name) > 1)
        raise ValueError(f"{file.name} has two columns named {twice!r}")
    if not rows:
        raise ValueError(f"{file.name} has a header but no rows")
    return header, [list(column) for column in zip(*rows, strict=True)]


def _text(file: Path) -> str:
    with file.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
        stream.seek(0)
        try:
            data = (gzip.GzipFile(fileobj=stream) if packed else stream).read(MOST_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{file.name} is a damaged gzip file ({error})") from error
    if len(data) > MOST_BYTES:
        raise ValueError(f"{file.name} has more than {MOST_BYTES >> 30} GiB: cut it")
    for encoding in ("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", "cp1252"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\x00" not in text:
            return text
    raise ValueError(f"{file.name} is no text file")


def _delimiter(lines: Sequence[str]) -> str:
    """The first that divides all lines into the same number of cells; a comma if none does."""
    for delimiter in DELIMITERS:
        counts = {len(row) for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True)}
        if len(counts) == 1 and counts != {1}:
            return delimiter
    return ","


def _read_parquet(file: Path) -> tuple[list[str], list[list[str]]]:
    """Header and columns as text, by pyarrow or by pandas with whatever reads Parquet for it."""
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        try:
            import pandas
        except ImportError:
            raise ValueError(f"{file.name} needs pyarrow: pip install pyarrow") from None
        frame = pandas.read_parquet(file)
        frame = frame if isinstance(frame.index, pandas.RangeIndex) else frame.reset_index()
        return [str(name) for name in frame.columns], [frame[name].astype(str).tolist() for name in frame.columns]
    table = parquet.read_table(file)
    return list(table.column_names), [
        ["" if v is None else str(v) for v in column.to_pylist()] for column in table.columns
    ]
