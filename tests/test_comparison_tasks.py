"""Mixers are compared in the networks of every task."""

from __future__ import annotations

import pytest

from tokenmix.comparison import compare
from tokenmix.comparison.request import base_recipe, named_specs
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
    "detection": ["epochs=0.1"],
    "segmentation": ["epochs=0.1"],
    "super_resolution": ["epochs=0.1", "task.patches=20"],
    "points": ["epochs=0.1", "warmup_epochs=0"],
}


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


@pytest.mark.slow
@pytest.mark.parametrize("task", BRIEF)
def test_mixers_are_compared(task, tmp_path) -> None:
    pytest.importorskip("onnxruntime")
    data, name, _ = ASKED[task]
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
    assert (tmp_path / "report.html").is_file()
    again = compare(data, ["identity", "pool"], out=tmp_path, match="params", **options)
    kept = ("weights_sha256", "params", "macs", f"test_{headline}", "seconds")
    assert all(again["mixers"][name][key] == entry[key] for name, entry in results["mixers"].items() for key in kept)
