"""Mixers are compared in the networks of every task."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.series_files import TOY, write_waves
from tokenmix.comparison import compare
from tokenmix.comparison.planning import planned_recipe
from tokenmix.comparison.request import Request, base_recipe, named_specs
from tokenmix.sources import load_data
from tokenmix.tasks import find_task

pytest.importorskip("skimage")

ASKED = {
    "classification": ("digits", None, "mixernet_pico"),
    "detection": ("scenes", "scenes_detect", "mixernet_pico"),
    "segmentation": ("scenes", "scenes_segment", "mixernet_pico"),
    "super_resolution": ("photographs", None, "ffnet_sr_tiny"),
    "points": ("rooms", None, "ffnet_points_small"),
    "forecasting": ("tides.csv:target=level", None, "ffnet_forecast"),
}
BRIEF = {
    "classification": ["epochs=2", "warmup_epochs=0.5", "image_size=16", "batch_size=128"],
    "detection": ["epochs=0.1"],
    "segmentation": ["epochs=0.1"],
    "super_resolution": ["epochs=0.1", "task.patches=20"],
    "points": ["epochs=0.1", "warmup_epochs=0"],
    "forecasting": [setting for setting in TOY if "dims" not in setting],  # a comparison decides the widths
}
EXACT = ("val_{}", "test_{}", "test_{}_per_seed", "test_{}_interval", "params", "macs", "dims", "weights_sha256")


def asked(task: str, folder: Path) -> tuple[str, str | None]:
    """The data and the recipe; a series is written."""
    data, name, _ = ASKED[task]
    return (str(write_waves(folder / "waves.csv")), name) if task == "forecasting" else (data, name)


@pytest.mark.parametrize("task", ASKED)
def test_the_skeleton_is_the_tasks(task) -> None:
    """The data or the recipe say the task, and that says which network takes the mixers, and at which widths."""
    data, name, skeleton = ASKED[task]
    recipe = base_recipe(name, [], data, None)
    own = find_task(task).own_widths(recipe)
    assert (recipe.task.name, recipe.model.name) == (task, skeleton)
    assert "mixers" not in recipe.model.args
    assert own == tuple(recipe.model.args.get("dims", own))
    assert list(named_specs("pool,identity", recipe)) == ["pool", "identity"]
    with pytest.raises(ValueError, match="did you mean 'pool'"):
        named_specs(["poool"], recipe)


@pytest.mark.parametrize(("data", "skeleton"), [("photographs", "bicubic_x2"), ("digits", "resnet18")])
def test_a_network_without_mixers_is_no_skeleton(data, skeleton, tmp_path) -> None:
    with pytest.raises(ValueError, match=f"{skeleton} takes no mixers, so it is no skeleton"):
        compare(data, ["pool"], out=tmp_path / "out", skeleton=skeleton)
    assert not (tmp_path / "out").exists()


def test_what_is_timed_for_the_plan_is_what_was_asked_for(monkeypatch, tmp_path) -> None:
    """A series too short for the usual window is compared at the window that was asked for."""
    timed: list[Any] = []

    def measured(recipe, data, device, *, workers):
        timed.append(recipe.model.args)
        return SimpleNamespace(seconds=1.0)

    monkeypatch.setattr("tokenmix.comparison.planning.measure_pace", measured)
    data, _ = asked("forecasting", tmp_path)
    base = base_recipe(None, BRIEF["forecasting"], data, None)
    request = Request(data, ("pool",), None, base, 1, None)
    samples = load_data(data, task="forecasting", log=lambda line: None)
    planned_recipe(tmp_path, request, samples, BRIEF["forecasting"], None, device="cpu", workers=0, fresh=False)
    assert [(args["look_back"], args["horizon"], args["mixers"]) for args in timed] == [(24, 6, "pool")]


@pytest.mark.slow
@pytest.mark.parametrize("task", BRIEF)
def test_mixers_are_compared(task, tmp_path) -> None:
    pytest.importorskip("onnxruntime")
    data, name = asked(task, tmp_path)
    said: list[str] = []
    options = {"recipe": name, "settings": BRIEF[task], "measure_seconds": 1, "batch_sizes": (1,), "log": said.append}
    results = compare(data, ["identity", "pool"], out=tmp_path, match="params", **options)
    headline = find_task(task).headline
    for entry in results["mixers"].values():
        assert entry[f"test_{headline}"] >= 0
        assert entry["params"] > 0
        assert entry["macs"] > 0
        assert entry["latency_ms"]["pytorch"]["1"] > 0
        assert (tmp_path / entry["files"]["weights"]).is_file()
    assert (results["runtimes"] == ["pytorch"]) == (task == "points")
    found = results["statistics"]
    assert (found["seeds"], len(found["pairs"])) == (1, 1)
    scores = [entry[f"test_{headline}"] for entry in results["mixers"].values()]
    assert found["pairs"][0]["difference"] == pytest.approx(scores[0] - scores[1], abs=1e-6)
    assert (found["method"] == "mcnemar") == (task == "classification")
    assert (tmp_path / "report.html").is_file()
    again = compare(data, ["identity", "pool"], out=tmp_path, match="params", **options)
    kept = ("weights_sha256", "params", "macs", f"test_{headline}", "seconds")
    assert all(again["mixers"][name][key] == entry[key] for name, entry in results["mixers"].items() for key in kept)
    assert again["statistics"] == found


@pytest.mark.slow
@pytest.mark.parametrize("task", BRIEF)
def test_a_killed_comparison_ends_like_an_unkilled_one(task, tmp_path) -> None:
    """Killed as soon as the first mixer has a checkpoint; the same command then goes on."""
    pytest.importorskip("onnxruntime")
    data, name = asked(task, tmp_path)
    command = [sys.executable, "-u", "-m", "tokenmix", "compare", data, "--mixers", "pool", "identity", "--json"]
    command += ["--measure-seconds", "1", "--batch-sizes", "1", *(["--recipe", name] if name else [])]
    command += [word for setting in BRIEF[task] for word in ("--set", setting)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    folders = [tmp_path / "whole", tmp_path / "killed"]
    run = subprocess.Popen([*command, "--out", str(folders[1])], stdout=subprocess.DEVNULL, env=environment)
    while run.poll() is None and not [*folders[1].glob("*/seed-*/checkpoints/*")]:
        time.sleep(0.02)
    assert run.poll() is None, "it ended before it could be killed"
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert not (folders[1] / "results.json").exists()
    results = []
    for folder in folders:
        done = subprocess.run([*command, "--out", str(folder)], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        results.append(json.loads((folder / "results.json").read_text()))
    whole, killed = results
    assert killed["statistics"] == whole["statistics"]
    headline = find_task(task).headline
    for mixer, entry in whole["mixers"].items():
        for key in (pattern.format(headline) for pattern in EXACT):
            assert killed["mixers"][mixer].get(key) == entry.get(key), (mixer, key)
