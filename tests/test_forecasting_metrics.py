"""Errors, base lines, intervals, and the official rules of training."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tokenmix.tasks.forecasting.baselines import DecomposedLinear, SeasonalNaive
from tokenmix.tasks.forecasting.metrics import ForecastErrors
from tokenmix.tasks.forecasting.published import CITED, ScriptSettings, script_settings
from tokenmix.tasks.forecasting.splits import HORIZONS, PUBLISHED
from tokenmix_runtime.intervals import fit_intervals, scale_of


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_errors_are_means_over_windows_steps_and_variables() -> None:
    forecast, truth = normal(10, 4, 3), normal(10, 4, 3, seed=1)
    errors, halves = ForecastErrors(4, 3), [ForecastErrors(4, 3) for _ in range(2)]
    for first in range(0, 10, 3):
        part = slice(first, first + 3)
        for one in (errors, halves[first // 6]):
            one.update(forecast[part].float(), batch_of(truth[part].float(), first, 10))
    halves[0].add(halves[1].sums)
    for found in (errors.numbers(), halves[0].numbers()):
        assert found.windows == 10
        assert found.mse == pytest.approx(float((forecast - truth).square().mean()), rel=1e-6)
        assert found.mae == pytest.approx(float((forecast - truth).abs().mean()), rel=1e-6)
        assert torch.allclose(found.by_step, (forecast - truth).square().mean((0, 2)), rtol=1e-5)
        assert torch.allclose(found.by_variable, (forecast - truth).square().mean((0, 1)), rtol=1e-5)


def batch_of(truth: Tensor, first: int, windows: int) -> dict[str, Tensor]:
    """A batch of windows from ``first`` on."""
    index = torch.arange(first, first + len(truth))
    return {
        "future": truth,
        "index": index,
        "mask": torch.ones_like(index, dtype=torch.bool),
        "windows": torch.full_like(index, windows),
    }


def test_padding_is_not_counted() -> None:
    errors = ForecastErrors(4, 3)
    batch = batch_of(normal(3, 4, 3), 0, 3)
    batch["mask"][2] = False
    errors.update(batch["future"] + torch.tensor([1.0, 1.0, 9.0])[:, None, None], batch)
    assert errors.compute() == pytest.approx({"mse": 1, "mae": 1})
    assert errors.numbers().windows == 2


@given(windows=st.integers(1, 40), batch=st.integers(1, 20), size=st.integers(1, 9))
def test_dropping_the_last_batch_is_leaving_out_the_last_windows(windows: int, batch: int, size: int) -> None:
    forecast, truth = normal(windows, 1, 1), torch.zeros(windows, 1, 1, dtype=torch.float64)
    kept = windows - windows % batch
    errors = ForecastErrors(1, 1, drop_last=batch)
    for first in range(0, windows, size):
        part = slice(first, first + size)
        errors.update(forecast[part], batch_of(truth[part], first, windows))
    if kept == 0:
        with pytest.raises(ValueError, match="no window was counted"):
            errors.numbers()
    else:
        assert errors.numbers().windows == kept
        assert errors.numbers().mse == pytest.approx(float(forecast[:kept].square().mean()))


def test_the_last_season_again() -> None:
    past = torch.arange(10.0)[None, :, None]
    assert SeasonalNaive(7, 3)(past).flatten().tolist() == [7, 8, 9, 7, 8, 9, 7]
    assert SeasonalNaive(3, 1)(past).flatten().tolist() == [9, 9, 9]
    assert SeasonalNaive(12, 24)(past).flatten().tolist() == [9] * 12  # the past holds no season
    with pytest.raises(ValueError, match="whole numbers from 1 on"):
        SeasonalNaive(3, 0)


def test_the_linear_base_line_begins_as_the_mean_and_can_learn_a_line() -> None:
    model = DecomposedLinear(16, 4).double()
    for layer in (model.residual, model.trend):
        nn.init.zeros_(layer.bias)
    past = normal(5, 16, 2)
    assert torch.allclose(model(past), past.mean(1, keepdim=True).expand(-1, 4, -1))
    slope = normal(200, 1, 2, seed=3)
    line = slope * torch.arange(20, dtype=torch.float64)[None, :, None]
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = (model(line[:, :16]) - line[:, 16:]).square().mean()
        value.backward()
        return value

    optimizer.step(loss)
    assert loss().item() < 1e-4


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("level", [0.5, 0.9])
def test_intervals_cover_what_they_promise(level: float, relative: bool) -> None:
    def windows(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        past, noise = normal(4000, 8, 2, seed=seed).numpy() * 3, normal(4000, 5, 2, seed=seed + 100).numpy()
        size = scale_of(past) if relative else np.array([1.0, 10.0])
        return np.zeros((4000, 5, 2)), past, noise * size

    intervals = fit_intervals(*windows(1), level=level, relative=relative)
    forecast, past, truth = windows(2)
    coverage = intervals.coverage(forecast, past, truth)
    assert coverage.shape == (5, 2)
    assert (np.abs(coverage - level) < 6 * math.sqrt(level * (1 - level) / 4000)).all()
    lower, upper = intervals.bounds(forecast, past)
    assert (lower < upper).all()
    if not relative:
        assert float(intervals.width[:, 1].mean() / intervals.width[:, 0].mean()) == pytest.approx(10, rel=0.1)


def test_the_width_is_the_quantile_of_the_errors() -> None:
    truth = np.arange(1.0, 10.0)[:, None, None]  # errors 1 to 9
    zeros = np.zeros((9, 1, 1))
    assert fit_intervals(zeros, zeros, truth, level=0.9).width.item() == 9  # the 9th of 9: ceil(10 * 0.9)
    assert fit_intervals(zeros, zeros, truth, level=0.5).width.item() == 5
    with pytest.raises(ValueError, match=r"9 windows are too few for intervals of level 0\.95: 19 are needed"):
        fit_intervals(zeros, zeros, truth, level=0.95)
    with pytest.raises(ValueError, match="between 0 and 1"):
        fit_intervals(zeros, zeros, truth, level=90)


def test_settings_of_the_scripts() -> None:
    assert script_settings("ETTh1", 96) == ScriptSettings(2, 0.7, 0.0, 512, 1e-4, 20)
    assert script_settings("etth2", 720) == ScriptSettings(8, 0.85, 0.5, 512, 1e-4, 5)
    assert script_settings("etth2", 500).drop_rate == 0.85
    assert script_settings("ettm1", 96).head_drop == 0.0
    assert script_settings("ettm1", 192).head_drop == 0.1
    assert script_settings("ECL", 96).lr == 1e-4
    assert script_settings("traffic", 96).lr == 5e-5
    for name in PUBLISHED:
        assert {script_settings(name, horizon).mlp_ratio for horizon in HORIZONS} <= {2, 8, 12}
    assert set(CITED) <= set(PUBLISHED)
    with pytest.raises(ValueError, match="unknown published series"):
        script_settings("mine", 96)
