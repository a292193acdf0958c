"""The main job: results, what it refuses, and that a killed comparison ends like one that was not killed."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch import nn

import tokenmix
from tests.test_train_resume import TIMES
from tokenmix.bench.match import nearest_widths
from tokenmix.comparison import compare, spec_name
from tokenmix.files import slug

pytest.importorskip("sklearn")
pytest.importorskip("onnxruntime")

SMALL = ("epochs=2", "warmup_epochs=0.5", "image_size=16", "batch_size=128")
EXACT = ("test_top1", "val_top1", "params", "macs", "dims", "weights_sha256", "confusion", "samples", "onnx_max_error")


def _silent(line: str) -> None:
    """Takes progress lines and drops them."""


class Mine(nn.Module):
    """A user's own mixer: one class."""

    def __init__(self, dim: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim)

    def forward(self, x):
        return self.conv(x)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One small comparison with a named mixer, a user's own, and one per stage; its folder and results."""
    out = tmp_path_factory.mktemp("compare")
    mixers = ["pool", Mine, "identity,identity,aff,aff"]
    results = compare("digits", mixers, out=out, settings=SMALL, measure_seconds=1, match="params", log=_silent)
    return out, mixers, results


def test_results_are_complete(finished):
    out, mixers, results = finished
    assert json.loads((out / "results.json").read_text()) == results
    assert results["schema"] == "tokenmix.compare/1"
    assert list(results["mixers"]) == [spec_name(spec) for spec in mixers]
    for name, entry in results["mixers"].items():
        assert entry["mixer"] == name
        assert 0 <= entry["test_top1"] <= 100
        assert entry["params"] > 0
        assert entry["macs"] > 0
        assert entry["seconds"] > 0
        assert entry["onnx_max_error"] < 1e-3
        assert sum(map(sum, entry["confusion"])) == results["data"]["test"]
        right = sum(entry["confusion"][i][i] for i in range(10))
        assert entry["test_top1"] == pytest.approx(100 * right / results["data"]["test"])
        for runtime in ("pytorch", "onnxruntime"):
            assert set(entry["latency_ms"][runtime]) == {"1", "32"}
        for file in entry["files"].values():
            assert (out / file).is_file()
        assert len(entry["history"]) == 2
    assert results["mixers"]["pool"]["peak_memory_mb"] > 0
    assert (out / "report.html").stat().st_size > 10_000
    assert "tokenmix compare digits --mixers pool" in (out / "command.txt").read_text()
    assert "--match params" in results["command"]


def test_weights_can_be_opened(finished):
    out, _, results = finished
    model = tokenmix.load_checkpoint(out / results["mixers"]["pool"]["files"]["weights"])
    assert sum(p.numel() for p in model.parameters()) == results["mixers"]["pool"]["params"]


def test_matched_budgets(finished):
    _, _, results = finished
    first = results["mixers"]["pool"]["params"]
    for entry in results["mixers"].values():
        assert abs(entry["params"] / first - 1) < 0.03
        assert all(dim % 8 == 0 for dim in entry["dims"])


def test_finished_mixers_are_not_trained_again_and_more_may_join(finished):
    out, mixers, results = finished
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("*/seed-0/checkpoints/*")}
    again = compare(
        "digits",
        [*mixers, "identity"],
        out=out,
        settings=SMALL,
        measure_seconds=1,
        match="params",
        log=_silent,
    )
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    for name, entry in results["mixers"].items():
        for key in ("weights_sha256", "test_top1", "seconds"):
            assert again["mixers"][name][key] == entry[key]
    assert "identity" in again["mixers"]


class Branching(Mine):
    """One that no exporter can follow."""

    def forward(self, x):
        return super().forward(x) if float(x.detach().abs().sum()) > 0 else x


def test_what_cannot_be_exported_is_compared_all_the_same(tmp_path):
    small = ("epochs=1", "warmup_epochs=0", "image_size=16", "batch_size=256")
    lines = []
    found = compare(
        "digits", [Branching, "identity"], out=tmp_path, settings=small, measure_seconds=1, log=lines.append
    )
    ours, identity = found["mixers"].values()
    assert found["runtimes"] == ["pytorch", "onnxruntime"]
    assert set(ours["latency_ms"]) == {"pytorch"}
    assert "onnx" not in ours["files"]
    assert identity["onnx_max_error"] < 1e-3
    assert any("Branching is not exported: " in line for line in lines)
    page = (tmp_path / "report.html").read_text()
    assert "not exported</td>" in page
    assert "Branching is not exported, and runs in PyTorch alone" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mixers": ["afff"]}, "did you mean 'aff'"),
        ({"mixers": []}, "at least one mixer"),
        ({"mixers": ["aff", "aff"]}, "named 2 times"),
        ({"mixers": ["aff"], "skeleton": "mixernet_tinny"}, "mixernet_tiny"),
        ({"mixers": ["aff"], "match": "flops"}, "params"),
        ({"mixers": ["aff"], "settings": ["epoch=3"]}, "epochs"),
        ({"mixers": ["aff"], "seeds": 0}, "seeds"),
        ({"mixers": ["aff"], "data": "digit"}, "digits"),
        ({"mixers": ["pool"], "recipe": "ffnet_1"}, "set preprocess=data"),
    ],
)
def test_mistakes_are_named_before_any_work(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        compare(**{"data": "digits", **arguments}, out=tmp_path / "out", log=_silent)


def test_another_comparison_in_the_folder_is_refused(finished):
    out, _, _ = finished
    with pytest.raises(ValueError, match=r"recipe.schedule.epochs.*--out.*--fresh"):
        compare("digits", ["pool"], out=out, settings=(*SMALL[1:], "epochs=3"), match="params", log=_silent)


def test_slugs_differ_for_different_specs():
    specs = ["aff", "aff(groups=4)", "aff(groups=8)", "ffnified,aff,aff,aff", "a.b:C(x=1)"]
    assert len({slug(spec) for spec in specs}) == len(specs)
    assert slug("aff") == "aff"
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", slug(spec)) for spec in specs)


def test_nearest_widths_reach_the_target_or_say_how_far_it_is():
    found = nearest_widths(lambda dims: sum(dim * dim for dim in dims), (32, 64, 128, 192), 80_000)
    assert abs(found.deviation) <= 0.03
    assert all(dim % 8 == 0 for dim in found.dims)
    unreachable = nearest_widths(lambda dims: 1000 * sum(dims), (8, 8), 10)
    assert unreachable.dims == (8, 8)
    assert unreachable.value == 16_000


def _run(out: Path, **options) -> subprocess.Popen:
    command = [
        sys.executable,
        "-u",
        "-m",
        "tokenmix",
        "compare",
        "digits",
        "--mixers",
        "pool",
        "aff",
        "--out",
        str(out),
    ]
    for setting in ("epochs=4", *SMALL[1:]):
        command += ["--set", setting]
    command += ["--measure-seconds", "1", "--batch-sizes", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [2, 5])
def test_killed_comparison_ends_like_an_unkilled_one(tmp_path, kills):
    """SIGKILL at random moments of the training; the last start finishes."""
    whole = _run(tmp_path / "whole")
    assert whole.stdout is not None
    began = ended = 0.0
    text = []
    for line in whole.stdout:
        text.append(line)
        if line.startswith("[1/2]"):
            began = time.monotonic()
        if "measuring latency" in line:
            ended = time.monotonic()
    assert whole.wait() == 0, "".join(text)
    whole.stdout.close()

    out, chance, killed = tmp_path / "killed", random.Random(os.urandom(8)), 0
    while killed < kills:
        run = _run(out)
        assert run.stdout is not None
        for line in run.stdout:
            if line.startswith("[1/2]"):
                break
        # Early enough that all kills fall into the training.
        time.sleep(chance.uniform(0.0, 0.35 * (ended - began)))
        run.send_signal(signal.SIGKILL)
        run.wait()
        run.stdout.close()
        killed += 1
    last = _run(out)
    output, _ = last.communicate()
    assert last.returncode == 0, output

    expected, found = (json.loads((path / "results.json").read_text()) for path in (tmp_path / "whole", out))
    for name, entry in expected["mixers"].items():
        for key in EXACT:
            assert found["mixers"][name][key] == entry[key], (name, key)
        for mine, other in zip(found["mixers"][name]["history"], entry["history"], strict=True):
            assert {k: v for k, v in mine.items() if k not in TIMES} == {
                k: v for k, v in other.items() if k not in TIMES
            }
