"""Which windows a forecaster gets most wrong, and its errors by step and by variable, as plain data for pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.distributed as dist
from torch import Tensor

from tokenmix.metrics import Metric
from tokenmix.tasks.forecasting.metrics import ForecastErrors
from tokenmix.tasks.forecasting.series_data import SeriesData

WINDOWS = 6  # that are kept, the worst
DIGITS = 5  # of the values that a page draws
MOST = 100  # variables that are named with their errors


class WorstWindows:
    """Keeps the windows with the largest squared errors; of those that overlap in their futures only the worst one.

    Args:
        horizon: Future steps, H.
        count: How many.
    """

    def __init__(self, horizon: int, count: int = WINDOWS) -> None:
        self.horizon, self.count = horizon, count
        self.rows: list[dict[str, Any]] = []

    def update(self, prediction: Tensor, batch: Mapping[str, Any]) -> None:
        """See forecasts ``(B, H, M)`` of a batch and its ``past``, ``future``, ``index`` and ``mask``."""
        errors = (prediction - batch["future"]).square()
        means = errors.mean((1, 2)).tolist()
        rows = zip(batch["index"].tolist(), batch["mask"].tolist(), means, strict=True)
        for place, (index, counts, mse) in enumerate(rows):
            if not counts or (len(self.rows) >= self.count and mse <= self.rows[-1]["mse"]):
                continue
            variable = int(errors[place].mean(0).argmax())
            drawn = {"past": batch["past"], "truth": batch["future"], "found": prediction}
            row = {"index": index, "mse": mse, "variable": variable}
            self._insert(row | {name: part[place, :, variable].tolist() for name, part in drawn.items()})

    def _insert(self, row: dict[str, Any]) -> None:
        near = [one for one in self.rows if abs(one["index"] - row["index"]) < self.horizon]
        if any(_order(one) < _order(row) for one in near):
            return
        kept = [one for one in self.rows if one not in near]
        self.rows = sorted([*kept, row], key=_order)[: self.count]

    def gather(self) -> list[dict[str, Any]]:
        """Those of all processes, the worst first; every process must call this, and the list is emptied."""
        rows, self.rows = self.rows, []
        if dist.is_available() and dist.is_initialized():
            parts: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(parts, rows)
            for row in sorted((row for part in parts for row in part), key=_order):
                self._insert(row)
            rows, self.rows = self.rows, []
        return rows


def _order(row: Mapping[str, Any]) -> tuple[float, int]:
    return -row["mse"], row["index"]


class ForecastEvidence:
    """What a run's page shows: errors by step and by variable, and the worst windows of the validation part.

    Args:
        data: The series.
        look_back: Past rows of a window.
        horizon: Future rows.
    """

    def __init__(self, data: SeriesData) -> None:
        self.data = data
        self.worst: WorstWindows | None = None
        self.witnesses = (self,)

    def update(self, prediction: Tensor, batch: Mapping[str, Any]) -> None:
        """See a batch, see `WorstWindows`; the first one tells how long forecasts are."""
        self.worst = self.worst or WorstWindows(prediction.size(1))
        self.worst.update(prediction, batch)

    def gather(self, metric: Metric) -> dict[str, Any]:
        assert isinstance(metric, ForecastErrors)
        numbers, scaler, series = metric.numbers(), self.data.scaler, self.data.series
        mistakes = []
        for row in (self.worst or WorstWindows(1)).gather():
            place = row["variable"]
            values = {
                name: [_short(value * scaler.std[place] + scaler.mean[place]) for value in row[name]]
                for name in ("past", "truth", "found")
            }
            name = self.data.val.names[row["index"]]
            mistakes.append({**row, **values, "variable": series.variables[place], "name": name})
        columns = zip(series.variables, numbers.by_variable, numbers.mae_by_variable, strict=True)
        variables: list[dict[str, Any]] = [
            {"variable": name, "mse": float(mse), "mae": float(mae)} for name, mse, mae in columns
        ]
        return {
            "windows": numbers.windows,
            "by_step": [_short(value) for value in numbers.by_step.tolist()],
            "variables": sorted(variables, key=lambda row: -row["mse"])[:MOST],
            "mistakes": mistakes,
        }

    def picture(self, entry: Mapping[str, Any]) -> str:
        """The window as an SVG picture: what was known, what came, what was forecast."""
        from tokenmix.tasks.forecasting.drawing import window_chart

        label = f"{entry['variable']}, from {entry['name']} on"
        return window_chart(entry["past"], entry["found"], entry["truth"], label)


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
