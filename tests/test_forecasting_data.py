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

from tokenmix.tasks.forecasting.batches import window_loader
from tokenmix.tasks.forecasting.series_data import SeriesData, in_parts, open_series, split_spec
from tokenmix.tasks.forecasting.splits import PUBLISHED, Scaler, Windows, ends_of, find_published
from tokenmix_runtime.series import MISSING, Series, check_series, read_series
from tokenmix_runtime.times import Step, further_times, parse_times, step_of

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
    assert kinds(series) == ["missing", "not a number"]
    with pytest.raises(ValueError, match="'a' has no number at all"):
        read_series(write(tmp_path, "a,b\n,1\n,2\n"), repair=True)


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
    with pytest.raises(ValueError, match="stamp: 2 cells are not a number"):
        read_series(path, time="")


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
    series = read_series(path, time="")
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
    assert told == ["series: b: 1 cells are missing: row 8"]
    assert split_spec("a/b.csv") == ("a/b.csv", {})
    with pytest.raises(ValueError, match="did you mean 'target'"):
        split_spec("a.csv:tagret=OT")
    with pytest.raises(ValueError, match="repair must be yes or no"):
        split_spec("a.csv:repair=maybe")


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
