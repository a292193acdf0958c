"""The script of the published tables: what is there is not done again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import forecasting


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    lines = (",".join(f"{value:.4f}" for value in row) for row in generator.normal(size=(7588, 8)).cumsum(0))
    (tmp_path / "exchange_rate.csv").write_text("\n".join(lines))
    return tmp_path


def test_runs_that_are_there_are_not_done_again(folder: Path, monkeypatch, capsys) -> None:
    out = folder / "out"
    command = [
        "forecasting.py",
        str(folder),
        "--data",
        "exchange",
        "--horizons",
        "96",
        "--models",
        "naive",
        "quick",
        "linear",
    ]
    monkeypatch.setattr("sys.argv", [*command, "--seeds", "1", "--set", "epochs=0.02", "--out", str(out)])
    forecasting.main()
    assert "exchange-96-naive-1" in capsys.readouterr().out
    forecasting.main()
    assert capsys.readouterr().out == ""
    run = json.loads((out / "exchange-96-linear-1.json").read_text())
    assert run["machine"]
    assert run["settings"] == ["epochs=0.02"]
    assert run["mse_drop_last"] != run["mse"]
    monkeypatch.setattr("sys.argv", [*command[:-3], "linear+quick+naive", "--seeds", "1", "--out", str(out)])
    forecasting.main()
    mean = json.loads((out / "exchange-96-linear+quick+naive-1.json").read_text())
    assert list(mean["shares"]) == ["linear", "quick", "naive"]
    parts = [json.loads((out / f"exchange-96-{name}-1.json").read_text())["val_mse"] for name in mean["shares"]]
    assert mean["val_mse"] <= min(parts) * (1 + 1e-6)
    quick = json.loads((out / "exchange-96-quick-1.json").read_text())
    assert mean["mse"] < (run["mse"] + quick["mse"]) / 2  # a square is convex
    forecasting.table(out)
    shown = capsys.readouterr().out
    assert "naive" in shown
    assert "FFNet" in shown
    monkeypatch.setattr("sys.argv", ["forecasting.py", "--out", str(out), "--write", str(folder / "all.json")])
    forecasting.main()
    assert [row["seeds"] for row in json.loads((folder / "all.json").read_text())["rows"]] == [[1]] * 4
    elsewhere = ["--seeds", "1", "--set", "epochs=0.02", "--out", str(folder / "elsewhere")]
    monkeypatch.setattr("sys.argv", [*command, *elsewhere, "--known", str(folder / "all.json")])
    forecasting.main()
    assert capsys.readouterr().out == "", "what another machine has done"


def test_shares_are_the_least_of_all() -> None:
    generator = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 101)] * 2), -1).reshape(-1, 2)
    grid = np.column_stack([grid, 1 - grid.sum(1)])[grid.sum(1) <= 1 + 1e-9]
    for errors in generator.normal(size=(20, 3, 50)) * generator.uniform(0.3, 2, (20, 3, 1)):
        gram = errors @ errors.T
        shares = np.array(forecasting.least(gram))
        assert shares.min() >= 0
        assert shares.sum() == pytest.approx(1)
        best = np.einsum("ni,ij,nj->n", grid, gram, grid).min()
        assert shares @ gram @ shares <= best * (1 + 1e-6)


def test_a_report_has_intervals_over_seeds_and_marks_the_best() -> None:
    runs = [
        {"data": "etth1", "horizon": horizon, "model": "ffnet", "seed": seed, "mse": 0.4 + 0.01 * seed, "mae": 0.5}
        for seed in range(3)
        for horizon in forecasting.HORIZONS
        if (seed, horizon) != (2, 720)
    ]
    runs += [
        {"data": "etth1", "horizon": horizon, "model": "naive", "seed": 0, "mse": 0.6, "mae": 0.6}
        for horizon in forecasting.HORIZONS
    ]
    *_, naive, ffnet = forecasting.report({"runs": runs}).splitlines()
    assert naive == "| ETTh1 | the last season again |  |" + " 0.600 / 0.600 |" * 5
    three, two = 4.302652729911 * 0.01 / 3**0.5, 12.70620473 * 0.005  # Student's t of two and of one degree of freedom
    cells = [f" 0.410 ± {three:.3f} / 0.500 |"] * 3 + [f" 0.405 ± {two:.3f} / 0.500 |"]
    assert ffnet == f"|  | `ffnet_forecast` | 2 |{''.join(cells)} **0.405 ± {two:.3f} / 0.500** |"
