"""The shoot-out: what it says of a comparison, and, slowly, that it runs, goes on and leaves out what it lacks."""

from __future__ import annotations

import json

import pytest

from benchmarks import shootout

MACHINE = {"cpu": "a processor", "versions": {"torch": "2.14.1"}}


def found(**changes) -> dict:
    def one(score: float) -> dict:
        numbers = {"score": score, "interval": [score - 1, score + 1], "per_seed": [score - 0.5, score + 0.5]}
        return {**numbers, "params": 1234, "ms": {"pytorch": 2.0}}

    return {
        "machine": MACHINE,
        "headline": "mIoU",
        "unit": "%",
        "lower_is_better": False,
        "epochs": 3.0,
        "seeds": [0, 1],
        "minutes": 7.4,
        "groups": [["aff", "dsm"], ["dsm", "pool"]],
        "left_out": {"attention": 3.21},
        "mixers": {"pool": one(10.0), "aff": one(30.0), "dsm": one(20.0)},
        **changes,
    }


def test_the_best_come_first_with_their_groups() -> None:
    lines = shootout.table("segments", found()).splitlines()
    assert lines[0].startswith(
        "**Scenes, a class for each pixel**: 3 epochs, 2 seeds, 7 minutes of training; a processor"
    )
    assert [line.split(" | ")[:4] for line in lines if line.startswith("| `")] == [
        ["| `aff`", "30.0 ± 1", "29.5, 30.5", "a"],
        ["| `dsm`", "20.0 ± 1", "19.5, 20.5", "ab"],
        ["| `pool`", "10.0 ± 1", "9.5, 10.5", "b"],
    ]
    assert "`attention` (3.21 ms)" in lines[-1]


def test_at_a_glance_the_best_of_each_field_are_bold() -> None:
    errors = found(lower_is_better=True, headline="MSE", unit="", left_out={}, groups=[])
    lines = shootout.overview({"segments": found(), "etth1": errors}).splitlines()
    assert lines[0] == "| mixer | `segments`: mIoU | `etth1`: MSE | fields | behind |"
    assert lines[2:] == [
        "| `aff` | **30.0** | 30.0000 | 2 | 0% |",
        "| `dsm` | **20.0** | 20.0000 | 2 | 0% |",
        "| `pool` | 10.0 | 10.0000 | 2 | 25% |",
        "| `attention` | too slow |  | 1 | 100% |",
    ]


def test_at_a_glance_a_mixer_goes_by_its_name() -> None:
    own = found(left_out={})
    own["mixers"] = {"aff(windows=2)" if name == "aff" else name: one for name, one in own["mixers"].items()}
    own["groups"] = [["aff(windows=2)", "dsm"], ["dsm", "pool"]]
    assert shootout.overview({"segments": own}) == shootout.overview({"segments": found(left_out={})})
    assert "`aff(windows=2)`" in shootout.table("segments", own)


def test_a_field_that_fails_leaves_the_others(tmp_path, monkeypatch, capsys) -> None:
    def run(name, data, args):
        if name == "segments":
            raise ValueError("it diverged")
        return found()

    monkeypatch.setattr(shootout, "run", run)
    words = ["shootout.py", "--fields", "segments", "boxes", "--out", str(tmp_path / "results.json")]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit, match="failed: segments"):
        shootout.main()
    assert list(json.loads((tmp_path / "results.json").read_text())) == ["boxes"]
    assert "segments has failed: it diverged" in capsys.readouterr().out


def test_where_less_is_better_the_least_comes_first() -> None:
    lines = shootout.table("etth1", found(lower_is_better=True, headline="MSE", unit="")).splitlines()
    assert lines[2].startswith("| mixer | MSE | each seed | group |")
    assert [line.split("`")[1] for line in lines if line.startswith("| `")] == ["pool", "dsm", "aff"]


@pytest.mark.slow
def test_it_runs_and_what_is_done_is_kept(tmp_path, monkeypatch, capsys) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("skimage")
    monkeypatch.chdir(tmp_path)
    words = ["shootout.py", "--fields", "cifar-1ms", "segments", "--mixers", "identity", "pool", "--epochs", "0.007"]
    words += ["--seeds", "1", "--seconds", "1", "--out", "results.json"]
    told = []
    for _ in range(2):
        monkeypatch.setattr("sys.argv", words)
        shootout.main()
        told.append(json.loads((tmp_path / "results.json").read_text()))
        assert "cifar-1ms is left out: give --cifar" in capsys.readouterr().out
    first, again = (each["segments"]["mixers"] for each in told)
    assert list(told[0]) == ["segments"]
    assert {name: one["seconds"] for name, one in first.items()} == {
        name: one["seconds"] for name, one in again.items()
    }
