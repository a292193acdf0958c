"""The script that holds mixers of frequencies against others: nothing is done twice, and its words are right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from benchmarks import corruptions
from tokenmix.bench.machine import describe
from tokenmix.data.corruptions import CORRUPTIONS

MACHINE = describe()


def run(name: str, mixer: str, seed: int, epochs: int, folder: Path | None = None) -> dict[str, Any]:
    """A made-up run: spectral mixers fall by 10 points less under noise_high, else all fall alike but for chance."""
    draw = np.random.default_rng([seed, corruptions.MIXERS.index(mixer)])
    fall = {kind: 20 + draw.normal() for kind in CORRUPTIONS}
    fall["noise_high"] -= 10 * (mixer in corruptions.SPECTRAL)
    errors = {kind: 15 + points for kind, points in fall.items()}
    mce = sum(errors.values()) / len(errors)
    found = {"plain": 85.0, "errors": errors, "mce": mce, "drop": mce - 15}
    entry = {"pictures": {"train": 100, "test": 50}, "corruptions": found, "machine": MACHINE}
    return {**corruptions.key_of(name, mixer, seed, epochs), **entry, "cpu_seconds": {"training": 1.0, "judging": 1.0}}


def test_runs_that_are_there_are_not_done_again(tmp_path: Path, monkeypatch, capsys) -> None:
    done: list[tuple[str, int]] = []

    def measured(*key: Any) -> dict[str, Any]:
        done.append((key[1], key[2]))
        return run(*key)

    monkeypatch.setattr(corruptions, "measure", measured)
    monkeypatch.setattr(corruptions, "folder_of", lambda name, args: tmp_path)
    out = tmp_path / "out.json"
    command = ["corruptions.py", "--sets", "textures", "--mixers", "aff", "attention", "--out", str(out)]
    for seeds in ("1", "2", "2"):
        monkeypatch.setattr("sys.argv", [*command, "--seeds", seeds])
        corruptions.main()
    assert sorted(done) == [("aff", 0), ("aff", 1), ("attention", 0), ("attention", 1)]
    assert len(json.loads(out.read_text())["runs"]) == 4
    monkeypatch.setattr("sys.argv", [*command, "--seeds", "1", "--epochs", "7"])
    corruptions.main()
    assert [one["epochs"] for one in json.loads(out.read_text())["runs"]] == [7, 60, 7, 60]
    assert "| `attention` |" in capsys.readouterr().out


def test_a_set_that_is_not_there_is_said(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["corruptions.py", "--sets", "cifar", "--runs", str(tmp_path)])
    corruptions.main()
    assert capsys.readouterr().out.startswith("cifar is left out: give --")


def test_frequency_against_space_is_a_paired_test_over_seeds() -> None:
    """The interval that decides is printed, what it tells, and what only the interval of one comparison would."""
    runs = [run("textures", mixer, seed, 60) for mixer in corruptions.MIXERS for seed in range(5)]
    head, table, verdict, *unmeasured = corruptions.report({"runs": runs}).split("\n\n")[2:]
    assert head.startswith("The mean fall of `aff`, `dsm`, less that of `ffnified`, `additive`, `attention`, ")
    falls = {(one["mixer"], one["seed"]): corruptions.falls(one) for one in runs}
    rows = [[cell.strip() for cell in line.split("|")[2:-1]] for line in table.splitlines()[2:]]
    told, hints = [], []
    for place, kind in enumerate(["", *CORRUPTIONS]):
        pairs = [
            np.mean([falls[mixer, seed][kind] for mixer in corruptions.SPECTRAL])
            - np.mean([falls[mixer, seed][kind] for mixer in corruptions.SPATIAL])
            for seed in range(5)
        ]
        found = ttest_1samp(pairs, 0)
        halves = [np.ptp(found.confidence_interval(1 - level)) / 2 for level in (0.05, 0.05 / 11)]
        assert [float(row[place]) for row in rows] == pytest.approx([np.mean(pairs), *halves], abs=0.051)
        words = kind.replace("_", " ") or "the mean of all"
        if found.pvalue < 0.05 / 11:
            told.append(f"{words} ({np.mean(pairs):+.1f} ± {halves[1]:.1f})")
        elif found.pvalue < 0.05:
            hints.append(f"{words} ({np.mean(pairs):+.1f} ± {halves[0]:.1f})")
    assert any(one.startswith("noise high (-") for one in told)
    assert f"decides: {', '.join(told)}." in verdict
    assert ("Hints, not results" in verdict) == bool(hints)
    assert ", ".join(hints) in verdict
    widest = [float(cell) for cell in rows[-1]]
    assert f"from {widest[0]} points on over all corruptions" in verdict
    assert f"from {min(widest[1:])} to {max(widest[1:])} under a single one" in verdict
    assert [part.split("**")[1] for part in unmeasured] == ["cifar", "scenes"]
    few = [one for one in runs if one["mixer"] not in corruptions.SPATIAL]
    assert "tell how frequency and space differ." in corruptions.report({"runs": few})


@pytest.mark.slow
def test_a_training_is_judged(tmp_path: Path, monkeypatch, capsys) -> None:
    pytest.importorskip("skimage", reason="pip install scikit-image")
    words = ["--sets", "scenes", "--mixers", "identity", "--seeds", "1", "--epochs", "1", "--runs", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["corruptions.py", *words, "--out", str(tmp_path / "out.json")])
    corruptions.main()
    (found,) = json.loads((tmp_path / "out.json").read_text())["runs"]
    assert set(found["corruptions"]["errors"]) == set(CORRUPTIONS)
    assert found["pictures"] == {"train": 192, "test": 240}
