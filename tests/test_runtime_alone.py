"""The run-time in a process that has NumPy, Pillow, onnxruntime and our package, and nothing else."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

import tokenmix.runtime
import tokenmix_runtime
from tests.runtime_files import MEAN, STD
from tests.scramble import scramble
from tokenmix.cli import main
from tokenmix.data.prepare import preprocess_file
from tokenmix.weight_files import weights_bytes
from tokenmix_runtime.environment import version

PACKAGE = Path(tokenmix_runtime.__file__).parent
ALONE = """
import sys

class Nothing:
    def find_spec(self, name, path=None, target=None):
        own = {"tokenmix", "tokenmix_runtime"}
        if name.split(".")[0] not in {*sys.stdlib_module_names, "numpy", "PIL", "onnxruntime", *own}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Nothing())
"""


def alone(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", ALONE + code, *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@torch.no_grad()
def test_a_classifier_answers_as_pytorch_does(tmp_path: Path) -> None:
    args = {"depths": (1, 1), "dims": (16, 24), "stem_stride": 2, "num_classes": 3}
    model = scramble(timm.create_model("mixernet_pico", mixers="aff", **args)).eval()
    kind: dict[str, Any] = {"crop_pct": 0.9, "interpolation": "bicubic", "crop_mode": "center"}
    path, picture = tmp_path / "model.onnx", tmp_path / "picture.jpg"
    info = {"model": "mixernet_pico", "model_args": {"mixers": "aff", **args}, "classes": ["cat", "dog", "fox"], **kind}
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights_bytes(model.state_dict(), {**info, "mean": MEAN, "std": STD, "image_size": [32, 32]}))
    assert main(["export", str(weights), "--out", str(path)]) == 0
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((400, 300)).save(picture)
    code = """
import json
from tokenmix_runtime import Predictor
print(json.dumps(Predictor(sys.argv[1])(sys.argv[2]).top(3)))
"""
    done = alone(code, str(path), str(picture))
    assert done.stderr == ""
    found = json.loads(done.stdout)
    wanted = model(preprocess_file(picture, 32, MEAN, STD, **kind)[None])[0].softmax(0).tolist()
    assert dict(found) == pytest.approx(dict(zip(["cat", "dog", "fox"], wanted, strict=True)), abs=1e-5)


def test_what_needs_torch_says_what_does_not() -> None:
    for name in ("tokenmix", "tokenmix.runtime"):
        assert alone(f"import {name}").stderr.splitlines()[-1] == (
            "ModuleNotFoundError: No module named 'timm': tokenmix needs torch, torchvision and timm (pip install "
            "tokenmix); exported models run without them: python -m tokenmix_runtime MODEL.onnx IMAGE..., or import "
            "tokenmix_runtime"
        )


def test_without_onnxruntime_it_says_what_to_install() -> None:
    code = """
sys.modules["onnxruntime"] = None
from tokenmix_runtime.__main__ import main
sys.exit(main(["model.onnx", "cat.jpg"]))
"""
    done = alone(code)
    assert done.returncode == 2
    assert done.stderr == (
        "tokenmix_runtime: error: this needs onnxruntime, which is not installed: pip install onnxruntime\n"
    )


def test_torch_is_not_loaded_where_it_is() -> None:
    code = "import sys, tokenmix_runtime; print([n for n in ('torch', 'timm', 'onnxruntime') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_former_place_still_answers() -> None:
    for name in tokenmix.runtime.__all__:
        assert getattr(tokenmix.runtime, name) is getattr(tokenmix_runtime, name)
    command = [sys.executable, "-m", "tokenmix.runtime", "nothing.onnx", "cat.jpg"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "tokenmix_runtime: error: no such file: nothing.onnx\n")


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.stem)
def test_it_imports_little(path: Path) -> None:
    """The start of the command alone knows of the rest."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            found.add(str(node.module).split(".")[0])
    allowed = {*sys.stdlib_module_names, "numpy", "PIL", "onnxruntime", "tokenmix_runtime"}
    more = {
        "launch": {"tokenmix"},
        "series": {"pandas", "pyarrow"},
    }  # the latter for Parquet files, where they are there
    assert found - allowed == more.get(path.stem, set())


@pytest.mark.parametrize(
    ("words", "code", "said"), [(["--help"], 0, "usage"), (["compre"], 2, "did you mean"), ([], 2, "usage")]
)
def test_what_is_no_command_is_answered_without_torch(words, code, said) -> None:
    if version("tokenmix") is None:
        pytest.skip("tokenmix is not installed")
    done = alone("sys.argv[0] = 'tokenmix'; from tokenmix_runtime.launch import program; program()", *words)
    assert done.returncode == code
    assert said in (done.stderr if words == ["compre"] else done.stdout)
    assert "No module" not in done.stderr
