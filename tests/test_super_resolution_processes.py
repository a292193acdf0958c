"""Trainings of super-resolution in several processes, and in ones that are killed, end as undisturbed ones do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.test_super_resolution_task import photograph
from tests.test_train_distributed import ROOT, free_port

pytestmark = pytest.mark.slow
SCRIPT = """
import os, signal, sys
from pathlib import Path
import torch
from tests.test_super_resolution_task import train
from tokenmix.tasks.super_resolution.model import create_upscaler
from tokenmix.train.training_step import TrainingStep

folder, out = map(Path, sys.argv[1:])
step, steps = TrainingStep.step, []

def counted(self, *args):
    steps.append(1)
    if os.environ.get("DIE") == str(len(steps)):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *args)

class Exact(torch.nn.Module):
    # In float64: what is left is rounding.
    def __init__(self):
        super().__init__()
        self.inner, self.scale, self.in_chans = create_upscaler("ffnet_sr_tiny", dim=8, depth=1).double(), 2, 3

    def forward(self, x):
        return self.inner(x.double())

TrainingStep.step = counted
train(folder, out, model=Exact, checkpoint_seconds=0)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures")
    for number in range(6):
        split = "train" if number < 4 else "val"
        (path / split).mkdir(exist_ok=True)
        Image.fromarray(photograph(number)).save(path / split / f"{number}.png")
    return path


def run(folder: Path, out: Path, world: int = 1, **environment: str) -> list[int]:
    """Train into ``out`` with so many processes; their exit codes."""
    script = out.parent / "script.py"
    script.write_text(SCRIPT)
    place = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TOKENMIX_DATA": str(out.parent / "cache"), **environment}
    if world > 1:
        place |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(world)}
    started = [
        subprocess.Popen(
            [sys.executable, str(script), str(folder), str(out)],
            cwd=ROOT,
            env=os.environ | place | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if world > 1 else {}),
        )
        for rank in range(world)
    ]
    return [process.wait(timeout=400) for process in started]


@pytest.fixture(scope="module")
def undisturbed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    assert run(folder, out) == [0]
    return out


def rows(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]


def test_two_processes_equal_one(folder: Path, undisturbed: Path, tmp_path: Path) -> None:
    assert run(folder, tmp_path / "two", 2) == [0, 0]
    one, two = (load_file(path / "best.safetensors") for path in (undisturbed, tmp_path / "two"))
    for name, value in one.items():
        assert value.dtype == torch.float64
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-6)
    for a, b in zip(rows(undisturbed), rows(tmp_path / "two"), strict=True):
        for name in ("loss", "val_psnr", "val_ssim"):
            assert a[name] == pytest.approx(b[name], rel=1e-6)


def test_a_process_that_was_killed_goes_on_to_the_same_end(folder: Path, undisturbed: Path, tmp_path: Path) -> None:
    assert run(folder, tmp_path / "killed", DIE="6") == [-signal.SIGKILL]
    assert run(folder, tmp_path / "killed") == [0]
    one, two = (load_file(path / "best.safetensors") for path in (undisturbed, tmp_path / "killed"))
    assert all(torch.equal(two[name], value) for name, value in one.items())
