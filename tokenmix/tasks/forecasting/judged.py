"""What an evaluation of forecasts tells beside the errors: the same of the last season, and both for each variable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from tokenmix.metrics import ItemScores
from tokenmix.tasks.forecasting.baselines import SeasonalNaive
from tokenmix.tasks.forecasting.metrics import ForecastErrors, ForecastNumbers
from tokenmix.tasks.judging import Judging


class NaiveErrors:
    """The errors of the last season again on the windows of an evaluation.

    Args:
        errors: Counts them.
        season: Steps.
    """

    def __init__(self, errors: ForecastErrors, season: int) -> None:
        self.errors, self.season = errors, season

    def update(self, prediction: Tensor, batch: Mapping[str, Any]) -> None:
        """See a batch."""
        naive = SeasonalNaive(prediction.size(1), self.season)(batch["past"])
        self.errors.update(naive, dict(batch))


class WindowErrors:
    """The squared error of each window of an evaluation, in this process; see `ForecastErrors` for ``drop_last``."""

    def __init__(self, drop_last: int) -> None:
        self.drop_last = drop_last
        self.length = 0  # rows that a window spans
        self.errors: dict[int, float] = {}

    def update(self, prediction: Tensor, batch: Mapping[str, Any]) -> None:
        """See a batch."""
        self.length = batch["past"].size(1) + batch["future"].size(1)
        errors = (prediction - batch["future"]).double().square().mean((1, 2))
        rows = zip(*(batch[key].tolist() for key in ("index", "mask", "windows")), errors.tolist(), strict=True)
        for index, counts, windows, error in rows:
            if counts and (not self.drop_last or index < windows - windows % self.drop_last):
                self.errors[index] = error

    def scores(self) -> ItemScores | None:
        """The mean squared error by stretches of windows, each as long as two, since windows share most of their rows.

        Then a stretch shares rows with its neighbours alone, and few. None of fewer than three stretches.
        """
        values = np.array([self.errors[index] for index in sorted(self.errors)])
        count = len(values) // max(2 * self.length, 1)
        if count < 3:
            return None
        # Stretches differ in length by a window at most: each is weighed, so that the mean is that of the windows.
        parts = np.array_split(values, count)
        weighed = np.array([part.sum() for part in parts]) * (count / len(values))
        return ItemScores(weighed, f"stretches of {2 * self.length} windows", chained=True)


class ForecastJudging(Judging):
    """Tells the errors of the seasonal-naive forecast on the same windows, and those of each variable and window."""

    def __init__(self, metric: Any, facts: Mapping[str, Any]) -> None:
        super().__init__(metric, facts)
        shape = metric.sums.shape
        self.naive = NaiveErrors(
            ForecastErrors(shape[1], shape[2], drop_last=metric.drop_last), int(facts.get("season") or 1)
        )
        self.windows = WindowErrors(metric.drop_last)
        self.witnesses = (self.naive, self.windows)
        self.found: ForecastNumbers | None = None
        self.before: ForecastNumbers | None = None

    def finish(self) -> None:
        self.found, self.before = self.metric.numbers(), self.naive.errors.numbers()  # type: ignore[attr-defined]

    def numbers(self) -> dict[str, float]:
        """The naive forecast's errors."""
        assert self.before is not None
        return {"naive_mse": self.before.mse, "naive_mae": self.before.mae}

    def base_line(self) -> tuple[float, str]:
        assert self.before is not None
        return self.before.mse, "the last season again"

    def rows(self) -> list[dict[str, Any]]:
        assert self.found is not None
        assert self.before is not None
        names = self.facts.get("variables") or [f"variable {i + 1}" for i in range(len(self.found.by_variable))]
        return [
            {
                "variable": name,
                "mse": float(self.found.by_variable[i]),
                "mae": float(self.found.mae_by_variable[i]),
                "naive_mse": float(self.before.by_variable[i]),
                "naive_mae": float(self.before.mae_by_variable[i]),
            }
            for i, name in enumerate(names)
        ]

    def item_scores(self) -> ItemScores | None:
        return self.windows.scores()
