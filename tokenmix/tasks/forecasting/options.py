"""What the recipes of forecasting say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from tokenmix.checked_values import choice, not_negative
from tokenmix.tasks.options import TaskOptions

LOSSES = ("mse", "mae")


@dataclass(frozen=True, kw_only=True)
class Options(TaskOptions):
    """What is made small, and which windows count. Look-back and horizon are the model's: ``model.args.horizon=192``.

    Args:
        loss: ``"mse"``, the squared error that all papers train with, or ``"mae"``, the absolute one.
        drop_last: 0: all windows are judged. Otherwise those that are left over behind whole batches of so many are
            not, as in papers whose loaders drop the last incomplete batch.
    """

    name: ClassVar[str] = "forecasting"
    loss: str = field(default="mse", metadata=choice(LOSSES))
    drop_last: int = field(default=0, metadata=not_negative("batch"))
