"""Forecasts of a user's file: by a trained model, an exported one or the quick one, as a table and as a picture."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tokenmix.backbones.reparameterize import reparameterize
from tokenmix.files import write_text
from tokenmix.tasks.forecasting.drawing import Panel, chart
from tokenmix_runtime.forecasts import LEVEL, Forecast, ForecastModel, forecast
from tokenmix_runtime.series import Series, read_series

MOST_PANELS = 12  # variables that a picture shows
HISTORY = 3  # rows before a forecast that are drawn, for each of its rows


def forecast_model(loaded: Any, device: torch.device | str = "cpu") -> ForecastModel:
    """A loaded model as what forecasts.

    Args:
        loaded: See `tokenmix.checkpoints.open_model`.
        device: Where it computes.

    Raises:
        ValueError: It does not know by what its series is normalised.
    """
    if not loaded.mean:
        raise ValueError(f"{loaded.name} does not know the means and deviations of its variables: name a training run")
    network = reparameterize(loaded.model.to(device)).eval()

    def run(x: Any) -> Any:
        with torch.inference_mode():
            return network(torch.from_numpy(x).to(device)).cpu().numpy()

    facts = loaded.facts
    learnt = facts.get("learnt")
    return ForecastModel(
        loaded.name,
        run,
        loaded.model.look_back,
        loaded.model.horizon,
        np.array(loaded.mean),
        np.array(loaded.std),
        tuple(facts.get("variables") or ()),
        facts.get("season"),
        None if learnt is None else (learnt[0], learnt[1]),
    )


def forecast_file(
    source: str | os.PathLike[str] | Series,
    model: ForecastModel | None = None,
    *,
    horizon: int | None = None,
    level: float = LEVEL,
) -> Forecast:
    """What follows a series.

    Args:
        source: A file, or a series.
        model: What forecasts; None: the quick model, fitted now.
        horizon: Rows ahead; None: the model's, 24 of the quick one.
        level: Of the intervals, 0 to 1.

    Raises:
        ValueError: The file is no series, does not fit the model, or is too short.
    """
    from tokenmix.tasks.forecasting.quick import HORIZON, quick_model

    series = source if isinstance(source, Series) else read_series(source)
    if model is None:
        model = quick_model(series, horizon or HORIZON)
    return forecast(series, model, horizon=horizon, level=level)


def write_forecast(found: Forecast, table: Path) -> tuple[Path, Path]:
    """Write the forecast as a CSV file, and beside it the picture; returns both paths.

    Raises:
        ValueError: A picture is there that belongs to no earlier forecast, as there is no ``table`` yet.
    """
    picture = table.with_suffix(".svg")
    if picture.exists() and not table.exists():
        raise ValueError(f"{picture} is in the way, and of no earlier forecast: choose another name with --out")
    table.parent.mkdir(parents=True, exist_ok=True)
    write_text(table, found.to_csv())
    write_text(picture, str(forecast_picture(found)))
    return table, picture


def forecast_picture(found: Forecast) -> str:
    """The end of the history, the forecast with its intervals, and the last season again, for each variable."""
    series, count = found.series, len(found.values)
    shown = min(len(series), max(HISTORY * count, 24))
    past = series.values[-shown:]
    last = series.time_name(len(series) - 1)
    marks = [(0, series.time_name(len(series) - shown)), (shown - 1, last), (shown + count - 1, found.rows[-1])]
    panels = []
    for column, name in enumerate(series.variables[:MOST_PANELS]):
        lines = {"past": past[:, column], "season": found.season[:, column], "found": found.values[:, column]}
        starts = {"past": 0, "season": shown, "found": shown}
        band = None
        if found.lower is not None and found.upper is not None:
            band = (found.lower[:, column].tolist(), found.upper[:, column].tolist())
        values = {key: line.tolist() for key, line in lines.items()}
        panels.append(Panel(name, values, starts, band, marks))
    return str(chart(panels, f"Forecast of {series.name} by {found.model}", _note(found)))


def _note(found: Forecast) -> str:
    notes = list(found.notes)
    if found.errors is not None and found.errors.coverage is not None:
        notes.insert(0, f"{found.level:.0%} intervals held {found.errors.coverage:.1%} of what came in later windows")
    if len(found.series.variables) > MOST_PANELS:
        notes.append(f"{MOST_PANELS} of {len(found.series.variables)} variables")
    return "; ".join(notes)
