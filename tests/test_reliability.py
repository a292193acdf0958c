"""Accidents to training runs: some are let happen, the rest by ``benchmarks/reliability.py``, whose page is fresh."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(autouse=True)
def scripts(monkeypatch) -> None:
    """The scripts' modules can be imported as the scripts do."""
    monkeypatch.syspath_prepend(BENCHMARKS)


def script(name: str, *words: str) -> str:
    """What a script prints when nothing is lost."""
    command = [sys.executable, str(BENCHMARKS / name), *words]
    told = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=580)
    assert told.returncode == 0, told.stdout + told.stderr
    return told.stdout


def survived(tmp_path: Path, *names: str) -> None:
    """Let these happen once each."""
    told = script("reliability.py", "--quick", "--json", str(tmp_path / "results.json"), "--faults", *names)
    faults = json.loads((tmp_path / "results.json").read_text())["faults"]
    assert {fault["name"] for fault in faults} == set(names)
    assert all(trial["survived"] is not False for fault in faults for trial in fault["trials"]), told


@pytest.mark.slow
def test_killed_while_saving_and_a_flipped_bit(tmp_path) -> None:
    survived(tmp_path, "kill-mid-write", "checkpoint-bit-data")


@pytest.mark.slow
@pytest.mark.parametrize(
    "names",
    [
        ("kill-any-moment", "kill-four-times", "sigterm", "sigint-twice-while-saving", "second-run"),
        ("checkpoint-truncated", "checkpoints-broken", "recipe-garbage", "only-checkpoints-left", "checkpoint-empty"),
        ("disk-full-mid-write", "disk-full-older-go", "file-size-limit", "image-text", "image-deleted", "nan-forever"),
        ("rank-1-killed", "rank-hangs"),
    ],
    ids=["killed", "damaged", "inputs", "ranks"],
)
def test_more_accidents(tmp_path, names) -> None:
    survived(tmp_path, *names)


@pytest.mark.slow
def test_one_of_two_hosts_is_cut_off(tmp_path) -> None:
    told = script("two_hosts.py", "--json", str(tmp_path / "results.json"))
    if told.startswith("skipped"):
        pytest.skip(told)
    assert json.loads((tmp_path / "results.json").read_text())["difference"] < 1e-9


@pytest.mark.slow
def test_every_difference_is_noticed(tmp_path) -> None:
    from faults.jobs import differences, sample_order

    one = {"task": {"weight": torch.zeros(3)}, "history": [{"epoch": 1, "loss": 0.5}], "litter": []}
    assert differences(one, one) == []
    assert differences(one, one | {"task": {"weight": torch.tensor([0.0, 1e-45, 0.0])}}) == ["task"]
    assert differences(one, one | {"task": {"weight": torch.zeros(3, dtype=torch.float64)}}) == ["task"]
    assert differences(one, one | {"history": [], "litter": [".step.tmp"]}) == ["history", "litter"]
    (tmp_path / "order-0-1.jsonl").write_text("[0, 0, [4, 2]]\n[0, 1, [3")
    (tmp_path / "order-0-2.jsonl").write_text("[0, 0, [4, 2]]\n")
    assert sample_order([tmp_path]) == {(0, 0, 0): [4, 2]}
    (tmp_path / "order-0-3.jsonl").write_text("[0, 0, [2, 4]]\n")
    with pytest.raises(ValueError, match="epoch 1, step 1 saw other samples"):
        sample_order([tmp_path])


def test_the_page_says_what_was_found() -> None:
    from faults import FAULTS
    from faults.page import RESULTS, page

    results = json.loads((RESULTS / "reliability.json").read_text())
    hosts = json.loads((RESULTS / "two_hosts.json").read_text())
    assert (ROOT / "docs" / "reliability.md").read_text() == page(results, hosts), "run benchmarks/reliability.py"
    trials = [trial["survived"] for fault in results["faults"] for trial in fault["trials"]]
    assert {fault["name"] for fault in results["faults"]} == set(FAULTS)
    assert False not in trials
    assert trials.count(True) >= 60
