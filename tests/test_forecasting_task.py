"""Forecasting as a task of the house: recipes, training, judging, resuming, processes, pages, commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import goldens
from tests.series_files import TOY, quiet, train_waves, write_waves
from tests.test_train_distributed import ROOT, free_port
from tokenmix.checkpoints import convert, open_model
from tokenmix.cli import main
from tokenmix.comparison import compare
from tokenmix.evaluate import judge
from tokenmix.recipes import make_recipe
from tokenmix.sources import load_data
from tokenmix.tasks import find_task
from tokenmix.tasks.forecasting.page import compare_sections
from tokenmix.tasks.forecasting.splits import HORIZONS, PUBLISHED
from tokenmix.train.schedule import Calendar
from tokenmix.train.training_step import TrainingStep


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_waves(tmp_path_factory.mktemp("series") / "waves.csv")


@pytest.fixture(scope="module")
def trained(waves: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    train_waves(waves, out, "epochs=12")
    return out


def test_a_run_learns_more_than_the_last_season(trained: Path, waves: Path) -> None:
    rows = [json.loads(line) for line in (trained / "history.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < rows[0]["loss"]
    loaded = open_model(trained)
    assert (loaded.task, loaded.name, loaded.facts["variables"]) == ("forecasting", "ffnet_forecast", ["level", "flow"])
    data = load_data(waves, task="forecasting", log=quiet)
    best = json.loads((trained / "best.json").read_text())
    assert judge(loaded, data.val, data.facts).numbers["mse"] == pytest.approx(best["val_mse"], rel=1e-4)
    numbers = judge(loaded, data.test, {**data.facts, "season": 12}).numbers
    assert numbers["mse"] < 0.9 * numbers["naive_mse"]
    dropped = judge(loaded, data.test, data.facts, drop_last=32).numbers
    assert dropped["mse"] != numbers["mse"]


def test_the_page_shows_worst_windows_and_errors(trained: Path) -> None:
    page = (trained / "report.html").read_text()
    for text in ("Worst windows", "Errors by step and variable", "series-truth", "flow"):
        assert text in page
    assert 1 <= page.count('<div class="card"><p><b>') <= 6


def test_a_killed_run_equals_an_unkilled_one(waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_waves(waves, tmp_path / "whole")
    step, calls = TrainingStep.step, []

    def dying(self: TrainingStep, *args: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingStep, "step", dying)
        with pytest.raises(KeyboardInterrupt):
            train_waves(waves, tmp_path / "killed", checkpoint_seconds=0)
    train_waves(waves, tmp_path / "killed")
    ours, theirs = (open_model(tmp_path / name).model.state_dict() for name in ("killed", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_patience_ends_a_run(waves: Path, tmp_path: Path) -> None:
    found = train_waves(waves, tmp_path, "epochs=50", "patience=1", "lr=0.3")
    assert len(found.history) < 50
    assert found.best["epoch"] == len(found.history) - 1


@pytest.mark.slow
def test_two_processes_equal_one(waves: Path, tmp_path: Path) -> None:
    """Of a network without batch norm and dropout, which see the samples of one process."""
    settings = (
        "model=linear_forecast",
        "drop_rate=none",
        "model_args={'look_back': 24, 'horizon': 6}",
        "epochs=2",
        "batch_size=64",
    )
    train_waves(waves, tmp_path / "one", *settings)
    script = tmp_path / "script.py"
    script.write_text(
        "from tests.series_files import train_waves\nfrom pathlib import Path\n"
        f"train_waves(Path({str(waves)!r}), Path({str(tmp_path / 'two')!r}), *{settings!r})\n"
    )
    place = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    place["PYTHONPATH"] = str(ROOT)
    started = [
        subprocess.Popen(
            [sys.executable, str(script)],
            cwd=ROOT,
            env=os.environ | place | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=240) for process in started] == [0, 0]
    one, two = (open_model(tmp_path / name).model.state_dict() for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-6)
    first, second = ((tmp_path / name / "history.jsonl").read_text().splitlines() for name in ("one", "two"))
    for a, b in zip(map(json.loads, first), map(json.loads, second), strict=True):
        assert a["val_mse"] == pytest.approx(b["val_mse"], rel=1e-6)


def test_recipes_are_the_scripts(tmp_path: Path) -> None:
    recipe = make_recipe("ffnet_forecast_etth2_720")
    assert (recipe.run.batch_size, recipe.run.patience, recipe.optimizer.lr) == (512, 5, 1e-4)
    assert recipe.model.drop_rate == 0.85
    assert recipe.optimizer.weight_decay == 0
    calendar = Calendar(recipe, lambda epoch: 17)
    # What the scripts set after an epoch, counted from 1: base before 3, then base * 0.9 ** (epoch - 3).
    rates = [1e-4] + [1e-4 if epoch < 3 else 1e-4 * 0.9 ** (epoch - 3) for epoch in range(1, 100)]
    assert [calendar.lr(17 * epoch) for epoch in range(100)] == pytest.approx(rates)
    names = {f"ffnet_forecast_{data}_{horizon}" for data in PUBLISHED for horizon in HORIZONS}
    assert names <= {make.__name__ for make in find_task("forecasting").recipes()}
    other = make_recipe("ffnet_forecast", ["model_args.mixers=ffnet", "data=co2"])
    (tmp_path / "recipe.json").write_text(other.to_json())
    assert make_recipe(str(tmp_path / "recipe.json")) == other  # a file may name the published mixer
    with pytest.raises(ValueError, match="did you mean 'ffnet_forecast'"):
        make_recipe("ffnet_forecast", ["model=ffnet_forecasts"])
    with pytest.raises(ValueError, match=r"'task\.loss'"):
        make_recipe("ffnet_forecast", ["task.loss=huber"])


def test_training_takes_every_window_once_and_two_processes_share_them(waves: Path) -> None:
    task, data = find_task("forecasting"), load_data(waves, task="forecasting", log=quiet)
    recipe = make_recipe("ffnet_forecast", TOY)

    def batches(rank: int, world: int) -> list[dict[str, Any]]:
        train, _ = task.loaders(recipe, data, {}, workers=0, rank=rank, world=world)
        return list(train.batches(1))

    whole = batches(0, 1)
    index = torch.cat([batch["index"] for batch in whole])
    assert sorted(index.tolist()) == list(range(420 - 24 - 6 + 1))  # the last batch is not dropped, as officially
    for one, first, second in zip(whole, batches(0, 2), batches(1, 2), strict=True):
        for name in ("past", "future", "index"):
            assert torch.equal(one[name][::2], first[name])
            assert torch.equal(one[name][1::2], second[name])


def test_official_files_load_convert_and_judge(tmp_path: Path, waves: Path) -> None:
    golden = goldens.load("forecasting/ffnet_ts_etth1_96")
    weights = goldens.state_dict(golden)
    torch.save(weights, tmp_path / "checkpoint.pth")
    loaded = open_model(tmp_path / "checkpoint.pth")
    assert (loaded.name, loaded.model.horizon) == ("ffnet_forecast", 96)
    with torch.no_grad():
        goldens.assert_matches(loaded.model(goldens.inputs(golden)), golden["output"], torch.float32)
    convert(tmp_path / "checkpoint.pth", tmp_path / "ours.safetensors")
    convert(tmp_path / "ours.safetensors", tmp_path / "back.pth", to="official")
    back = torch.load(tmp_path / "back.pth", weights_only=True)["state_dict"]
    assert set(back) == set(weights)
    with pytest.raises(ValueError, match="forecasts 7 variables, but the series has 2"):
        main_or_raise("eval", str(tmp_path / "checkpoint.pth"), "--data", str(waves))


def main_or_raise(*words: str) -> None:
    main([*words, "--traceback"])


def test_commands(trained: Path, waves: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(trained), "--data", str(waves), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rows"] == 120  # the test part of the run's own series
    assert [row["variable"] for row in told["classes"]] == ["level", "flow"]
    assert main(["eval", str(trained), "--data", str(write_waves(tmp_path / "other.csv", 300)), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 300  # all of another one
    assert main(["data", "check", str(waves), "--task", "forecasting"]) == 0
    assert "step: hour, season: 24 steps" in capsys.readouterr().out
    gaps = tmp_path / "gaps.csv"
    gaps.write_text(waves.read_text().replace(",2", ",?2", 3))
    assert main(["data", "check", str(gaps), "--task", "forecasting"]) == 3
    assert "cells are not a number" in capsys.readouterr().out
    short = [*(word for word in TOY if "epochs" not in word), "epochs=1"]
    words = ["train", "ffnet_forecast", *short, "--data", f"{waves}:target=flow", "--out", str(tmp_path / "one")]
    assert main(words) == 0
    assert "best: mse" in capsys.readouterr().out
    assert open_model(tmp_path / "one").facts["variables"] == ["flow"]
    assert main(["eval", str(tmp_path / "one"), "--data", str(waves)]) == 0  # the variable is found in the file
    assert "flow" in capsys.readouterr().out
    with pytest.raises(ValueError, match="did you mean 'flow'"):
        load_data(f"{waves}:target=flew", task="forecasting", log=quiet)
    assert main(["eval", "seasonal_naive", "--data", str(waves)]) == 0
    with pytest.raises(ValueError, match="Traffic is not here"):
        load_data("traffic", task="forecasting", log=quiet)


@pytest.mark.slow
def test_mixers_are_compared_from_a_file(waves: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    settings = [word for word in TOY if not word.startswith(("model_args.dims", "epochs"))]
    options = {"settings": [*settings, "epochs=1"], "measure_seconds": 1, "batch_sizes": (1,), "log": quiet}
    results = compare(waves, ["ffnet", "pool"], out=tmp_path, match="params", **options)
    for entry in results["mixers"].values():
        assert entry["test_mse"] > 0
        assert entry["onnx_max_error"] < 1e-3
        assert [row["variable"] for row in entry["per_variable"]] == ["level", "flow"]
    page = (tmp_path / "report.html").read_text()
    assert "last season" in page
    with pytest.raises(ValueError, match="name the mixers with --mixers"):
        compare(waves, ["pool"], out=tmp_path / "x", settings=["model_args.mixers=aff"])


def test_mixers_are_compared_variable_by_variable() -> None:
    def entry(name: str, mse: float) -> dict[str, Any]:
        return {"mixer": name, "per_variable": [{"variable": "OT", "mse": mse, "mae": 0.2, "naive_mse": 0.5}]}

    results = {"mixers": {"aff": entry("aff", 0.25), "pool": entry("pool", 0.31)}, "headline": "mse"}
    (section,) = compare_sections(results)
    assert all(text in section.html for text in ("OT", "0.5000", "0.2500", "0.3100", "aff", "pool"))
    assert compare_sections({"mixers": {"aff": {}}}) == []
