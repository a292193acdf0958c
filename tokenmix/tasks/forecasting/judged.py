"""What an evaluation of forecasts tells beside the errors: the same of the last season, and both for each variable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenmix.tasks.base import Judging
from tokenmix.tasks.forecasting.baselines import SeasonalNaive
from tokenmix.tasks.forecasting.metrics import ForecastErrors, ForecastNumbers


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


class ForecastJudging(Judging):
    """Tells the errors of the seasonal-naive forecast on the same windows, and those of each variable."""

    def __init__(self, metric: Any, facts: Mapping[str, Any]) -> None:
        super().__init__(metric, facts)
        shape = metric.sums.shape
        self.naive = NaiveErrors(
            ForecastErrors(shape[1], shape[2], drop_last=metric.drop_last), int(facts.get("season") or 1)
        )
        self.witnesses = (self.naive,)
        self.found: ForecastNumbers | None = None
        self.before: ForecastNumbers | None = None

    def finish(self) -> None:
        self.found, self.before = self.metric.numbers(), self.naive.errors.numbers()  # type: ignore[attr-defined]

    def numbers(self) -> dict[str, float]:
        """The naive forecast's errors."""
        assert self.before is not None
        return {"naive_mse": self.before.mse, "naive_mae": self.before.mae}

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
