"""Training a forecaster by the official settings: it learns, and a killed run equals an unkilled one to the bit."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import forecasting
from tokenmix.tasks.forecasting.baselines import SeasonalNaive
from tokenmix.tasks.forecasting.model import ffnet_forecast
from tokenmix.tasks.forecasting.published import ScriptSettings
from tokenmix.tasks.forecasting.series import Series
from tokenmix.tasks.forecasting.splits import Parts, split_series

SETTINGS = ScriptSettings(2, 0.3, 0.1, batch_size=64, lr=3e-3, patience=5)


@pytest.fixture(scope="module")
def parts() -> Parts:
    """Two noisy seasons of 12 steps with a slow drift."""
    generator, rows = np.random.default_rng(0), np.arange(700)
    values = np.stack([np.sin(rows / 12 * 2 * np.pi), np.cos(rows / 12 * 2 * np.pi) + rows / 300], 1)
    values += 0.3 * generator.normal(size=values.shape)
    return split_series(Series("waves", ("a", "b"), values), 24, 12)


def model(mixers: str = "ffnet") -> nn.Module:
    torch.manual_seed(0)
    options = {**SETTINGS.model_options(), "dims": (8,), "kernel_sizes": (9,), "small_sizes": (3,), "mixers": mixers}
    return ffnet_forecast(2, 24, 12, **options)


def test_learns_more_than_to_repeat_a_season(parts, tmp_path) -> None:
    net = model()
    told = forecasting.run(net, parts, SETTINGS, 0, 8, tmp_path / "state.pt")
    learnt = forecasting.validate(net.eval(), parts.test).numbers()
    naive = forecasting.validate(SeasonalNaive(12, 12), parts.test).numbers()
    assert told["val_losses"][told["best_epoch"]] < told["val_losses"][0]
    assert learnt.mse < 0.8 * naive.mse
    assert learnt.windows == naive.windows == len(parts.test)
    judged = forecasting.judge(net, parts, 64)
    assert judged["mse"] == pytest.approx(learnt.mse)
    assert judged["mse_drop_last"] != judged["mse"]
    assert 0.7 < judged["coverage_90"] < 1
    assert 0.7 < judged["coverage_90_relative"] < 1


def test_a_killed_run_equals_an_unkilled_one(parts, tmp_path) -> None:
    whole, killed = model(), model()
    straight = forecasting.run(whole, parts, SETTINGS, 3, 4, tmp_path / "whole.pt")
    forecasting.run(killed, parts, SETTINGS, 3, 2, tmp_path / "killed.pt")
    torch.manual_seed(99)
    again = copy.deepcopy(model())
    resumed = forecasting.run(again, parts, SETTINGS, 3, 4, tmp_path / "killed.pt")
    assert resumed["val_losses"] == straight["val_losses"]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_another_seed_is_another_run(parts, tmp_path) -> None:
    losses = [forecasting.run(model(), parts, SETTINGS, s, 1, tmp_path / f"{s}.pt")["val_losses"] for s in (0, 1, 0)]
    assert losses[0] != losses[1]
    (tmp_path / "0.pt").unlink()
    assert forecasting.run(model(), parts, SETTINGS, 0, 1, tmp_path / "0.pt")["val_losses"] == losses[0]


def test_runs_that_are_there_are_not_done_again(tmp_path, monkeypatch, capsys) -> None:
    rows, generator = 7588, np.random.default_rng(0)
    lines = (",".join(f"{value:.4f}" for value in row) for row in generator.normal(size=(rows, 8)).cumsum(0))
    (tmp_path / "exchange_rate.csv").write_text("\n".join(lines))
    command = ["forecasting.py", str(tmp_path), "--data", "exchange", "--horizons", "96", "--models", "naive"]
    monkeypatch.setattr("sys.argv", [*command, "--out", str(tmp_path / "out")])
    monkeypatch.setattr(forecasting, "keep_memory", lambda: None)
    forecasting.main()
    assert "exchange-96-naive-0" in capsys.readouterr().out
    forecasting.main()
    assert capsys.readouterr().out == ""
    forecasting.table(tmp_path / "out")
    shown = capsys.readouterr().out
    assert "naive" in shown
    assert "FFNet" in shown
