"""A forecaster with its loss, its forecasts and its errors."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.tasks.forecasting.metrics import ForecastErrors
from tokenmix.tasks.forecasting.options import LOSSES
from tokenmix.tasks.objective import Batch, Objective
from tokenmix_runtime.names import unknown


class ForecastObjective(Objective):
    """``past`` (B, L, M) and ``future`` (B, H, M), both normalised -> the mean error over windows, steps, variables.

    Args:
        model: ``(B, L, M) -> (B, H, M)``.
        num_variables: M.
        loss: One of `tokenmix.tasks.forecasting.options.LOSSES`.
        drop_last: See `tokenmix.tasks.forecasting.options.Options`.

    Raises:
        ValueError: If there is no such loss, or ``drop_last`` is negative.
    """

    def __init__(self, model: nn.Module, *, num_variables: int, loss: str = "mse", drop_last: int = 0) -> None:
        super().__init__()
        if loss not in LOSSES:
            raise ValueError(unknown("loss of a forecast", loss, LOSSES))
        if drop_last < 0:
            raise ValueError(f"drop_last must be 0 or the size of a batch, not {drop_last}")
        self.model, self.num_variables, self.loss, self.drop_last = model, num_variables, loss, drop_last

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """``loss``."""
        error = F.mse_loss if self.loss == "mse" else F.l1_loss
        return {"loss": error(self.model(batch["past"]).float(), batch["future"])}

    def predict(self, batch: Batch) -> Tensor:
        """``(B, H, M)``, normalised."""
        return self.model(batch["past"]).float()

    def metric(self) -> ForecastErrors:
        """Squared and absolute error."""
        return ForecastErrors(self.model.horizon, self.num_variables, drop_last=self.drop_last)  # type: ignore[arg-type]
