"""Multivariate time series from files: what was read, what is wrong with it, and its repair.

CSV is read by Python's ``csv`` and checked cell by cell, so that what cannot be used is told with its row; pandas
would turn a column with one bad cell into text without a word, and is not needed for anything else.
"""

from __future__ import annotations

import csv
import gzip
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tokenmix_runtime.names import unknown
from tokenmix_runtime.numerals import DECIMALS, decimal_marks, number, numbers
from tokenmix_runtime.time_columns import counts_rows, date_parts, is_clock, time_column
from tokenmix_runtime.times import (
    Step,
    Times,
    further_times,
    looks_like_times,
    parse_times,
    step_of,
    told_time,
    usual_form,
)
from tokenmix_runtime.untrusted import regular_file

MOST_BYTES = 4 << 30  # of a file, also unpacked
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "-", "?", "nil", "#n/a", "missing"})
DELIMITERS = ("\t", ";", "|", ",", " ")  # a comma may be a decimal one, a space divides dates from clocks
_SHORTEST = {"month": 28 * 86_400_000_000, "month end": 28 * 86_400_000_000, "weekday": 86_400_000_000}
SHOWN = 5  # places that a finding names
KINDS = (
    *("missing", "not a number", "not a date", "unsorted", "repeated", "gap", "constant", "irregular", "dates"),
    *("thousands", "title", "left out", "filled"),
)
SERIOUS = ("missing", "not a number", "not a date")  # without a repair nothing can be computed
MOST_TITLES = 9  # lines above the header
MUCH, TOO_MUCH = 0.2, 0.5  # of a variable's cells, that a repair would make up
_ENDINGS = (".csv", ".tsv", ".txt", ".gz", ".parquet", ".pq")  # that do not belong to a series' name


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
        return f"row {row + 1}" if self.times is None else told_time(self.times[row])

    def next_times(self, count: int) -> Times | None:
        """The ``count`` times that follow the last one; None without dates or a step."""
        if self.times is None or self.step is None:
            return None
        return further_times(self.times[-1], self.step, count)


def read_series(
    path: str | os.PathLike[str],
    *,
    time: str | None = None,
    time_format: str | None = None,
    repair: bool = False,
    variables: Sequence[str] | None = None,
    leave: Sequence[str] = (),
    decimal: str | None = None,
) -> Series:
    """A series from a CSV file (``.gz`` too) or a Parquet file: one row for each time, one column for each variable.

    Found by themselves: the delimiter, whether there is a header, lines of a title above it, decimal commas, thousands'
    separators, the column and the form of the dates, and a column of clocks that belongs to them. Columns without any
    number are left out. What is wrong or had to be decided is listed in ``findings``; rows out of order are sorted.

    Args:
        path: The file.
        time: Name of the column with the dates, where it is not found; ``""`` for none.
        time_format: Form of the dates, as of `datetime.strptime`; where clocks have a column, that of both.
        repair: Fill missing cells and gaps between their neighbours, keep the last of repeated times, and leave out
            rows without a date.
        variables: Which to keep, in this order; None: all.
        leave: Names of columns to leave out.
        decimal: ``"point"`` or ``"comma"``, where numbers such as 1.179 could be thousands or decimals.

    Raises:
        ValueError: If there is no such file, it is no table of numbers, its dates cannot be read, or cells are missing
            and ``repair`` is not asked for, or most of a variable's are.
    """
    if decimal is not None and decimal not in DECIMALS:
        raise ValueError(unknown("decimal mark", decimal, DECIMALS))
    try:
        file = regular_file(path)
    except FileNotFoundError:
        raise ValueError(f"{os.fspath(path)}: no such file; a series is a CSV or a Parquet file") from None
    name = file.name
    while (ending := Path(name).suffix).lower() in _ENDINGS:
        name = name.removesuffix(ending)
    delimiter, findings = "", list[Finding]()
    if file.suffix in (".parquet", ".pq"):
        header, columns = _read_parquet(file)
    else:
        header, columns, delimiter, findings = _read_csv(file)
    for left in leave:
        if left not in header:
            raise ValueError(unknown("column", left, header))
    place = time_column(header, columns, time)
    others = [i for i in range(len(header)) if i != place and header[i] not in leave]
    if time is None:
        parts, cells = date_parts(header, columns)
        if parts and (place is None or place in parts):
            place, columns[parts[0]] = parts[0], cells
            others = [i for i in others if i not in parts]
            words = f"dates are put together from the columns {', '.join(header[i] for i in parts)}"
            findings.append(Finding("dates", words, len(cells)))
    for i in [i for i in others if header[i] not in (variables or ()) and counts_rows(header[i], columns[i])]:
        others.remove(i)
        findings.append(Finding("left out", f"{header[i]}: counts rows or seconds, and has no dates", 1))
    times = None
    if place is not None:
        clock = next((i for i in others if is_clock(columns[i])), None)
        if clock is not None and not any(":" in cell for cell in columns[place]):
            pairs = zip(columns[place], columns[clock], strict=True)
            columns[place] = [f"{day} {hour}".strip() for day, hour in pairs]
            others.remove(clock)
        try:
            times, rows, found = _times(columns[place], time_format)
        except ValueError as error:
            raise ValueError(f"{file.name}, column {header[place]!r}: {error}") from error
        findings += found
        columns = columns if len(rows) == len(columns[0]) else [[column[row] for row in rows] for column in columns]
    if not others:
        raise ValueError(f"{file.name} has no column of numbers besides the dates")
    for wanted in variables or ():
        if wanted not in (names := [header[i] for i in others]):
            raise ValueError(unknown(f"variable of {name}", wanted, names))
    named = {header[i]: columns[i] for i in others}
    kept, found = _numbers(named, {DECIMALS[decimal]} if decimal else set(), variables, comma_divides=delimiter == ",")
    chosen = tuple(kept if variables is None else variables)
    if not chosen or not kept.keys() >= set(chosen):
        raise ValueError(f"{file.name} has no number in {', '.join(variables or named)}")
    table, findings = np.stack([kept[variable] for variable in chosen], 1), findings + found
    return check_series(Series(name, chosen, table, times, findings=tuple(findings)), repair=repair)


def check_series(series: Series, *, repair: bool = False) -> Series:
    """The series sorted by time, with its step and all findings; repaired if asked for.

    Raises:
        ValueError: If values are missing and ``repair`` is false, or most of a variable's are.
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
        values, times = _regular(series.name, values, times, step)
    findings += _value_findings(series.variables, values)
    serious = [finding.message for finding in findings if finding.is_serious]
    if serious and not repair:
        raise ValueError(
            f"{series.name}: {'; '.join(serious)}. Correct the file, or ask for its repair (--repair, or "
            ":repair=yes behind its name), or leave columns out (--leave NAMES, or :leave=NAMES)"
        )
    if repair:
        values, found = _filled(series, values)
        findings += found
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


def _regular(
    name: str, values: NDArray[np.float64], times: Times, step: Step | None
) -> tuple[NDArray[np.float64], Times]:
    """The last row of every repeated time, and rows of NaN where a step is missing."""
    keep = np.append(np.diff(times) > np.timedelta64(0), True)
    values, times = values[keep], times[keep]
    if step is None or len(times) < 2:
        return values, times
    shortest = np.timedelta64(step.count * (1 if step.unit == "us" else _SHORTEST[step.unit]), "us")
    count = int((times[-1] - times[0]) / shortest)
    if step.unit == "us":
        if bool(((times - times[0]) % shortest != np.timedelta64(0)).any()):  # as below
            return values, times
        if count + 1 > len(times) / (1 - TOO_MUCH):  # a mistyped year asks for billions of rows
            before = int(np.diff(times).argmax())
            raise ValueError(
                f"{name}: {count + 1 - len(times):,} of {count + 1:,} rows are missing, too many to fill, most of them "
                f"between {told_time(times[before])} and {told_time(times[before + 1])}: correct the dates, or cut the "
                "file to where it has rows"
            )
    grid = np.append(times[:1], further_times(times[0], step, count))
    full = grid[grid <= times[-1]]
    if not bool(np.isin(times, full).all()):  # rows between the steps would be lost
        return values, times
    result = np.full((len(full), values.shape[1]), np.nan)
    result[np.searchsorted(full, times)] = values
    return result, full


def _filled(series: Series, values: NDArray[np.float64]) -> tuple[NDArray[np.float64], list[Finding]]:
    """Missing values on the line between their neighbours, at the ends the nearest one, and how many they were."""
    result, count = values.copy(), len(values)
    rows = np.arange(count)
    missing = {name: int(np.isnan(column).sum()) for name, column in zip(series.variables, values.T, strict=True)}
    for column, (name, bad) in enumerate(missing.items()):
        if bad == count:
            raise ValueError(f"the variable {name!r} has no number at all: leave it out")
        if bad > TOO_MUCH * count:
            raise ValueError(
                f"{series.name}: {bad:,} of {count:,} cells of {name!r} are missing (with rows of gaps), too many to "
                f"fill: cut the file to where it has numbers, or leave the column out (--leave, or :leave={name})"
            )
        if bad:
            known = np.isfinite(values[:, column])
            result[:, column] = np.interp(rows, rows[known], values[known, column])
    most = sorted((name for name, bad in missing.items() if bad), key=lambda name: -missing[name])
    if not most:
        return result, []
    total = sum(missing.values())
    shares = [f"{missing[name]:,} of {name} ({missing[name] / count:.1%})" for name in most[:SHOWN]]
    words = f"filled {total:,} cells between their neighbours: {', '.join(shares)}{', ...' if most[SHOWN:] else ''}"
    if much := [name for name in most if missing[name] > MUCH * count]:
        words += f". WARNING: more than a fifth of {', '.join(much[:SHOWN])} is made up, and so is what follows from it"
    return result, [Finding("filled", words, total)]


def _finding(kind: str, words: str, times: Times) -> Finding:
    shown = ", ".join(map(told_time, times[:SHOWN]))
    return Finding(kind, f"{words} {shown}{', ...' if len(times) > SHOWN else ''} ({len(times)})", len(times))


def _times(cells: Sequence[str], form: str | None) -> tuple[Times, Sequence[int], list[Finding]]:
    """The times of a column, the rows that have one, and what was found."""
    try:
        times, notes = parse_times(cells, form)
        rows: Sequence[int] = range(len(cells))
        odd: list[int] = []
    except ValueError:
        usual = usual_form(cells)
        rows, odd = [i for i, same in enumerate(usual) if same], [i for i, same in enumerate(usual) if not same]
        if not odd or 2 * len(odd) > len(rows):
            raise
        times, notes = parse_times([cells[i] for i in rows], form)
    findings = [Finding("dates", note, len(times)) for note in notes]
    if odd:
        shown = ", ".join(f"row {i + 1} ({cells[i]!r})" for i in odd[:SHOWN]) + (", ..." if len(odd) > SHOWN else "")
        if any(looks_like_times([cells[i]]) for i in odd):
            raise ValueError(f"{shown} is written otherwise than {cells[rows[0]]!r}: write all dates in the same way")
        findings.append(
            Finding("not a date", f"{len(odd)} rows have no date (a repair leaves them out): {shown}", len(odd))
        )
    return times, rows, findings


def _numbers(
    columns: Mapping[str, Sequence[str]], marks: set[str], variables: Sequence[str] | None, *, comma_divides: bool
) -> tuple[dict[str, NDArray[np.float64]], list[Finding]]:
    """The columns that are wanted and have numbers, NaN where there is none, and what was found."""
    proven = {name: marks or decimal_marks(cells) for name, cells in columns.items()}
    elsewhere: set[str] = set().union(*proven.values())
    kept: dict[str, NDArray[np.float64]] = {}
    findings: list[Finding] = []
    for name, cells in columns.items():
        values, note = numbers(cells, proven[name], elsewhere, comma_divides=comma_divides)
        bad = int(np.count_nonzero(~np.isfinite(values)))
        if bad < len(cells) and (variables is None or name in variables):
            kept[name] = values
            findings += [Finding("thousands", f"{name}: {note}", len(cells))] if note else []
            findings += _bad_cells(name, cells, values)
        elif bad:
            words = f"left out: column {name.removeprefix('column ')}, {bad:,} of {len(cells):,} cells are not numbers"
            findings.append(Finding("left out", words, bad))
    return kept, findings


def _bad_cells(name: str, cells: Sequence[str], values: NDArray[np.float64]) -> list[Finding]:
    """What is said of cells without a finite number, which become NaN."""
    bad = np.flatnonzero(~np.isfinite(values))
    findings = []
    for kind, wanted in (("missing", True), ("not a number", False)):
        rows = [int(row) for row in bad if (cells[int(row)].strip().lower() in MISSING) == wanted]
        if rows:
            shown = ", ".join(f"row {row + 1}" + ("" if wanted else f" ({cells[row]!r})") for row in rows[:SHOWN])
            more = ", ..." if len(rows) > SHOWN else ""
            findings.append(Finding(kind, f"{name}: {len(rows):,} cells are {kind}: {shown}{more}", len(rows)))
    values[bad] = np.nan
    return findings


def _read_csv(file: Path) -> tuple[list[str], list[list[str]], str, list[Finding]]:
    """Header and columns as text, the delimiter, and what was found."""
    lines = [line for line in _text(file).splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise ValueError(f"{file.name} is empty")
    delimiter = _delimiter(lines)
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise ValueError(f"{file.name}, line {reader.line_num}: {error}") from error
    findings = []
    titles = next((i for i, row in enumerate(rows) if sum(map(bool, row)) > 1), 0)
    if 0 < titles <= MOST_TITLES and _is_header(rows[titles]):
        shown = " ".join(cell for row in rows[:titles] for cell in row if cell)
        findings.append(Finding("title", f"skipped above the header, as a title: {shown[:100]!r}", titles))
        rows = rows[titles:]
    width = len(rows[0])
    if any(len(row) > width for row in rows) and not any(any(row[width:]) for row in rows):
        findings.append(Finding("left out", "left out: an empty column without a name, behind the last delimiter", 1))
        rows = [row[:width] for row in rows]
    for place, row in enumerate(rows, 1):
        if len(row) != width:
            title = "; if the first line is a title, delete it" if width == 1 else ""
            raise ValueError(f"{file.name}: row {place} has {len(row)} cells, the first one {width}{title}")
    words = [cell for cell in rows[0] if _is_word(cell)]
    has_header = any(not looks_like_times([cell]) for cell in words)
    header = [cell.strip() for cell in rows.pop(0)] if has_header else [f"variable {i + 1}" for i in range(width)]
    header = [name or f"column {i + 1}" for i, name in enumerate(header)]
    if len(set(header)) < width:
        twice = next(name for name in header if header.count(name) > 1)
        raise ValueError(f"{file.name} has two columns named {twice!r}")
    if not rows:
        raise ValueError(f"{file.name} has a header but no rows")
    return header, [list(column) for column in zip(*rows, strict=True)], delimiter, findings


def _is_word(cell: str) -> bool:
    return cell.strip().lower() not in MISSING and bool(np.isnan(number(cell)))


def _is_header(row: Sequence[str]) -> bool:
    """Whether all cells that are not empty are words, and no dates."""
    filled = [cell for cell in row if cell.strip()]
    return all(_is_word(cell) and not looks_like_times([cell]) for cell in filled)


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
    """The first that divides all lines into the same number of cells, lines of a title aside; a comma if none does."""
    for first in range(min(MOST_TITLES + 1, max(len(lines) - 1, 1))):
        part = lines[first : first + 50]
        for delimiter in DELIMITERS:
            try:
                rows = list(csv.reader(part, delimiter=delimiter, skipinitialspace=True))
            except csv.Error:  # a cell of more than 128 KiB
                continue
            counts = {len(row) for row in rows}
            if len(counts) == 1 and counts != {1} and (not first or delimiter != " " or _is_header(rows[0])):
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
