"""Forecasting: the next values of many variables from their last ones (arXiv:2406.02021), with any mixer."""

from __future__ import annotations

from tokenmix.tasks.forecasting.task import ForecastingTask

__all__ = ["TASKS"]

TASKS = (ForecastingTask(),)
