"""Hostile files, unkind machines and generated inputs: some are tried here, all by ``benchmarks/security.py``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks" / "security.py"


def ended(*words: str) -> str:
    """What the script prints when every case ended as it must."""
    told = subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True, cwd=ROOT, timeout=580)
    assert told.returncode == 0, told.stdout[-4000:] + told.stderr[-2000:]
    return told.stdout


def test_some_of_each_kind() -> None:
    names = "a-command-predict recipe-data-pipe weights-checkpoint_path weights-num-classes yolo-aliases voc-entities"
    told = ended("--cases", *names.split(), "predict-fifo", "class-escape", "predict-ascii", "sigterm", "host-strange")
    assert "11 of 11 cases ended as they must" in told


def test_the_page_has_what_the_script_found() -> None:
    found = json.loads((ROOT / "benchmarks" / "results" / "security.json").read_text())
    assert len(found["files"]) >= 60
    assert len(found["conditions"]) >= 40
    assert len(found["fuzz"]) >= 500
    assert all(row["right"] for part in ("files", "conditions", "fuzz") for row in found[part])
    page = (ROOT / "docs" / "security.md").read_text()
    assert f"{len(found['files'])} of {len(found['files'])} ended as they must" in page
    assert "not as it must" not in page


@pytest.mark.slow
@pytest.mark.parametrize("part", ["files", "conditions", "fuzz"])
def test_all(part) -> None:
    ended(part)
