"""A task that is one folder outside of the house does all that the house's own do, without an edit anywhere else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from examples.own_task import AngleTask
from tokenmix.checkpoints import open_model
from tokenmix.cli import main
from tokenmix.comparison import compare
from tokenmix.evaluate import judge
from tokenmix.recipes import make_recipe
from tokenmix.sources import load_data
from tokenmix.tasks import register_task
from tokenmix.train import fit
from tokenmix.train.training_step import TrainingStep

SETTINGS = [
    "task=angle",
    "data=bars",
    "model=mixernet_pico",
    "batch_size=32",
    "epochs=8",
    "lr=0.004",
    "augment=none",
    "label_smoothing=0.0",
]


@pytest.fixture(autouse=True, scope="module")
def registered() -> Iterator[None]:
    from tokenmix import tasks

    register_task(AngleTask())
    yield
    del tasks._OWN["angle"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("angle") / "run"
    data = load_data("bars", task="angle", log=lambda line: None)
    fit(make_recipe("basic", SETTINGS), data, out, progress=False, log=lambda line: None)
    return out


def test_it_learns_and_its_page_shows_it(trained: Path) -> None:
    loaded = open_model(trained)
    data = load_data("bars", task="angle", log=lambda line: None)
    judged = judge(loaded, data.test, data.facts)
    assert loaded.task == "angle"
    assert judged.numbers["error"] < 15  # guessing the mean is off by 30
    best = json.loads((trained / "best.json").read_text())
    rows = [json.loads(line) for line in (trained / "history.jsonl").read_text().splitlines()]
    assert best["val_error"] == min(row["val_error"] for row in rows), "the smaller error is the better one"
    page = (trained / "report.html").read_text()
    assert "degrees" in page


def test_a_killed_run_equals_an_unkilled_one(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_data("bars", task="angle", log=lambda line: None)
    step, calls = TrainingStep.step, []

    def dying(self: TrainingStep, *args: object) -> object:
        calls.append(1)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return step(self, *args)  # type: ignore[arg-type]

    recipe, quiet = make_recipe("basic", SETTINGS), {"progress": False, "log": lambda line: None}
    monkeypatch.setattr(TrainingStep, "step", dying)
    with pytest.raises(KeyboardInterrupt):
        fit(recipe, data, tmp_path, checkpoint_seconds=0, **quiet)  # type: ignore[arg-type]
    monkeypatch.undo()
    fit(recipe, data, tmp_path, **quiet)  # type: ignore[arg-type]
    ours, theirs = (open_model(folder).model.state_dict() for folder in (tmp_path, trained))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_commands_know_it(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(trained), "--data", "bars", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["task"], told["bars"]) == ("angle", 64)
    data = load_data("bars", task="angle", log=lambda line: None)
    data.test.load(0).save(tmp_path / "bar.png")
    assert main(["predict", str(tmp_path / "bar.png"), "--model", str(trained)]) == 0
    assert "degrees" in capsys.readouterr().out
    assert main(["data", "check", "bars", "--task", "angle"]) == 0
    assert main(["export", str(trained), "--out", str(tmp_path / "angle.onnx")]) == 0
    assert (tmp_path / "angle.onnx").is_file()


def test_mixers_are_compared_on_it(tmp_path: Path) -> None:
    settings = [setting for setting in SETTINGS if not setting.startswith(("data=", "model="))] + ["epochs=1"]
    results = compare(
        "bars", "pool,identity", out=tmp_path, settings=settings, measure_seconds=0.5, log=lambda line: None
    )
    assert (results["headline"], results["unit"]) == ("error", "degrees")
    assert all(entry["test_error"] > 0 for entry in results["mixers"].values())
    assert "degrees" in (tmp_path / "report.html").read_text()
