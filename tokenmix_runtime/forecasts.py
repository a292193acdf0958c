"""Forecasts with everything that belongs beside them: dates, units, intervals whose coverage was measured, base lines.

Whoever computes the model, PyTorch or ONNX Runtime, it is asked here, and by NumPy alone. What a model has not learnt
from is cut in two: the errors of the earlier windows give the intervals, the later ones tell how often the truth lay
inside, and how good the model and the base line were.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tokenmix_runtime.intervals import Intervals, intervals_of
from tokenmix_runtime.series import Series
from tokenmix_runtime.times import Times, told_time

Array = NDArray[Any]
MOST_WINDOWS = 2_000  # of each half that are looked at, evenly spaced
BATCH = 256  # windows that a model is given at once
MOST_VALUES = 1 << 24  # of those that are looked at together
LEVEL = 0.9


@dataclass(frozen=True)
class ForecastModel:
    """What forecasts, whoever computes it.

    Attributes:
        name: For people.
        run: ``(B, L, M)`` float32, normalised, to ``(B, H, M)``.
        look_back: L.
        horizon: H.
        mean: Of each variable, ``(M,)``, by which values are normalised.
        std: The same.
        variables: Their names; empty if the model does not know them.
        season: Steps of the season that the base line repeats; None: that of the series' dates.
        learnt: Of how many rows, and up to which time, the model has learnt; None: nobody knows.
    """

    name: str
    run: Callable[[Array], Array]
    look_back: int
    horizon: int
    mean: Array
    std: Array
    variables: tuple[str, ...] = ()
    season: int | None = None
    learnt: tuple[int, str | None] | None = None

    def __call__(self, past: Array) -> Array:
        """``(B, L, M) -> (B, H, M)``, both in the units of the series.

        Raises:
            ValueError: What it computes are no finite numbers.
        """
        x = ((past - self.mean) / self.std).astype(np.float32)
        parts = [self.run(x[begin : begin + BATCH]) for begin in range(0, len(x), BATCH)]
        found = np.concatenate(parts).astype(np.float64) * self.std + self.mean
        if not np.isfinite(found).all():
            raise ValueError(f"{self.name} computes no finite numbers for this series")
        return found


@dataclass(frozen=True)
class Errors:
    """How far forecasts were off on windows that nobody has learnt from.

    Attributes:
        model: Mean absolute error of each variable, ``(M,)``, in its units.
        season: That of the last season again.
        coverage: Share of the truths inside of the intervals, 0 to 1; None without intervals.
        windows: How many windows tell this.
    """

    model: Array
    season: Array
    coverage: float | None
    windows: int


@dataclass(frozen=True)
class Forecast:
    """The next H values of M variables.

    Attributes:
        series: From what they follow.
        model: Its name.
        times: ``(H,)``, or None where the series has no dates or no step.
        values: ``(H, M)`` in the units of the series.
        season: The last season again, ``(H, M)``.
        lower: Ends of the intervals, ``(H, M)``; None where too few windows were unseen.
        upper: The same.
        level: Share of the truths that shall lie inside.
        errors: What was measured; None where nothing was unseen.
        notes: What the reader has to know.
    """

    series: Series
    model: str
    times: Times | None
    values: Array
    season: Array
    lower: Array | None
    upper: Array | None
    level: float
    errors: Errors | None
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def rows(self) -> list[str]:
        """The times of the forecast for people, or the numbers of its rows."""
        if self.times is None:
            return [f"row {len(self.series) + step + 1}" for step in range(len(self.values))]
        return [told_time(time) for time in self.times]

    def to_csv(self) -> str:
        """A table: the times, and of each variable forecast, interval and base line."""
        parts: dict[str, Array | None] = {
            "": self.values,
            " lower": self.lower,
            " upper": self.upper,
            " last season": self.season,
        }
        shown = {name: part for name, part in parts.items() if part is not None}
        digits = [_decimals(column) for column in self.series.values.T]
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["date", *(f"{name}{end}" for name in self.series.variables for end in shown)])
        for step, time in enumerate(self.rows):
            cells = [
                f"{part[step, column]:.{digits[column]}f}" for column in range(len(digits)) for part in shown.values()
            ]
            writer.writerow([time, *cells])
        return file.getvalue()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        told: dict[str, Any] = {
            "model": self.model,
            "horizon": len(self.values),
            "from": self.rows[0],
            "to": self.rows[-1],
            "level": self.level if self.lower is not None else None,
            "notes": list(self.notes),
        }
        if self.errors is not None:
            pairs = zip(self.series.variables, self.errors.model.tolist(), self.errors.season.tolist(), strict=True)
            told["coverage"] = self.errors.coverage
            told["windows"] = self.errors.windows
            told["errors"] = {name: {"mae": mae, "last_season_mae": naive} for name, mae, naive in pairs}
        return told

    def lines(self) -> list[str]:
        """For people: the span, each variable's error beside the base line's, and what is sure."""
        told = [f"{self.model}: {len(self.values)} rows, {self.rows[0]} to {self.rows[-1]}"]
        if self.errors is not None:
            width = max(len(name) for name in self.series.variables)
            rows = zip(self.series.variables, self.errors.model, self.errors.season, strict=True)
            told.append(f"mean absolute errors on {self.errors.windows:,} later windows that it did not learn from:")
            told += [f"  {name:<{width}}  {mae:.4g}, of the last season again {naive:.4g}" for name, mae, naive in rows]
            if self.errors.coverage is not None:
                told.append(f"{self.level:.0%} intervals held {self.errors.coverage:.1%} of what came there")
        return [*told, *self.notes]


def forecast(series: Series, model: ForecastModel, *, horizon: int | None = None, level: float = LEVEL) -> Forecast:
    """What follows a series, by a model.

    Args:
        series: Without missing values; further variables than the model's are left out.
        model: What forecasts.
        horizon: Steps ahead, at most the model's; None: all of them.
        level: Share of the truths that shall lie inside of the intervals.

    Raises:
        ValueError: The series is too short, lacks a variable, the horizon is too long, or the model computes no finite
            numbers.
    """
    horizon = model.horizon if horizon is None else horizon
    if not 1 <= horizon <= model.horizon:
        raise ValueError(
            f"{model.name} forecasts 1 to {model.horizon} rows, not {horizon}: train one for more "
            f"(model.args.horizon={horizon}), or leave the model out"
        )
    if model.variables and series.variables != model.variables:
        series = series.select(model.variables)
    if len(model.mean) != len(series.variables):
        raise ValueError(
            f"{model.name} is for {len(model.mean)} variables, and {series.name} has {len(series.variables)}"
        )
    if len(series) < model.look_back:
        raise ValueError(f"{series.name} has {len(series)} rows, and {model.name} needs the last {model.look_back}")
    season = model.season or (series.step.season if series.step is not None else 1)
    short = season > model.look_back
    season = 1 if short else season
    past = series.values[None, len(series) - model.look_back :]
    values = model(past)[0, :horizon]
    intervals, errors, notes = _measured(series, model, season, horizon, level)
    if short:
        told = (
            f"{model.name} sees less than a season, {model.look_back} rows: the last value stands for the last season"
        )
        notes = [*notes, told]
    lower, upper = (None, None)
    if intervals is not None:
        lower, upper = (bound[0] for bound in intervals.bounds(values[None], past))
    return Forecast(
        series,
        model.name,
        series.next_times(horizon),
        values,
        last_season(past, season, horizon)[0],
        lower,
        upper,
        level,
        errors,
        notes,
    )


def last_season(past: Array, season: int, horizon: int) -> Array:
    """``(B, L, M) -> (B, H, M)``: the last season of the past, again and again."""
    return past[:, past.shape[1] - season + np.arange(horizon) % season]


def _measured(
    series: Series, model: ForecastModel, season: int, horizon: int, level: float
) -> tuple[Intervals | None, Errors | None, list[str]]:
    """Intervals from the earlier half of the unseen windows, what the later half says, and what is to be said."""
    begin = max(first_unseen(series, model.learnt), model.look_back)
    first, last = begin - model.look_back, len(series) - model.look_back - horizon
    count = last - first + 1
    if count < 2:
        return None, None, ["no windows are left that the model did not learn from: nothing could be measured"]
    half = first + count // 2
    end = max(half - horizon, first + 1)  # no row is in both halves
    errors = np.concatenate([np.abs(truth - found) for found, _, truth in _windows(series, model, first, end, horizon)])
    notes: list[str] = []
    if model.learnt is None:
        notes.append("nobody knows what the model has learnt from: its errors may be too small")
    intervals = None
    try:
        intervals = intervals_of(errors, level=level)
    except ValueError as error:
        if not 0 < level < 1:
            raise
        notes.append(f"no intervals: {error}")
    count, inside = 0, 0.0
    sums = np.zeros((2, len(series.variables)))
    for found, past, truth in _windows(series, model, half, last + 1, horizon):
        naive = last_season(past, season, horizon)
        sums += [np.abs(one - truth).mean(1).sum(0) for one in (found, naive)]
        inside += 0.0 if intervals is None else len(truth) * float(intervals.coverage(found, past, truth).mean())
        count += len(truth)
    own, season_s = sums / count
    return intervals, Errors(own, season_s, None if intervals is None else inside / count, count), notes


def _decimals(column: Array) -> int:
    """Digits after the point that tell a hundred-thousandth of a variable's spread, or else of its size."""
    spread, size = float(np.std(column)), float(np.abs(column).max()) or 1.0
    if spread > 1e-9 * size:  # else it never changes, but for rounding
        size = spread
    return min(max(0, 5 - math.floor(math.log10(size))), 17)


def first_unseen(series: Series, learnt: Sequence[Any] | None) -> int:
    """The first row that a model has not learnt from: by its time, or by its number where there are no times.

    Args:
        series: Any series.
        learnt: How many rows the model has learnt from, and the time of the last one or None; None: nobody knows.
    """
    if learnt is None:
        return 0
    rows, until = learnt
    if until is not None and series.times is not None:
        return int(np.searchsorted(series.times, np.datetime64(until), side="right"))
    return min(rows, len(series))


def _windows(
    series: Series, model: ForecastModel, first: int, end: int, horizon: int
) -> Iterator[tuple[Array, Array, Array]]:
    """Forecasts, pasts and truths of windows whose pasts begin in rows ``first ... end``, evenly spaced, in parts."""
    starts = np.unique(np.linspace(first, end - 1, min(end - first, MOST_WINDOWS)).round().astype(int))
    windows = sliding_window_view(series.values, model.look_back + horizon, axis=0)  # (T - L - H + 1, M, L + H)
    at_once = max(1, min(BATCH, MOST_VALUES // windows[0].size))
    for begin in range(0, len(starts), at_once):
        part = np.ascontiguousarray(windows[starts[begin : begin + at_once]].swapaxes(1, 2))
        past, truth = part[:, : model.look_back], part[:, model.look_back :]
        yield model(past)[:, :horizon], past, truth
