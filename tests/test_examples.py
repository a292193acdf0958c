"""The examples run, and do what they say: the quick ones in every run, the longer ones in the slow one."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small_photos import make_photos

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["--image-size", "16", "--epochs", "1"]
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))


@pytest.fixture
def photos(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    make_photos(tmp_path / "photos")
    return "photos"


def test_each_example_is_tried_here_and_listed():
    text = Path(__file__).read_text(encoding="utf-8") + (ROOT / "tests" / "test_photographs.py").read_text()
    listed = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    for name in EXAMPLES:
        assert re.search(rf"examples(\.| import (\w+, )*|/){name}\b", text), name
        assert f"examples/{name}.py" in listed, name


def test_torchvision_detector(capsys):
    from examples.torchvision_detector import main

    assert all(map(math.isfinite, main(["--steps", "2"])))
    assert "the square is at" in capsys.readouterr().out


def test_look_inside(tmp_path, capsys):
    from examples.look_inside import main

    found = main(["--mixers", "identity", "aff", "--out", str(tmp_path / "inside")])
    assert (tmp_path / "inside" / "report.html").is_file()
    assert len(found["models"]) == 2
    assert capsys.readouterr().out.count("95 % of what counts") == 8


@pytest.mark.slow
def test_torchvision_detector_learns():
    from examples.torchvision_detector import main

    losses = main([])
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_smp_encoder():
    pytest.importorskip("segmentation_models_pytorch", reason="pip install segmentation-models-pytorch")
    from examples.smp_encoder import main

    losses = main(["--steps", "4"])
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_finetune_and_export_without_torch(photos, capsys):
    pytest.importorskip("onnxscript", reason="pip install 'tokenmix[onnx]'")
    from examples import export_without_torch, finetune_folder

    top1 = finetune_folder.main([photos, "--out", "run", *SMALL])
    assert 0 <= top1 <= 100
    picture = f"{photos}/test/dark/0.png"
    told = export_without_torch.main(["run", picture, "--out", "model.onnx"])
    assert told.startswith(f"{picture} [(")
    assert f"{top1:.1f} % of the test pictures" in capsys.readouterr().out


@pytest.mark.slow
def test_own_task(tmp_path):
    from examples.own_task import main
    from tokenmix import tasks

    try:
        assert main(["--out", str(tmp_path / "bars")]) < 15  # guessing is off by 30
    finally:
        del tasks._OWN["angle"]


@pytest.mark.slow
def test_own_mixer(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    from examples.own_mixer import main

    results = main(["--out", str(tmp_path / "blur"), "--epochs", "3", "--seconds", "1"])
    assert len(results["mixers"]) == 3
    assert (tmp_path / "blur" / "report.html").is_file()


@pytest.mark.slow
def test_two_processes(photos):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(ROOT / "examples/two_processes.py"), photos, "--out", "two", *SMALL]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("tokenmix eval two --data photos") == 1
    assert Path("two/best.safetensors").is_file()
