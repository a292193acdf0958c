"""``tokenmix env``: what a report of a problem needs, and nothing that names its owner."""

from __future__ import annotations

import getpass
import json
import platform
from importlib import metadata
from pathlib import Path

import torch

from tests.test_runtime_alone import alone
from tokenmix.cli import main
from tokenmix_runtime import environment

START = "from tokenmix_runtime.launch import program; sys.argv = ['tokenmix', *sys.argv[1:]]; program()"


def test_it_says_what_is_installed(capsys, monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert main(["env", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["packages"]["torch"] == metadata.version("torch")
    assert facts["optional"]["onnx"]["onnxruntime"] == metadata.version("onnxruntime")
    assert facts["threads"] == torch.get_num_threads()
    assert facts["devices"][0] == "cpu"
    assert facts["variables"]["OMP_NUM_THREADS"] == "3"
    assert "CPUExecutionProvider" in facts["onnxruntime_providers"]


def test_it_names_the_remedy_and_no_owner(capsys, monkeypatch) -> None:
    real = environment.version
    monkeypatch.setattr(environment, "version", lambda name: None if name == "onnxscript" else real(name))
    assert main(["env"]) == 0
    told = capsys.readouterr().out
    (line,) = [line for line in told.splitlines() if line.startswith("[onnx]")]
    assert "onnxscript missing" in line
    assert line.endswith("(pip install 'tokenmix[onnx]')")
    words = {getpass.getuser(), platform.node()} - {"root", ""}
    assert not any(word in told.split() for word in words)
    assert str(Path.home()) not in told
    assert str(Path.cwd()) not in told


def test_it_works_without_torch() -> None:
    done = alone(START, "env")
    assert (done.returncode, done.stderr) == (0, "")
    assert "cannot be loaded: ModuleNotFoundError: No module named 'torch'" in done.stdout
    facts = json.loads(alone(START, "env", "--json").stdout)
    assert facts["devices"] == []
    assert facts["packages"]["torch"] == metadata.version("torch")


def test_a_mistyped_option_is_a_mistake_without_torch_too() -> None:
    done = alone(START, "env", "--jsn")
    assert done.returncode == 2
    assert "--jsn" in done.stderr
