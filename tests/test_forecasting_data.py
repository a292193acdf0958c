"""Series from files of every kind: dates, delimiters, what is wrong with them; splits and windows as published."""

from __future__ import annotations

import gzip
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenmix.sources import recognise
from tokenmix.tasks.forecasting.baselines import SeasonalNaive
from tokenmix.tasks.forecasting.batches import window_loader
from tokenmix.tasks.forecasting.facts import check_facts
from tokenmix.tasks.forecasting.networks import make_network
from tokenmix.tasks.forecasting.quick import _look_back
from tokenmix.tasks.forecasting.series_data import (
    SeriesData,
    in_parts,
    open_series,
    read_spec,
    split_spec,
    unseen,
    with_repair,
)
from tokenmix.tasks.forecasting.splits import PUBLISHED, Scaler, Windows, ends_of, find_published
from tokenmix_runtime.series import MISSING, Series, check_series, read_series
from tokenmix_runtime.times import Step, further_times, parse_times, step_of, told_time

HOURS = [datetime(2021, 2, 27, 22) + timedelta(hours=i) for i in range(60)]


def write(folder: Path, text: str, name: str = "series.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def kinds(series: Series) -> list[str]:
    return [finding.kind for finding in series.findings]


def hourly(count: int, start: str = "2020-01-01") -> np.ndarray:
    return np.datetime64(start, "us") + np.arange(count) * np.timedelta64(1, "h")


def series_of(rows: int, variables: int = 2, name: str = "mine") -> Series:
    values = np.random.default_rng(0).normal(size=(rows, variables)).cumsum(0)
    return check_series(Series(name, tuple(f"v{i}" for i in range(variables)), values, hourly(rows)))


def windows_of(data: SeriesData, part: str, look_back: int, horizon: int) -> Windows:
    """The windows of a part as a loader has them."""
    loader = window_loader(getattr(data, part), data.scaler, look_back, horizon, batch_size=1, train=False)
    return loader.samples.windows


@pytest.mark.parametrize(
    "form",
    [
        "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y/%m/%d %H:%M", "%d.%m.%Y %H:%M",
        "%d/%m/%Y %H:%M:%S", "%m/%d/%Y %I:%M %p", "%m/%d/%y %H:%M", "%d-%b-%Y %H:%M:%S", "%b %d, %Y %H:%M",
        "%Y%m%d%H%M", "%Y%m%d%H%M%S", "%Y-%m-%dT%H:%M:%S.%f", "%d %B %Y %H:%M",
    ],
)  # fmt: skip
def test_dates_of_any_common_form(form: str) -> None:
    times, notes = parse_times([time.strftime(form) for time in HOURS])
    assert times.tolist() == HOURS
    assert notes == []
    assert str(step_of(times)) == "hour"
    assert step_of(times).season == 24


@pytest.mark.parametrize(
    ("cells", "first", "step", "season"),
    [
        (["2016-01-31", "2016-02-29", "2016-03-31"], "2016-01-31", "month", 12),
        (["Jan-49", "Feb-49", "Mar-49"], "2049-01-01", "month", 12),
        (["2016Q1", "2016Q2", "2016Q3"], "2016-01-01", "quarter", 4),
        (["2016-Q4", "2017-Q1", "2017-Q2"], "2016-10-01", "quarter", 4),
        (["1749", "1750", "1751"], "1749-01-01", "year", 1),
        (["1749.0", "1750.0", "1751.0"], "1749-01-01", "year", 1),
        (["2016-01", "2016-02", "2016-03"], "2016-01-01", "month", 12),
        (["1990/1/1 0:00", "1990/1/2 0:00", "1990/1/3 0:00"], "1990-01-01", "day", 7),
        (["20160101", "20160108", "20160115"], "2016-01-01", "7 days", 52),
        (["1467331200", "1467332100", "1467333000"], "2016-07-01", "15 minutes", 96),
        (["1467331200000", "1467331200250", "1467331200500"], "2016-07-01", "250 milliseconds", 345600),
        (["2016-07-01 00:00:00+02:00", "2016-07-01 00:10:00+02:00"], "2016-06-30T22:00", "10 minutes", 144),
    ],
)
def test_dates_of_other_steps(cells: list[str], first: str, step: str, season: int) -> None:
    times, _ = parse_times(cells)
    assert times[0] == np.datetime64(first)
    found = step_of(times)
    assert (str(found), found.season) == (step, season)
    assert further_times(times[0], found, len(cells) - 1).tolist() == times[1:].tolist()


def test_the_order_of_day_and_month_is_found_or_asked_for() -> None:
    days = [datetime(2021, 1, 1) + timedelta(days=i) for i in range(40)]
    times, notes = parse_times([day.strftime("%d/%m/%Y") for day in days])
    assert times.tolist() == days
    assert notes == []  # the 13th is no month
    hours = [datetime(2021, 3, 4) + timedelta(hours=i) for i in range(30)]
    times, notes = parse_times([hour.strftime("%d/%m/%Y %H:%M") for hour in hours])
    assert times.tolist() == hours
    assert "the only order" in notes[0]
    with pytest.raises(ValueError, match="can be read in two ways"):
        parse_times(["01/02/2020", "02/02/2020", "03/02/2020"])
    assert parse_times(["01/02/2020", "02/02/2020"], "%d/%m/%Y")[0][1] == np.datetime64("2020-02-02")
    with pytest.raises(ValueError, match="'x' is not of the form"):
        parse_times(["01/02/2020", "x"], "%d/%m/%Y")
    with pytest.raises(ValueError, match="no date that can be read"):
        parse_times(["soon", "later"])
    with pytest.raises(ValueError, match="time zone"):
        parse_times(["2016-07-01 00:00:00+02:00", "2016-07-01 00:10:00"])


def test_weekdays_go_on_after_a_weekend() -> None:
    days = np.busday_offset(np.datetime64("2024-05-27"), np.arange(15))
    step = step_of(days.astype("datetime64[us]"))
    assert (str(step), step.season) == ("weekday", 5)
    assert further_times(np.datetime64("2024-05-31T12:00"), step, 2).astype(str).tolist() == [
        "2024-06-03T12:00:00.000000", "2024-06-04T12:00:00.000000"
    ]  # fmt: skip
    assert further_times(np.datetime64("2024-01-30"), Step(1, "month"), 2)[0] == np.datetime64("2024-02-29")


def test_a_plain_file_of_the_standard_layout(tmp_path) -> None:
    rows = "".join(f"{time:%Y-%m-%d %H:%M:%S},{i},{i * 0.5}\n" for i, time in enumerate(HOURS))
    series = read_series(write(tmp_path, "date,HUFL,OT\n" + rows))
    assert (series.name, series.variables, series.values.shape) == ("series", ("HUFL", "OT"), (60, 2))
    assert series.findings == ()
    assert series.next_times(2).tolist() == [HOURS[-1] + timedelta(hours=1), HOURS[-1] + timedelta(hours=2)]
    assert series.select(["OT"]).values[3, 0] == 1.5
    with pytest.raises(ValueError, match="did you mean 'OT'"):
        series.select(["ot1"])


@pytest.mark.parametrize(
    ("text", "variables", "values"),
    [
        ("1.5,2\n3,4\n5,6\n", ("variable 1", "variable 2"), [[1.5, 2], [3, 4], [5, 6]]),
        ("date;a;b\n2020-01-01;1,5;2\n2020-01-02;3;4,25\n", ("a", "b"), [[1.5, 2], [3, 4.25]]),
        ("date\ta\n2020-01-01\t1e3\n2020-01-02\t-2\n", ("a",), [[1000], [-2]]),
        ("\ufeff# a comment\n\nwhen,a\n2020-01-01,1\n\n2020-01-02,2\n", ("a",), [[1], [2]]),
        ("a b\n1 2\n3   4\n", ("a", "b"), [[1, 2], [3, 4]]),
        ("value\n1\n2\n", ("value",), [[1], [2]]),
        ('"a, b",c\n1,2\n3,4\n', ("a, b", "c"), [[1, 2], [3, 4]]),
        ("month,a\n1,5\n2,6\n13,7\n", ("month", "a"), [[1, 5], [2, 6], [13, 7]]),
        ("a,date,b\r\n1,2020-01-01,2\r\n3,2020-01-02,4\r\n", ("a", "b"), [[1, 2], [3, 4]]),
    ],
)
def test_delimiters_headers_and_decimal_commas(tmp_path, text: str, variables, values) -> None:
    series = read_series(write(tmp_path, text))
    assert series.variables == variables
    assert series.values.tolist() == values


THOUSANDS = ["991", "1.179", "1.204", "1.310", "998", "1.001"]


def column(folder: Path, *cells: str, delimiter: str = ";", **options: str) -> tuple[list[float], list[str]]:
    """The values of a file with one column beside its dates, and what is said."""
    rows = [f"2016-07-{day + 1:02d}{delimiter}{cell}" for day, cell in enumerate(cells)]
    series = read_series(write(folder, "\n".join([f"day{delimiter}load", *rows])), **options)
    return series.values[:, 0].tolist(), [finding.message for finding in series.findings]


def test_thousands_are_no_decimals_where_the_file_tells(tmp_path) -> None:
    text = "Datum;Verbrauch;Temp\n02.07.2016 10:00;991;21,0\n02.07.2016 11:00;1.179;19,4\n02.07.2016 12:00;-2.050;20\n"
    series = read_series(write(tmp_path, text))
    assert series.values.tolist() == [[991, 21], [1179, 19.4], [-2050, 20]]
    (finding,) = series.findings
    assert finding.kind == "thousands"
    assert "Verbrauch: 2 cells such as '1.179' are read as thousands, as in the other columns" in finding.message
    # A column that proves its own mark is believed before the others, and without a word.
    text = "day;a;b\n2016-07-01;1.5;1,5\n2016-07-02;1.179;1,179\n"
    series = read_series(write(tmp_path, text))
    assert series.values.tolist() == [[1.5, 1.5], [1.179, 1.179]]
    assert series.findings == ()
    series = read_series(write(tmp_path, 'day,a,b\n2016-07-01,"1,179",2.5\n2016-07-02,"1,204",3.5\n'))
    assert series.values[:, 0].tolist() == [1179, 1204]


def test_a_column_that_could_be_thousands_or_decimals_is_decided_by_size_and_said(tmp_path) -> None:
    values, told = column(tmp_path, *THOUSANDS)
    assert values == [991, 1179, 1204, 1310, 998, 1001]
    assert "4 cells such as '1.179' are read as thousands" in told[0]
    assert "whole numbers such as '991'; if they are decimals, say so (--decimal point, or :decimal=point)" in told[0]
    values, told = column(tmp_path, *THOUSANDS, decimal="point")
    assert (values[1], told) == (1.179, [])
    assert column(tmp_path, "0", "0", *THOUSANDS, "0", "0", "0")[0][3] == 1179  # nights of a solar plant tell nothing
    values, told = column(tmp_path, "120.345", "118", "123.001")
    assert values == [120.345, 118, 123.001]
    assert "are read as decimals" in told[0]
    assert column(tmp_path, "120.345", "118", "123.001", decimal="comma")[0] == [120345, 118, 123001]
    with pytest.raises(ValueError, match="unknown decimal mark 'dot'"):
        column(tmp_path, "1", decimal="dot")


@pytest.mark.parametrize(
    "cells", [("0.123", "1.234"), ("1.179", "2.204"), ("1.179", "1.2", "3"), ("991.0", "1.179"), ("1179", "1e3")]
)
def test_ordinary_decimals_stay_decimals_without_a_word(tmp_path, cells: tuple[str, ...]) -> None:
    assert column(tmp_path, *cells) == ([float(cell) for cell in cells], [])


def test_commas_alone_are_decimals_unless_they_divide_the_columns(tmp_path) -> None:
    values, told = column(tmp_path, "1,179", "2,204")
    assert values == [1.179, 2.204]
    assert "2 cells such as '1,179' are read as decimals, as nothing else tells" in told[0]
    assert "if they are thousands, say so (--decimal point" in told[0]
    values, told = column(tmp_path, '"1,179"', '"2,204"', delimiter=",")
    assert values == [1179, 2204]
    assert "are read as thousands, as the comma divides the columns" in told[0]


@pytest.mark.parametrize(
    "cells",
    [
        ("1.178,80", "991,5", "1.234.567"), ("1,178.8", "991.5", "1,234,567"), ("1 178,80", "991,5", "1 234 567"),
        ("1\u202f178,80", "991,5", "1\u202f234\u202f567"), ("1'178.80", "991.5", "1'234'567"),
        ("1\u00a0178.8", "991.5", "1234567"), ("+1\u2019178,80", "991,5", "1\u2019234\u2019567,0"),
    ],
)  # fmt: skip
def test_thousands_separators(tmp_path, cells: tuple[str, ...]) -> None:
    assert column(tmp_path, *cells) == ([1178.8, 991.5, 1234567], [])
    assert column(tmp_path, *(f'"{cell}"' for cell in cells), delimiter=",") == ([1178.8, 991.5, 1234567], [])


@pytest.mark.parametrize(
    "cell", ["1.17.80", "1.178.80", "12,34,56", "1 17", "1,178,80", "1 178 80", "0.123.456", "1_2", "1_200"]
)
def test_what_is_grouped_otherwise_is_no_number(tmp_path, cell: str) -> None:
    with pytest.raises(ValueError, match="1 cells are not a number: row 2"):
        column(tmp_path, "1", cell, "3")


def test_a_cell_longer_than_any_number_is_said(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"series\.csv, line 2: field larger than field limit"):
        read_series(write(tmp_path, f"date,a\n2024-01-01,{'1' * 200_000}\n"))


def test_numbers_beyond_all_times_are_no_dates(tmp_path) -> None:
    rows = "\n".join(f"999999999999999999{i},{i}" for i in range(5))
    with pytest.raises(ValueError, match="is no date that can be read"):
        read_series(write(tmp_path, f"time,a\n{rows}\n"))


def test_a_mistyped_year_is_said_before_its_rows_are_made() -> None:
    """Of six billion rows, one a second."""
    times = np.append(hourly(1)[0] + np.arange(600) * np.timedelta64(1, "s"), np.datetime64("2204-01-01", "us"))
    series = Series("mine", ("a",), np.arange(601.0)[:, None], times)
    with pytest.raises(ValueError, match=r"5,806,425,000 of 5,806,425,601 rows .* 2020-01-01 00:09:59 and 2204-01-01"):
        check_series(series, repair=True)
    between = times + np.append(np.zeros(600, int), 5) * np.timedelta64(1, "ms")  # off the steps: nothing is filled
    assert len(check_series(Series("mine", ("a",), series.values, between), repair=True)) == 601


def test_columns_without_numbers_are_left_out_and_said(tmp_path) -> None:
    rows = [f"2016-07-{i + 1:02d};{i};{'off' if i == 3 else ''};{'7' if i == 2 else 'x'};" for i in range(9)]
    path = write(tmp_path, "\n".join(["Datum;Verbrauch;Bemerkung;Code;", *rows]))
    left = "left out: column Bemerkung, 9 of 9 cells are not numbers"
    series = read_series(path, variables=["Verbrauch"])
    assert series.values[:, 0].tolist() == list(range(9))
    assert [finding.message for finding in series.findings] == [
        left,
        "left out: column Code, 8 of 9 cells are not numbers",
        "left out: column 5, 9 of 9 cells are not numbers",
    ]
    with pytest.raises(ValueError, match="Code: 8 cells are not a number"):
        read_series(path)
    series = read_series(path, leave=["Code"])
    assert series.variables == ("Verbrauch",)
    assert series.findings[0].message == left
    with pytest.raises(ValueError, match="has no number in Bemerkung"):
        read_series(path, variables=["Bemerkung"])
    with pytest.raises(ValueError, match="did you mean 'Verbrauch'"):
        read_series(path, variables=["verbrauch"])
    with pytest.raises(ValueError, match="did you mean 'Code'"):
        read_series(path, leave=["code"])
    series = read_series(write(tmp_path, "a;b\n1;2;\n3;4;\n"))  # only the rows end in a delimiter
    assert series.values.tolist() == [[1, 2], [3, 4]]
    assert kinds(series) == ["left out"]


@pytest.mark.parametrize("header", ["Datum;Uhrzeit;a", "time;date;a", "day;von;a", "a;date;time"])
def test_dates_and_clocks_in_two_columns_are_one_time(tmp_path, header: str) -> None:
    names = header.split(";")
    rows = []
    for i, hour in enumerate(HOURS):
        cells = {"a": str(i)} | {name: f"{hour:%d.%m.%Y}" for name in ("Datum", "date", "day")}
        rows.append(";".join(cells.get(name, f"{hour:%H:%M}") for name in names))
    series = read_series(write(tmp_path, "\n".join([header, *rows])))
    assert series.times.tolist() == HOURS
    assert (series.variables, series.values[:, 0].tolist(), series.findings) == (("a",), list(range(60)), ())


def test_rows_without_a_date_are_named_and_left_out_by_a_repair(tmp_path) -> None:
    rows = "".join(f"{hour:%d.%m.%Y %H:%M};{i},5\n" for i, hour in enumerate(HOURS[:8]))
    path = write(tmp_path, f"Datum;Verbrauch\n{rows}Summe;123456,00\n")
    with pytest.raises(ValueError, match=r"1 rows have no date \(a repair leaves them out\): row 9 \('Summe'\)"):
        read_series(path)
    series = read_series(path, repair=True)
    assert series.times.tolist() == HOURS[:8]
    assert series.values[:, 0].tolist() == [i + 0.5 for i in range(8)]
    assert kinds(series) == ["not a date"]
    path.write_text(f"Datum;Verbrauch\n{rows}01.03.2021;1\n")
    with pytest.raises(ValueError, match=r"row 9 \('01.03.2021'\) is written otherwise than '27.02.2021 22:00'"):
        read_series(path, repair=True)


@pytest.mark.parametrize("title", ["Load of the city 2016\n", "Load\n\nin kW\n", "Load of the city;;\nin kW;;\n"])
def test_a_title_above_the_header_is_skipped_and_said(tmp_path, title: str) -> None:
    series = read_series(write(tmp_path, f"{title}date;a;b\n2020-01-01;1;2\n2020-01-02;3;4\n"))
    assert (series.variables, series.values.tolist()) == (("a", "b"), [[1, 2], [3, 4]])
    assert kinds(series) == ["title"]
    assert "'Load" in series.findings[0].message
    with pytest.raises(ValueError, match="row 2 has 2 cells, the first one 1"):  # decimals, not a title
        read_series(write(tmp_path, "load\n21,0\n19,4\n"))


def test_a_repair_says_how_much_it_made_up_and_refuses_most(tmp_path) -> None:
    cells = ["1", "", "3", "", "5", "6", "7", "8"]
    with pytest.raises(ValueError, match=r"ask for its repair \(--repair, or :repair=yes behind its name\)"):
        column(tmp_path, *cells)
    values, told = column(tmp_path, *cells, repair=True)
    assert values == list(range(1, 9))
    assert "filled 2 cells between their neighbours: 2 of load (25.0%). WARNING: more than a fifth" in told[-1]
    assert "WARNING" not in column(tmp_path, *cells[2:], repair=True)[1][-1]
    with pytest.raises(
        ValueError, match=r"5 of 8 cells of 'load' are missing .* or leave the column out \(--leave, or :leave=load\)"
    ):
        column(tmp_path, "1", *[""] * 5, "7", "8", repair=True)


def test_a_file_that_is_not_there(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"load\.csv: no such file"):
        read_spec(f"{tmp_path}/load.csv:repair=yes")


def test_packed_and_foreign_encodings(tmp_path) -> None:
    text = "Größe\n1\n2\n"
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "b.csv").write_bytes(text.encode("cp1252"))
    (tmp_path / "c.csv").write_bytes(text.encode("utf-16"))
    for name in ("a.csv.gz", "b.csv", "c.csv"):
        assert read_series(tmp_path / name).variables == ("Größe",)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text.encode())[:-12])
    with pytest.raises(ValueError, match="damaged gzip"):
        read_series(tmp_path / "a.csv.gz")
    (tmp_path / "d.csv").write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match="no text file"):
        read_series(tmp_path / "d.csv")


def test_parquet(tmp_path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"date": HOURS, "a": [float(i) for i in range(60)]})
    parquet.write_table(table, tmp_path / "x.parquet")
    series = read_series(tmp_path / "x.parquet")
    assert series.times.tolist() == HOURS
    assert series.values[:, 0].tolist() == list(range(60))


def test_parquet_without_a_reader_names_the_remedy(tmp_path, monkeypatch) -> None:
    import sys

    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    for name in ("pyarrow", "pyarrow.parquet", "pandas"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match="pip install pyarrow"):
        read_series(tmp_path / "x.parquet")


def test_gaps_repeated_and_unsorted_times_and_constant_columns_are_told(tmp_path) -> None:
    hours = [*HOURS[:10], HOURS[9], *HOURS[14:30], HOURS[12]]
    text = "date,a,b\n" + "".join(f"{hour},{i},7\n" for i, hour in enumerate(hours))
    series = read_series(write(tmp_path, text))
    assert kinds(series) == ["unsorted", "repeated", "gap", "constant"]
    messages = {finding.kind: finding.message for finding in series.findings}
    assert "2021-02-28 10:00:00" in messages["unsorted"]
    assert "2021-02-28 07:00:00 (1)" in messages["repeated"]
    assert "steps longer than hour, after 2021-02-28 07:00:00, 2021-02-28 10:00:00 (2)" in messages["gap"]
    assert messages["constant"] == "variables that never change: b"
    assert not any(finding.is_serious for finding in series.findings)
    assert (np.diff(series.times) >= np.timedelta64(0)).all()
    mended = read_series(tmp_path / "series.csv", repair=True)
    assert mended.times.tolist() == HOURS[:30]
    assert mended.values[9, 0] == 10  # the later row of the repeated time
    assert mended.values[10:12, 0].tolist() == pytest.approx([10 + 17 / 3, 10 + 34 / 3])
    assert np.isfinite(mended.values).all()


def test_cells_without_a_number_are_told_with_their_rows(tmp_path) -> None:
    text = "date,a,b\n2020-01-01,1,2\n2020-01-02,,oops\n2020-01-03,NA,inf\n2020-01-04,4,5\n"
    with pytest.raises(
        ValueError, match=r"a: 2 cells are missing: row 2, row 3; b: 2 cells are not a number: row 2 \('oops'\)"
    ):
        read_series(write(tmp_path, text))
    series = read_series(tmp_path / "series.csv", repair=True)
    assert series.values.tolist() == [[1, 2], [2, 3], [3, 4], [4, 5]]
    assert kinds(series) == ["missing", "not a number", "filled"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("date,a\n", "a header but no rows"),
        ("date\n2020-01-01\n", "no column of numbers besides the dates"),
        ("a,b\n1,2\n3\n", "row 3 has 1 cells, the first one 2"),
        ("a,a\n1,2\n", "two columns named 'a'"),
        ("date,a\nnever,1\n", "column 'date': 'never' is no date"),
    ],
)
def test_files_that_are_no_series(tmp_path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_series(write(tmp_path, text))


def test_times_may_be_named_or_left_out(tmp_path) -> None:
    path = write(tmp_path, "stamp,a\n01.02.2020,1\n02.02.2020,2\n")
    assert read_series(path).times[1] == np.datetime64("2020-02-02")
    assert read_series(path, time="stamp", time_format="%d.%m.%Y").variables == ("a",)
    with pytest.raises(ValueError, match="did you mean 'stamp'"):
        read_series(path, time="stamps")
    alone = read_series(path, time="")
    assert (alone.variables, alone.times) == (("a",), None)
    assert [one.message for one in alone.findings] == ["left out: column stamp, 2 of 2 cells are not numbers"]


def test_irregular_times_are_told() -> None:
    times = np.array(["2020-01-01", "2020-01-02", "2020-01-05", "2020-01-11"], dtype="datetime64[us]")
    series = check_series(Series("x", ("a",), np.arange(4.0)[:, None], times))
    assert kinds(series) == ["irregular"]
    assert series.next_times(3) is None
    assert check_series(series, repair=True).values.shape == (4, 1)


@settings(deadline=None, max_examples=60)
@given(
    cells=st.lists(
        st.lists(st.floats(-1e300, 1e300) | st.integers(-(10**9), 10**9), min_size=3, max_size=3),
        min_size=2,
        max_size=20,
    ),
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    header=st.booleans(),
)  # fmt: skip
def test_numbers_survive_any_layout(tmp_path_factory, cells, delimiter: str, header: bool) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    lines = [delimiter.join(repr(value) for value in row) for row in cells]
    path.write_text("\n".join([delimiter.join("abc"), *lines] if header else lines))
    series = read_series(path, time="", decimal="point")
    assert series.values.tolist() == [[float(value) for value in row] for row in cells]
    assert series.variables == (("a", "b", "c") if header else ("variable 1", "variable 2", "variable 3"))


@settings(deadline=None, max_examples=80)
@given(text=st.text(alphabet=st.sampled_from('a1.,;\n"-: \tNZ/#é'), max_size=80))
def test_any_text_is_a_series_or_a_clear_error(tmp_path_factory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "text.csv"
    path.write_text(text, encoding="utf-8")
    try:
        series = read_series(path, repair=True)
    except ValueError:
        return
    assert np.isfinite(series.values).all()


def test_missing_words_are_no_header(tmp_path) -> None:
    assert "na" in MISSING
    series = read_series(write(tmp_path, "NA,1\n2,3\n4,5\n"), repair=True)
    assert series.values.tolist() == [[2, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize(
    ("name", "rows", "horizon", "counts"),
    [
        # Windows of the official loaders.
        ("etth1", 17420, 96, (8449, 2785, 2785)),
        ("etth2", 17420, 720, (7825, 2161, 2161)),
        ("ettm1", 69680, 96, (34369, 11425, 11425)),
        ("exchange", 7588, 96, (5120, 665, 1422)),
        ("electricity", 26304, 96, (18221, 2537, 5165)),
        ("weather", 52696, 192, (36600, 5079, 10348)),
        ("traffic", 17544, 720, (11465, 1037, 2789)),
    ],
)
def test_published_splits(name: str, rows: int, horizon: int, counts: tuple[int, ...]) -> None:
    data = in_parts(series_of(rows, 1, name))
    train, val, test = (windows_of(data, part, 96, horizon) for part in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == counts
    past, future = test.batch(torch.tensor([0]))
    first = ends_of(data.series, find_published(name))[1]
    assert torch.equal(past[0], test.values[first - 96 : first])
    assert torch.equal(future[0], test.values[first : first + horizon])
    learnt = data.series.values[: data.train.end]
    assert np.allclose(data.scaler.mean, learnt.mean(0))
    assert np.allclose(data.scaler.restore(data.scaler.normalize(learnt)), learnt)
    assert int(val.rows(torch.tensor([len(val) - 1]))[0, -1]) == first - 1
    assert data.facts["learnt"] == [data.train.end, str(data.series.times[data.train.end - 1])]


def test_names_of_published_sets() -> None:
    assert {find_published(name).name for name in ("ETTh1", "ECL", "exchange_rate", "Weather")} == {
        "ETTh1", "Electricity", "Exchange", "Weather"
    }  # fmt: skip
    assert find_published("mine") is None
    assert len(PUBLISHED) == 8
    with pytest.raises(ValueError, match="has 100 rows, the published ETTh1 17420"):
        ends_of(series_of(100), find_published("etth1"))


def test_windows_are_functions_of_their_number() -> None:
    windows = Windows(torch.arange(20.0)[:, None], 5, 18, 4, 3)
    assert len(windows) == 13 - 4 - 3 + 1
    past, future = windows.batch(torch.tensor([6, 0]))
    assert past[:, :, 0].tolist() == [[11, 12, 13, 14], [5, 6, 7, 8]]
    assert future[:, :, 0].tolist() == [[15, 16, 17], [9, 10, 11]]


def test_one_variable_and_short_series() -> None:
    series = series_of(400)
    alone, both = in_parts(series.select(["v1"])), in_parts(series)
    assert windows_of(alone, "train", 24, 12).values.shape == (400, 1)
    first, second = (windows_of(data, "train", 24, 12).values for data in (alone, both))
    assert torch.equal(first[:, 0], second[:, 1])
    with pytest.raises(ValueError, match=r"mine, val part: .* too few for one window of 96 past and 96 future rows"):
        windows_of(both, "val", 96, 96)


def test_settings_of_a_file_stand_behind_a_colon(tmp_path) -> None:
    lines = [f"{HOURS[0] + timedelta(hours=i)};{i};{i if i != 7 else ''}" for i in range(50)]
    path = write(tmp_path, "\n".join(["when;a;b", *lines]))
    told: list[str] = []
    data = open_series(f"{path}:target=b,repair=yes,time=when", log=told.append)
    assert data.facts["variables"] == ["b"]
    assert data.series.values[:, 0].tolist() == list(range(50))
    assert (len(data.train), len(data.val), len(data.test), data.season) == (35, 5, 10, 24)
    assert told == [
        "series: b: 1 cells are missing: row 8",
        "series: filled 1 cells between their neighbours: 1 of b (2.0%)",
    ]
    assert split_spec("a/b.csv") == ("a/b.csv", {})
    with pytest.raises(ValueError, match="did you mean 'target'"):
        split_spec("a.csv:tagret=OT")
    with pytest.raises(ValueError, match="repair must be yes or no"):
        split_spec("a.csv:repair=maybe")
    form = "%d/%m/%Y %H:%M:%S"
    assert split_spec(f"a.csv:format={form},target=b") == ("a.csv", {"format": form, "target": "b"})
    assert split_spec("a.csv:format=%d, %b,repair=yes") == ("a.csv", {"format": "%d, %b", "repair": "yes"})
    assert recognise(f"a.csv:format={form}")[0].name == "forecasting"
    assert split_spec("a.csv:leave=a,b,time=t") == ("a.csv", {"leave": "a,b", "time": "t"})
    assert with_repair("a.csv:leave=a,b") == "a.csv:leave=a,b,repair=yes"


def test_a_series_that_has_gone_on_is_judged_by_what_is_new() -> None:
    grown, learnt = series_of(60), (28, "2020-01-02T03:00:00")
    first, told = unseen(grown, learnt, 6)
    assert (first, grown.time_name(first)) == (28, "2020-01-02 04:00:00")
    assert "the 32 rows after those that the model has learnt from" in told
    assert unseen(series_of(30), learnt, 6) == (
        0,
        "warning: the model may have learnt from 28 of these 30 rows, by their times",
    )
    assert unseen(grown, (28, "2019-01-01T00:00:00"), 6) == (0, "")


def test_endings_do_not_belong_to_a_name(tmp_path) -> None:
    text = "\n".join(["date,a,b", *(f"{HOURS[0] + timedelta(hours=i)},{i},{i}" for i in range(9))])
    for file, name in (("load.2023.csv", "load.2023"), ("load.txt", "load"), ("v1.2", "v1.2")):
        (tmp_path / file).write_text(text)
        assert read_series(tmp_path / file).name == name


def test_rows_are_known_by_time_and_values() -> None:
    one, other = in_parts(series_of(40)), in_parts(series_of(40))
    assert (one.val.contents() == other.val.contents()).all()
    other.series.values[30, 1] += 1
    assert (one.val.contents() != other.val.contents()).tolist() == [row == 30 for row in range(28, 32)]
    assert one.val.names[0] == "2020-01-02 04:00:00"


def test_a_variable_that_never_changes_is_not_divided_by_zero() -> None:
    scaler = Scaler.of(np.array([[1.0, 5.0], [3.0, 5.0]]))
    assert scaler.std.tolist() == [1.0, 1.0]
    assert scaler.normalize(np.array([[2.0, 5.0]])).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("value", [0.1, 0.3, 1.1, 20.7])
def test_a_deviation_that_is_a_rounding_error_is_none(value: float) -> None:
    assert Scaler.of(np.full((700, 3), value)).std.tolist() == [1.0, 1.0, 1.0]


def test_a_season_that_the_past_does_not_hold_is_not_repeated_out_of_step() -> None:
    past = torch.arange(6.0).view(1, 6, 1)
    assert SeasonalNaive(3, 4)(past).flatten().tolist() == [2, 3, 4]
    assert SeasonalNaive(3, 8)(past).flatten().tolist() == [5, 5, 5]
    with pytest.raises(ValueError, match="whole numbers from 1 on"):
        SeasonalNaive(3, 1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("linear_forecast", {"size": 24}, "must be an odd whole number, not 24"),
        ("linear_forecast", {"size": 10**9 + 1}, "size of linear_forecast come to 1,000,000,001"),
        ("ffnet_forecast", {"decomposition": 10**9 + 1}, "decomposition of ffnet_forecast come to"),
        ("ffnet_forecast", {"dims": ["a"]}, "dims of a forecaster must be whole numbers"),
        ("ffnet_forecast", {"mlp_ratio": 2.5}, "mlp_ratio of a forecaster must be a whole number"),
        ("ffnet_forecast", {"depths": 1}, "depths of a forecaster must be whole numbers, one for each stage"),
        ("ffnet_forecast", {"depths": [2_000_000]}, "depths of ffnet_forecast come to 2,000,000"),
        (
            "ffnet_forecast",
            {
                "look_back": 4,
                "downsample_ratio": 8,
                **{name: (5, 5) for name in ("dims", "kernel_sizes", "small_sizes")},
            },
            "downsample_ratio=8 is too large for 2 tokens",
        ),
    ],
)
def test_sizes_without_sense_are_refused(name: str, arguments: dict[str, object], message: str) -> None:
    if "dims" in arguments:
        arguments = {**arguments, "depths": (1, 1)}
    with pytest.raises(ValueError, match=message):
        make_network(name, {}, **arguments)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"variables": 5}, "no list of names"),
        ({"season": -3}, "no number of steps"),
        ({"learnt": [5]}, "not a number of rows and a time"),
        ({"variables": ["a", "b"], "mean": [0.0, 0.0], "std": [0, 1]}, "a std is not above 0"),
        ({"variables": ["a", "b"], "mean": [0.0], "std": [1.0]}, "1 means and 1 deviations for 2 variables"),
        ({"mean": "ab", "std": [1.0]}, "no lists of numbers"),
    ],
)
def test_what_a_file_says_of_its_series_is_checked(facts: dict[str, object], message: str) -> None:
    check_facts({"variables": ["a"], "season": 24, "learnt": [9, None], "mean": [1e6], "std": [2.0]})
    with pytest.raises(ValueError, match=message):
        check_facts(facts)


def test_the_quick_model_looks_back_no_longer_than_it_can_be_fitted_to() -> None:
    assert _look_back(86_400, 70_000, 24) == 96
    assert _look_back(24, 70_000, 24) == 96
    assert _look_back(144, 70_000, 24) == 144


def test_a_column_that_counts_has_no_dates(tmp_path) -> None:
    for first in (0, 1000):
        rows = "".join(f"{first + row},{row % 7}\n" for row in range(30))
        (tmp_path / "a.csv").write_text("time,load\n" + rows)
        series = read_series(tmp_path / "a.csv")
        assert series.times is None
        assert series.variables == ("load",)
        assert any("time: counts rows or seconds" in found.message for found in series.findings)
    years = "".join(f"{1990 + row},{row % 7}\n" for row in range(30))
    (tmp_path / "a.csv").write_text("time,load\n" + years)
    assert str(read_series(tmp_path / "a.csv").step) == "year"


def test_months_that_are_shorter_than_their_day() -> None:
    days = [datetime(2023, month, 28 if month == 2 else 30) for month in range(1, 13)]
    times = np.array([*days, datetime(2024, 1, 30), datetime(2024, 2, 29)], dtype="datetime64[us]")
    step = step_of(times)
    assert step == Step(1, "month", 30)
    assert [str(time)[:10] for time in further_times(times[-1], step, 2)] == ["2024-03-30", "2024-04-30"]


def test_times_are_told_to_the_fraction_that_they_have() -> None:
    assert told_time(np.datetime64("2024-01-01T00:00:20")) == "2024-01-01 00:00:20"
    assert told_time(np.datetime64("2024-01-01T00:00:20.100000", "us")) == "2024-01-01 00:00:20.1"
