"""Budgets of time: widths that reach them in a few measurements, and that a comparison which continues keeps."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest

from tokenmix.bench.match import STEP, TIME_TOLERANCE, TRIES, timed_widths
from tokenmix.comparison import compare, widths
from tokenmix.comparison.request import Request, base_recipe
from tokenmix.data.dataset import DataSet
from tokenmix.planning.latency import Stopwatch

pytest.importorskip("sklearn")
DIMS = (32, 64, 128, 192)


def power_law(base: float, power: float, noise: float = 0.0):
    """Milliseconds of a made-up network, and how often they were asked for."""
    rng, asked = np.random.default_rng(0), []

    def time_of(dims: tuple[int, ...]) -> float:
        asked.append(dims)
        return base * (sum(dims) / sum(DIMS)) ** power * math.exp(noise * rng.normal())

    return time_of, asked


@pytest.mark.parametrize("power", [0.8, 1.3, 2.0])
@pytest.mark.parametrize("target", [0.5, 1.0, 1.7, 3.0])
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_a_time_is_reached_in_few_measurements(power, target, noise) -> None:
    time_of, asked = power_law(1.0, power, noise)
    found = timed_widths(time_of, DIMS, target)
    assert abs(found.deviation) <= TIME_TOLERANCE
    assert len(asked) <= TRIES
    assert all(dim % STEP == 0 for dim in found.dims)
    proportions = [dim / own for dim, own in zip(found.dims, DIMS, strict=True)]
    assert max(proportions) - min(proportions) <= STEP / DIMS[0] + 1e-9


@pytest.mark.parametrize("power", [0.8, 1.3, 2.0])
def test_at_most_a_time(power) -> None:
    time_of, asked = power_law(1.0, power)
    assert timed_widths(time_of, DIMS, 1.2, at_most=True).dims == DIMS
    assert len(asked) == 1
    for target in (0.9, 0.6, 0.3):
        found = timed_widths(power_law(1.0, power)[0], DIMS, target, at_most=True)
        assert -3 * TIME_TOLERANCE <= found.deviation <= 0


def test_a_time_that_no_widths_have_is_kept_below() -> None:
    """Widths go in steps, and so do the times of operators that fill vector units."""
    found = timed_widths(lambda dims: 0.9 if sum(dims) <= 288 else 1.06, DIMS, 1.0, limit=1 + TIME_TOLERANCE)
    assert found.value == 0.9


@pytest.mark.parametrize("dims", [(64, 64), (40, 80)])
@pytest.mark.parametrize("at_most", [True, False])
def test_none_is_left_out_whose_narrowest_network_fits(dims, at_most) -> None:
    found = timed_widths(lambda dims: 0.3 + dims[1] / 64, dims, 0.5, at_most=at_most, limit=0.5)
    assert found.value <= 0.5


def test_what_no_widths_reach_is_told_by_the_fastest_that_was_tried() -> None:
    found = timed_widths(lambda dims: 1.0 + sum(dims) / 1e4, DIMS, 0.5, at_most=True)
    assert found.deviation > 1
    assert found.dims == (8, 8, 16, 24)


def test_widths_that_are_too_alike_end_the_search() -> None:
    rng = np.random.default_rng(1)
    found = timed_widths(lambda dims: float(1 + rng.normal() / 5), DIMS, 3.0)
    assert found.value < 3


@pytest.fixture
def clock(monkeypatch):
    """Made-up times in place of real ones: a mixer's factor times the sum of the widths; ``slow`` slows all of them."""
    state = {"slow": 1.0, "pool": 1.0, "aff": 2.0, "identity": 0.5, "attention": 50.0, "asked": 0}

    def add(self, name, recipe, *, mixers):
        state["asked"] += 1
        self.modules[name] = state[mixers] * sum(recipe.model.args["dims"]) / 100

    def times(self, names):
        return {name: self.modules[name] * state["slow"] for name in names}

    monkeypatch.setattr(Stopwatch, "add", add)
    monkeypatch.setattr(Stopwatch, "times", times)
    return state


def chosen(folder, names, fresh=False, log=lambda line: None, **asked):
    recipe = base_recipe(None, [], "digits", None)
    request = Request("digits", tuple(names), None, recipe, 1, **{"match": None, "timed_in": "pytorch", **asked})
    data = DataSet("digits", (), (), ())
    return widths.choose_widths(folder, request, DIMS, {name: name for name in names}, None, data, fresh, log)


def test_the_first_mixers_time_is_matched_and_kept(clock, tmp_path) -> None:
    found = chosen(tmp_path, ["pool", "aff", "identity"], match="latency")
    assert found.dims["pool"] == DIMS
    assert found.target_ms == pytest.approx(4.16)
    for name in ("aff", "identity"):
        assert found.milliseconds[name] == pytest.approx(4.16, rel=TIME_TOLERANCE)
        assert sum(found.dims[name]) * clock[name] == pytest.approx(416, rel=TIME_TOLERANCE)
    clock["slow"], asked = 3.0, clock["asked"]
    again = chosen(tmp_path, ["pool", "aff", "identity"], match="latency")
    assert again == found
    assert clock["asked"] == asked
    more = chosen(tmp_path, ["aff", "attention", "pool"], match="latency")  # it joins, timed beside the first of before
    assert (more.dims["aff"], more.dims["pool"]) == (found.dims["aff"], found.dims["pool"])
    assert more.dims["attention"] == (8, 8, 16, 24)
    assert more.target_ms == found.target_ms
    assert chosen(tmp_path, ["pool", "aff"], match="latency", fresh=True).target_ms == pytest.approx(3 * 4.16)


@pytest.mark.parametrize(
    "damage",
    [
        {"dims": {"pool": [10**9] * 4}},
        {"dims": [1]},
        {"dims": {"pool": "wide"}},
        {"milliseconds": {"pool": -1}},
        {"x": 1},
    ],
)
def test_a_file_of_widths_that_is_almost_right_is_refused(clock, tmp_path, damage) -> None:
    chosen(tmp_path, ["pool", "aff"], match="latency")
    path = tmp_path / widths.FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **damage}))
    with pytest.raises(ValueError, match=r"is damaged .* --fresh"):
        chosen(tmp_path, ["pool", "aff"], match="latency")


def test_a_limit_narrows_and_leaves_out(clock, tmp_path) -> None:
    said: list[str] = []
    found = chosen(tmp_path, ["pool", "aff", "attention"], limit_ms=5.0, log=said.append)
    assert found.dims["pool"] == DIMS
    assert sum(found.dims["aff"]) < sum(DIMS)
    assert 0.8 * 5 < found.milliseconds["aff"] <= 5
    assert list(found.left_out) == ["attention"]
    assert any(line.startswith("  attention is left out: no widths make it") for line in said)
    matched = chosen(tmp_path / "matched", ["identity", "aff"], limit_ms=5.0, match="latency")
    assert sum(matched.dims["identity"]) > sum(DIMS)
    with pytest.raises(ValueError, match=r"--budget 0.01ms: no mixer makes it at any width \(pool .* ms\)"):
        chosen(tmp_path / "none", ["pool"], limit_ms=0.01)


def test_a_busy_machine_changes_no_widths_within_a_limit(clock, tmp_path, monkeypatch) -> None:
    names = ["pool", "aff", "identity", "attention"]
    quiet = chosen(tmp_path / "quiet", names, match="latency", limit_ms=5.0)
    pace = itertools.cycle([2.5, 1.7, 3.1, 1.0])
    times = Stopwatch.times

    def disturbed(self, names):
        clock["slow"] = next(pace)
        return times(self, names)

    monkeypatch.setattr(Stopwatch, "times", disturbed)
    said: list[str] = []
    busy = chosen(tmp_path / "busy", names, match="latency", limit_ms=5.0, log=said.append)
    assert busy.dims["aff"] == quiet.dims["aff"]
    assert busy.dims["identity"] == quiet.dims["identity"]
    assert list(busy.left_out) == ["attention"]
    assert "pool with widths (32, 64, 128, 192) took 4.16 to 12.9 ms meanwhile: this machine is busy" in said[-1]
    assert not any("busy" in line for line in said[:-1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": "rooms", "match": "latency"}, "do not run in ONNX Runtime.*--timed-in pytorch"),
        ({"data": "digits", "budget_ms": 2.0, "match": "macs"}, "give one of both"),
        ({"data": "digits", "budget_ms": 0.0}, "above 0"),
        ({"data": "digits", "match": "latency", "timed_in": "tflite"}, "onnxruntime"),
        ({"data": "digits", "match": "latencies"}, "did you mean 'latency'"),
    ],
)
def test_mistakes_in_budgets_of_time_are_named(tmp_path, arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        compare(**arguments, mixers=["identity", "pool"], out=tmp_path / "out", log=lambda line: None)
    assert not (tmp_path / "out" / "compare.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "pytorch"])
def test_a_comparison_matches_real_times(tmp_path, runtime) -> None:
    pytest.importorskip("onnxruntime")
    small = ("epochs=1", "warmup_epochs=0", "image_size=16", "batch_size=128")
    options = {"settings": small, "match": "latency", "timed_in": runtime, "measure_seconds": 5, "batch_sizes": (1,)}
    results = compare("digits", ["aff", "identity"], out=tmp_path, log=lambda line: None, **options)
    assert results["timed"]["in"] == runtime
    assert "--match latency" in results["command"]
    dims = [sum(entry["dims"]) for entry in results["mixers"].values()]
    assert dims[0] < dims[1]
    times = [entry["latency_ms"][runtime]["1"] for entry in results["mixers"].values()]
    assert times[1] == pytest.approx(times[0], rel=0.4)  # measured again, on a machine that others use too
    again = compare("digits", ["aff", "identity"], out=tmp_path, log=lambda line: None, **options)
    for name, entry in results["mixers"].items():
        assert again["mixers"][name]["weights_sha256"] == entry["weights_sha256"]
    left = compare(
        "digits",
        ["identity", "aff"],
        out=tmp_path / "limit",
        log=lambda line: None,
        **{**options, "match": None},
        budget_ms=1000.0,
    )
    assert left["left_out"] == {}
    assert all(entry["dims"] == [32, 64, 128, 192] for entry in left["mixers"].values())
