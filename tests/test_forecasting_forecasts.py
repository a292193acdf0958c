"""Forecasts of a user's file: dates, units, intervals with measured coverage, base lines; in PyTorch and without."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from tests.series_files import quiet, train_waves, write_waves
from tests.test_runtime_alone import alone
from tokenmix.cli import main
from tokenmix.tasks.forecasting.answers import forecast_file, forecast_picture
from tokenmix.tasks.forecasting.quick import quick_model
from tokenmix.tasks.forecasting.series_data import open_series
from tokenmix_runtime.forecasts import ForecastModel, forecast, last_season
from tokenmix_runtime.series import Series, check_series


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_waves(tmp_path_factory.mktemp("series") / "waves.csv")


@pytest.fixture(scope="module")
def trained(waves: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    train_waves(waves, out, "epochs=1")
    return out


def hourly(values: np.ndarray) -> Series:
    times = np.datetime64("2024-03-01T00", "us") + np.arange(len(values)) * np.timedelta64(1, "h")
    return check_series(Series("mine", ("a", "b"), values, times))


def last_value(season: int | None = None, learnt: tuple[int, str | None] | None = (500, None)) -> ForecastModel:
    """A model that repeats the last value, for two variables."""
    return ForecastModel(
        "the last value",
        lambda x: np.repeat(x[:, -1:], 6, axis=1),
        24,
        6,
        np.array([5.0, -3.0]),
        np.array([2.0, 10.0]),
        season=season,
        learnt=learnt,
    )


def test_a_file_that_takes_one_window_at_a_time_is_asked_so(trained: Path, waves: Path, tmp_path: Path, capsys) -> None:
    pytest.importorskip("onnxscript")
    told = []
    for name, words in (("open", []), ("fixed", ["--dynamic", "none"])):
        file, table = tmp_path / f"{name}.onnx", tmp_path / f"{name}.csv"
        assert main(["export", str(trained), "--out", str(file), *words]) == 0
        assert main(["forecast", str(waves), "--model", str(file), "--out", str(table)]) == 0
        told.append([row.split(",") for row in table.read_text().splitlines()])
    assert told[0][0] == told[1][0]
    for one, other in zip(told[0][1:], told[1][1:], strict=True):
        assert np.allclose([float(cell) for cell in one[1:]], [float(cell) for cell in other[1:]], rtol=1e-4)


def test_the_table_has_as_many_digits_as_a_variable_needs() -> None:
    """A pressure in pascals moves by little of its size."""
    values = np.column_stack([1_013_245 + np.sin(np.arange(600) / 9), 1e-7 * np.cos(np.arange(600) / 7)])
    found = forecast(hourly(values), last_value(season=24))
    table = [line.split(",") for line in found.to_csv().splitlines()]
    level = hourly(np.column_stack([np.full(600, 0.1), values[:, 0]]))  # whose spread is one of rounding
    assert forecast(level, last_value(season=24)).to_csv().splitlines()[1].split(",")[4] == "0.100000"
    for column, name in enumerate(("a", "b")):
        cells = [float(row[table[0].index(f"{name} last season")]) for row in table[1:]]
        assert np.allclose(cells, found.season[:, column], rtol=0, atol=1e-4 * values[:, column].std())
        assert len(set(cells)) == len(cells)


def test_intervals_hold_what_they_promise_and_errors_are_in_the_units() -> None:
    noise = np.random.default_rng(0).normal(size=(4000, 2)) * [1, 10]
    found = forecast(hourly(noise.cumsum(0)), last_value(season=1))
    assert found.values.shape == found.season.shape == (6, 2)
    assert np.allclose(found.values, found.season, atol=1e-4)  # season 1: the last value again
    assert found.errors is not None
    assert found.errors.coverage == pytest.approx(0.9, abs=0.05)
    assert np.allclose(found.errors.model, found.errors.season, rtol=1e-4)
    # A random walk is off by sqrt(2 h / pi) steps on average, h ahead.
    expected = np.mean([math.sqrt(2 * step / math.pi) for step in range(1, 7)])
    assert np.allclose(found.errors.model, [expected, 10 * expected], rtol=0.15)
    assert found.lower is not None
    assert found.upper is not None
    widths = (found.upper - found.lower)[:, 0]
    assert widths[5] / widths[0] == pytest.approx(math.sqrt(6), rel=0.25)
    assert found.rows[0] == "2024-08-14 16:00:00"


def test_windows_in_parts_tell_what_they_do_together(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).normal(size=(700, 2)).cumsum(0)
    whole = forecast(hourly(noise), last_value())
    monkeypatch.setattr("tokenmix_runtime.forecasts.MOST_VALUES", 7 * 30 * 2)
    parts = forecast(hourly(noise), last_value())
    assert np.array_equal(whole.lower, parts.lower)
    assert whole.errors.windows == parts.errors.windows
    assert whole.errors.coverage == pytest.approx(parts.errors.coverage)
    for name in ("model", "season"):
        assert getattr(whole.errors, name) == pytest.approx(getattr(parts.errors, name))


def test_a_small_file_needs_little_memory() -> None:
    """Of 4,000 windows a model sees a few at a time; all at once they are 500 times the series."""
    wide = Series("wide", tuple(f"v{i}" for i in range(8)), np.random.default_rng(0).normal(size=(4300, 8)))
    ones = np.ones(8)
    model = ForecastModel("the last value", lambda x: np.repeat(x[:, -1:], 6, axis=1), 240, 6, 0 * ones, ones)
    tracemalloc.start()
    try:
        forecast(wide, model)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100 * wide.values.nbytes


def test_what_was_learnt_is_not_measured_on() -> None:
    """The first 3,000 rows are known by heart, and noise follows: intervals and errors must be those of the noise."""
    generator = np.random.default_rng(0)
    values = np.concatenate([np.zeros((3000, 2)), generator.normal(size=(600, 2))])
    series = hourly(values)
    by_time = forecast(series, last_value(1, (3000, str(series.times[2999]))))
    by_row = forecast(series, last_value(1, (3000, None)))
    assert by_time.errors is not None
    assert by_time.errors.windows == by_row.errors.windows
    assert by_time.errors.model[0] == pytest.approx(2 / math.sqrt(math.pi), rel=0.1)
    later = Series("later", series.variables, values[3000:], series.times[3000:], series.step)
    assert forecast(later, last_value(1, (3000, str(series.times[2999])))).errors.windows > 250
    nothing = forecast(series, last_value(1, (3598, None)))
    assert nothing.errors is None
    assert nothing.lower is None
    assert "nothing could be measured" in nothing.notes[0]
    few = forecast(series, last_value(1, (3580, None)))
    assert few.lower is None
    assert "too few for intervals" in " ".join(few.notes)


def test_what_does_not_fit_is_said() -> None:
    series = hourly(np.random.default_rng(0).normal(size=(200, 2)))
    with pytest.raises(ValueError, match=r"forecasts 1 to 6 rows, not 7: train one for more"):
        forecast(series, last_value(), horizon=7)
    with pytest.raises(ValueError, match="is for 2 variables, and mine has 1"):
        forecast(series.select(["a"]), last_value())
    short = Series("short", series.variables, series.values[:20], series.times[:20], series.step)
    with pytest.raises(ValueError, match="has 20 rows, and the last value needs the last 24"):
        forecast(short, last_value())
    with pytest.raises(ValueError, match="between 0 and 1"):
        forecast(series, last_value(1, (50, None)), level=90)
    with pytest.raises(ValueError, match="too few for 100 ahead"):
        quick_model(short, 100)


def test_the_last_season_is_the_networks() -> None:
    past = np.arange(10.0)[None, :, None]
    assert last_season(past, 3, 7).ravel().tolist() == [7, 8, 9, 7, 8, 9, 7]
    series = hourly(np.random.default_rng(0).normal(size=(700, 2)))
    found = forecast(series, last_value(144), horizon=6)
    assert found.season.tolist() == [series.values[-1].tolist()] * 6
    assert any("sees less than a season, 24 rows" in note for note in found.notes)


def test_the_quick_model_finds_season_and_trend() -> None:
    rows = np.arange(900)
    season = np.sin(rows / 24 * 2 * np.pi)
    values = np.stack([100 + 5 * season + rows / 20, 1e6 * (2 + season)], 1)
    values += np.random.default_rng(0).normal(size=values.shape) * [0.2, 4e4]
    found = forecast_file(hourly(values), horizon=48)
    assert found.errors is not None
    assert (found.errors.model < 0.8 * found.errors.season).all()
    assert found.errors.coverage == pytest.approx(0.9, abs=0.08)
    picture = forecast_picture(found)
    assert picture.count("series-band") == 3  # its style, and a panel for each variable
    assert "the season before" in picture


def test_the_quick_model_survives_pasts_that_stand_still() -> None:
    """Divided by the deviation of a past that did not move, its future would outweigh all others."""
    rows = np.arange(900)
    values = np.stack([np.sin(rows / 24 * 2 * np.pi), np.cos(rows / 24 * 2 * np.pi)], 1)
    values[200:420] = 0.3
    values += 0.05 * np.random.default_rng(0).normal(size=values.shape) * (values != 0.3)
    found = forecast_file(hourly(values), horizon=24)
    assert found.errors is not None
    assert (found.errors.model < 1.5 * found.errors.season).all()


def test_the_command_writes_dates_units_and_a_picture(
    trained: Path, waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["forecast", str(waves), "--horizon", "12"]) == 0
    told = capsys.readouterr().out
    assert "the quick linear model: 12 rows, 2024-01-26 00:00:00 to 2024-01-26 11:00:00" in told
    assert "90% intervals held" in told
    table = list(csv.reader((tmp_path / "waves-forecast.csv").read_text().splitlines()))
    assert table[0] == ["date", *(f"{name}{end}" for name in ("level", "flow") for end in ENDS)]
    assert table[1][0] == "2024-01-26 00:00:00"
    assert all(10 < float(cell) < 40 for cell in table[1][1:])  # the units of the file
    assert (tmp_path / "waves-forecast.svg").read_text().startswith("<svg")
    out = tmp_path / "deep" / "six.csv"
    assert main(["forecast", str(waves), "--model", str(trained), "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["horizon"], told["forecast"]) == (6, str(out))
    assert set(told["errors"]) == {"level", "flow"}
    assert 0.7 < told["coverage"] <= 1
    assert main(["predict", str(waves), "--model", str(trained), "--out", str(tmp_path / "folder"), "--json"]) == 0
    assert (tmp_path / "folder" / "waves-forecast.csv").read_text() == out.read_text()
    (tmp_path / "other").mkdir()
    twins = [tmp_path / "other" / "waves.csv", tmp_path / "waves.2024.csv"]
    for twin in twins:
        twin.write_text(waves.read_text())
    capsys.readouterr()
    words = ["--model", str(trained), "--out", str(tmp_path / "several"), "--json"]
    assert main(["predict", str(waves), *map(str, twins), *words]) == 0
    names = [Path(one["forecast"]).name for one in json.loads(capsys.readouterr().out)]
    assert names == ["waves-forecast.csv", "waves-forecast-2.csv", "waves.2024-forecast.csv"]
    gap = tmp_path / "gap.csv"
    rows = waves.read_text().splitlines()
    gap.write_text("\n".join([*rows[:50], rows[50].rpartition(",")[0] + ",", *rows[51:]]))
    words = ["--model", str(trained), "--out", str(tmp_path / "folder")]
    assert main(["predict", str(gap), *words]) == 2
    assert "repair=yes" in capsys.readouterr().err
    assert main(["predict", f"{gap}:repair=yes", *words, "--csv", str(tmp_path / "files.csv")]) == 0
    assert "gap: filled 1 cell" in capsys.readouterr().out
    assert str(tmp_path / "folder" / "gap-forecast.csv") in (tmp_path / "files.csv").read_text()
    assert main(["forecast", str(waves), "--model", str(trained), "--horizon", "7"]) == 2
    assert "forecasts 1 to 6 rows" in capsys.readouterr().err
    assert main(["forecast", str(waves), "--out", "x.txt"]) == 2
    assert "ends in .csv" in capsys.readouterr().err


def test_the_command_takes_a_file_as_training_does_and_says_what_it_made_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Thousands, decimal commas, two columns of times, comments, a summary row, cells without numbers."""
    hours = np.datetime64("2016-07-01T00", "h") + np.arange(200)
    loads = 1000 + 100 * np.sin(np.arange(200) / 24 * 2 * np.pi)
    cells = [f"{load:,.0f}".replace(",", ".") if i % 50 != 7 else "" for i, load in enumerate(loads)]
    stamps = [hour.item().strftime("%d.%m.%Y;%H:%M") for hour in hours]
    rows = [f"{stamp};{cell};21,5;{'off' if cell == '' else ''}" for stamp, cell in zip(stamps, cells, strict=True)]
    path, out = tmp_path / "load.csv", str(tmp_path / "out.csv")
    path.write_text("\n".join(["Lastgang", "Datum;Uhrzeit;Verbrauch;Temp;Bemerkung", *rows, "Summe;;200.000,00;;"]))
    words = ["forecast", f"{path}:target=Verbrauch", "--horizon", "3", "--out", out]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert "Verbrauch: 4 cells are missing: row 8" in told
    assert "row 201 ('Summe')" in told
    assert "--repair" in told
    assert main(["forecast", f"{path}:target=Verbrauch,repair=yes", "--horizon", "3", "--out", out]) == 0
    told = capsys.readouterr().out
    assert "left out: column Bemerkung" in told
    assert "filled 4 cells between their neighbours: 4 of Verbrauch (2.0%)" in told
    first = list(csv.reader(Path(out).read_text().splitlines()))[1]
    assert first[0] == "2016-07-09 08:00:00"
    assert 1000 < float(first[1]) < 1200
    assert main([*words, "--repair", "--json"]) == 0
    assert any("filled 4 cells" in line for line in json.loads(capsys.readouterr().out)["findings"])
    assert main([*words, "--repair", "--leave", "Temp,Bemerkung", "--decimal", "comma"]) == 0
    assert "Bemerkung" not in capsys.readouterr().out
    assert main(["forecast", f"{tmp_path}/lode.csv:repair=yes"]) == 2
    assert "lode.csv: no such file" in capsys.readouterr().err


ENDS = ("", " lower", " upper", " last season")


def test_exported_files_forecast_the_same_without_pytorch(trained: Path, waves: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    file, ours = tmp_path / "model.onnx", tmp_path / "ours.csv"
    assert main(["export", str(trained), "--out", str(file)]) == 0
    assert main(["forecast", str(waves), "--model", str(trained), "--out", str(ours)]) == 0
    code = "from tokenmix_runtime.forecaster import main; sys.exit(main(sys.argv[1:]))"
    done = alone(code, str(file), str(waves), "--out", str(tmp_path / "theirs.csv"))
    assert done.returncode == 0, done.stderr
    assert "mean absolute errors" in done.stdout
    first, second = (list(csv.reader(path.read_text().splitlines())) for path in (ours, tmp_path / "theirs.csv"))
    assert first[0] == second[0]
    for one, other in zip(first[1:], second[1:], strict=True):
        assert one[0] == other[0]
        assert np.allclose([float(cell) for cell in one[1:]], [float(cell) for cell in other[1:]], rtol=1e-4)
    assert main(["forecast", str(waves), "--model", str(file), "--out", str(tmp_path / "third.csv")]) == 0
    manifest = json.loads((tmp_path / "model.json").read_text())
    assert manifest["postprocess"] == {"kind": "forecast", "inside": False, "horizon": 6}
    assert manifest["labels"] == ["level", "flow"]
    done = alone("from tokenmix_runtime import Predictor; Predictor(sys.argv[1])", str(file))
    assert "ModelError" in done.stderr
    assert "forecasts series: tokenmix forecast CSV --model" in done.stderr


@pytest.mark.skipif(importlib.util.find_spec("statsmodels") is None, reason="statsmodels is not here")
def test_the_embedded_series_is_read() -> None:
    data = open_series("co2", log=quiet)
    assert data.facts["variables"] == ["co2"]
    assert (len(data.series), data.season) == (2284, 52)
    assert str(data.series.times[0])[:10] == "1958-03-29"
