"""The demos: what the command says about a few pictures, and, slowly, that they learn."""

from __future__ import annotations

import json
import math
import sys

import pytest
import torch

import tokenmix
from tokenmix.cli import main
from tokenmix.cli.judging import numbers_line
from tokenmix.data.prepare import normalise
from tokenmix.sources import load_data
from tokenmix.tasks import find_task
from tokenmix.tasks.dense import scenes

pytest.importorskip("skimage")
pytest.importorskip("sklearn")


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(scenes, "COUNTS", {"train": 32, "val": 3, "test": 5})


@pytest.mark.parametrize("name", ["detect", "segment"])
def test_a_demo_trains_judges_and_tells(few, name, tmp_path, capsys) -> None:
    words = ["demo", name, "--epochs", "0.5", "--mixers", "pool", "--seed", "3", "--out", str(tmp_path)]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    recipe = json.loads((tmp_path / "recipe.json").read_text())
    run, task = recipe["run"], recipe["task"]["name"]
    assert (run["seed"], recipe["model"]["args"]["mixers"], run["data"]) == (3, "pool", "scenes")
    classes = load_data("scenes", task=task, log=lambda line: None).classes
    assert [row["class"] for row in told["classes"]] == classes
    assert told["images"] == 5
    assert main(words) == 0  # it is finished, and says the same again
    lines = capsys.readouterr().out.splitlines()
    shown = numbers_line(
        find_task(task), {key: math.nan if value is None else value for key, value in told["metrics"].items()}
    )
    assert lines[-3:] == [
        f"5 test images: {shown}",
        f"weights: {tmp_path / 'best.safetensors'}",
        f"report: {tmp_path / 'report.html'}",
    ]
    assert "<html" in (tmp_path / "report.html").read_text()
    for kind in classes:
        assert any(line.startswith(f"{kind} ") for line in lines)


def test_the_numbers_are_those_of_the_test_pictures(few, tmp_path, capsys) -> None:
    """Counted again, pixel by pixel, with the weights on disk."""
    assert main(["demo", "segment", "--epochs", "0.5", "--mixers", "pool", "--out", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    model = tokenmix.reparameterize(tokenmix.load_checkpoint(tmp_path).eval())  # what evaluation judges
    data = load_data("scenes", task="segmentation")
    found, truth = [], []
    for index in range(len(data.test)):
        pixels = torch.tensor(data.test.scenes[index].pixels).permute(2, 0, 1)
        with torch.no_grad():
            found.append(model(normalise(pixels, data.mean, data.std)[None]).argmax(1)[0])
        truth.append(data.test.target(index)["label"])
    found, truth = torch.stack(found), torch.stack(truth)
    for number, row in enumerate(told["classes"]):
        union = ((found == number) | (truth == number)).sum().item()
        shared = ((found == number) & (truth == number)).sum().item()
        assert row["IoU"] == (pytest.approx(100 * shared / union) if union else None)
    known = [row["IoU"] for row in told["classes"] if row["IoU"] is not None]
    assert told["metrics"]["mIoU"] == pytest.approx(sum(known) / len(known))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["detct"], "did you mean 'detect'"),
        (["detect", "--mixers", "afff"], "did you mean 'aff'"),
        (["segment", "--epochs", "0"], "'schedule.epochs' must be above 0"),
        ([], "required"),
    ],
)
def test_mistakes_are_named(few, words, message, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", *words]) == 2
    assert message in capsys.readouterr().err


def test_the_missing_package_is_named(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    assert main(["demo", "detect", "--out", str(tmp_path)]) == 2
    assert "pip install 'tokenmix[demo]'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("name", "metric", "least"), [("detect", "box_AP50", 50), ("segment", "mIoU", 60)])
def test_a_whole_demo_ends_well_above_chance(name, metric, least, tmp_path, capsys) -> None:
    assert main(["demo", name, "--out", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"][metric] > least
