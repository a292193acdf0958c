"""A model for a series at once: a linear map from the past to the future, fitted in seconds, for any horizon.

Every window is normalised by its own mean and deviation, as the network does it (RevIN), and the map is shared by all
variables: ridge regression in closed form. A window counts by its own deviation, so that errors are weighed in the
series' scale and a past that stood still decides nothing. How strongly the map is held back is chosen on the last tenth
of what it learns from.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenmix.tasks.forecasting.splits import Scaler
from tokenmix_runtime.forecasts import ForecastModel
from tokenmix_runtime.series import Series

LEARNT = 0.7  # of the rows; the rest tells how good it is
USUAL = 96  # past rows, about
HORIZON = 24  # rows ahead, where nobody says
STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0)
MOST_WINDOWS = 20_000  # that it is fitted on
LONGEST = 1_000  # past rows: the fit takes time by their cube
Array = NDArray[Any]


def quick_model(
    series: Series, horizon: int, *, rows: int | None = None, look_back: int | None = None
) -> ForecastModel:
    """A linear model of a series.

    Args:
        series: Without missing values.
        horizon: Steps ahead.
        rows: How many of the first rows it is fitted to; None: `LEARNT` of them.
        look_back: Past rows of a window; None: what suits the season.

    Raises:
        ValueError: The series is too short.
    """
    season = series.step.season if series.step is not None else 1
    rows = int(LEARNT * len(series)) if rows is None else rows
    look_back = _look_back(season, rows, horizon) if look_back is None else look_back
    scaler = Scaler.of(series.values[:rows])
    windows = _windows(scaler.normalize(series.values[:rows]), look_back, horizon)
    cut = len(windows[0]) - max(len(windows[0]) // 10, 1)
    fitted = _moments(*(part[:cut] for part in windows))
    later = [part[cut:] for part in windows]
    errors = [_error(_solved(*fitted, strength), *later) for strength in STRENGTHS]
    weights = _solved(*_moments(*windows), STRENGTHS[int(np.argmin(errors))])

    def run(x: Array) -> Array:
        normalised, level, scale = _normalised(x.astype(np.float64))
        return (np.swapaxes(normalised, 1, 2) @ weights[:-1] + weights[-1]).swapaxes(1, 2) * scale + level

    until = None if series.times is None else str(series.times[rows - 1])
    return ForecastModel(
        "the quick linear model",
        run,
        look_back,
        horizon,
        scaler.mean,
        scaler.std,
        series.variables,
        season,
        (rows, until),
    )


def _look_back(season: int, rows: int, horizon: int) -> int:
    """About 96 rows, whole seasons of them where those are no longer than `LONGEST`, or fewer in a short series.

    Raises:
        ValueError: The series is too short for any.
    """
    wanted = season * max(1, round(USUAL / season)) if season <= LONGEST else USUAL
    most = (rows - horizon) // 3
    if most < 2:
        raise ValueError(
            f"{rows} rows to learn from are too few for {horizon} ahead: shorten --horizon, or give a longer series"
        )
    return min(max(wanted, 2), most)


def _windows(values: Array, look_back: int, horizon: int) -> tuple[Array, Array, Array]:
    """The windows of all variables in the order of time: pasts ``(P, L)`` and futures ``(P, H)``, normalised by the
    past, and the deviations of the pasts ``(P, 1)``.
    """
    count = len(values) - look_back - horizon + 1
    most = max(MOST_WINDOWS // values.shape[1], 2)
    starts = np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))
    windows = values[starts[:, None] + np.arange(look_back + horizon)]
    past, mean, scale = _normalised(windows[:, :look_back])
    future = (windows[:, look_back:] - mean) / scale
    first, second, third = (np.swapaxes(part, 1, 2).reshape(-1, part.shape[1]) for part in (past, future, scale))
    return first, second, third


def _normalised(past: Array) -> tuple[Array, Array, Array]:
    """``(B, L, M)`` by each window's mean and deviation, which come too."""
    mean = past.mean(1, keepdims=True)
    scale = np.sqrt(past.var(1, keepdims=True) + 1e-10)
    return (past - mean) / scale, mean, scale


def _moments(past: Array, future: Array, scale: Array) -> tuple[Array, Array]:
    x = np.concatenate([past, np.ones((len(past), 1))], 1)
    weighed = x * scale**2
    return weighed.T @ x, weighed.T @ future


def _solved(square: Array, product: Array, strength: float) -> Array:
    """The weights ``(L + 1, H)``, the last row the constant, which is not held back."""
    held = np.full(len(square), strength)
    held[-1] = 1e-9
    return np.linalg.solve(square + np.diag(held), product)


def _error(weights: Array, past: Array, future: Array, scale: Array) -> float:
    return float(np.square((past @ weights[:-1] + weights[-1] - future) * scale).mean())
