"""Dates that people spread over columns or write as numbers, and columns that only count rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from tokenmix_runtime.series import Series, read_series
from tokenmix_runtime.times import parse_times

HOURS = [datetime(2023, 12, 29, 20) + timedelta(hours=i) for i in range(90)]
MONTHS = [datetime(2001 + i // 12, 1 + i % 12, 1) for i in range(40)]
Read = Callable[..., Series]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Of a header and rows that begin with their dates, with a variable ``load`` behind them."""

    def function(header: str, dates: Sequence[object], **options) -> Series:
        path = tmp_path / "series.csv"
        rows = [f"{day},{row * row % 17}" for row, day in enumerate(dates)]
        path.write_text("\n".join([f"{header},load", *rows]), encoding="utf-8")
        return read_series(path, **options)

    return function


@pytest.mark.parametrize(
    ("header", "form", "times"),
    [
        ("year,month,day,hour", "{0.year},{0.month},{0.day},{0.hour}", HOURS),
        ("Day,Month,Year,Hour,Minute", "{0:%d,%m,%Y,%H,%M}", HOURS),
        ("year,month,decimal date", "{0.year},{0.month},{0.year}.0833", MONTHS),
    ],
)
def test_dates_in_parts_are_put_together(read: Read, header: str, form: str, times: list[datetime]) -> None:
    series = read(header, [form.format(day) for day in times])
    assert series.variables == ("load",)
    assert series.times is not None
    assert series.times.tolist() == times
    assert "put together from the columns" in series.findings[0].message


def test_a_year_alone_is_a_date_and_other_numbers_are_no_parts(read: Read) -> None:
    assert str(read("year", range(1960, 2020)).step) == "year"
    series = read("date,year,month", [f"{day:%Y-%m-%d %H}:00,{day.year},{day.month}" for day in HOURS])
    assert series.variables == ("year", "month", "load")  # beside a date they may tell something
    series = read("year,month,day", [f"{day.year},{day.month},{day:%Y-%m-%d %H}:00" for day in HOURS])
    assert series.variables == ("year", "month", "load")
    assert read("year,month", [f"{1900 + i},{i}" for i in range(40)]).variables == ("month", "load")


@pytest.mark.parametrize("name", ["ts", "unix", "Zeit"])
@pytest.mark.parametrize("unit", [1, 1000])
def test_seconds_since_1970_are_found_whatever_they_are_called(read: Read, name: str, unit: int) -> None:
    series = read(name, [int((day - datetime(1970, 1, 1)).total_seconds()) * unit for day in HOURS])
    assert series.variables == ("load",)
    assert series.times is not None
    assert series.times.tolist() == HOURS
    assert "since 1970" in series.findings[0].message


@pytest.mark.parametrize("form", ["%Y%m%d%H", "%Y%m%d%H%M", "%Y%m%d %H%M", "%Y%m%dT%H%M%SZ", "%Y%m%d %H:%M"])
@pytest.mark.parametrize("name", ["date", "when"])
def test_digits_in_the_order_of_a_date(read: Read, form: str, name: str) -> None:
    series = read(name, [day.strftime(form) for day in HOURS])
    assert series.variables == ("load",)
    assert series.times is not None
    assert series.times.tolist() == HOURS


def test_ten_digits_are_seconds_where_they_are_no_hours() -> None:
    times, notes = parse_times([str(1_700_000_000 + 3600 * i) for i in range(30)])
    assert str(times[0]) == "2023-11-14T22:13:20.000000"
    assert notes == ["dates are numbers and were read as s since 1970, UTC"]


@pytest.mark.parametrize("name", ["", "No", "index", "Unnamed: 0"])
@pytest.mark.parametrize("first", [0, 1])
def test_columns_that_count_rows_are_left_out_and_said(read: Read, name: str, first: int) -> None:
    series = read(f"{name},date", [f"{first + row},{day}" for row, day in enumerate(HOURS)])
    assert series.variables == ("load",)
    assert any("counts rows" in found.message for found in series.findings)
    if name:
        assert read(f"{name},date", [f"{row},{day}" for row, day in enumerate(HOURS)], variables=[name]).variables == (
            name,
        )


def test_a_number_that_is_called_so_and_counts_nothing_is_a_variable(read: Read) -> None:
    assert read("date,n", [f"{day},{row // 2}" for row, day in enumerate(HOURS)]).variables == ("n", "load")
    assert read("date,meter", [f"{day},{1_000_000_000 + row}" for row, day in enumerate(HOURS)]).variables[0] == "meter"


def test_weeks_and_the_end_of_a_day() -> None:
    weeks, notes = parse_times(["2020-W52", "2020-W53", "2021-W01"])
    assert weeks.astype("datetime64[D]").astype(str).tolist() == ["2020-12-21", "2020-12-28", "2021-01-04"]
    assert notes == ["weeks were read as their Mondays"]
    assert parse_times(["2021W017"])[0].astype("datetime64[D]") == np.datetime64("2021-01-10")
    with pytest.raises(ValueError, match="no date that can be read"):
        parse_times(["2021-W53"])  # that year has 52
    ends, _ = parse_times(["28.02.2023 23:00", "28.02.2023 24:00", "01.03.2023 01:00"])
    assert ends.astype(str).tolist()[1] == "2023-03-01T00:00:00.000000"
    assert np.unique(np.diff(ends)).tolist() == [timedelta(hours=1)]
