"""The package's face: few names."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import tokenmix

PUBLIC = [
    "__version__",
    "compare",
    "compile",
    "create_model",
    "evaluate",
    "export",
    "inspect",
    "list_mixers",
    "load_checkpoint",
    "make_mixer",
    "predict",
    "reparameterize",
    "train",
    "upscale",
]
HEAVY = ("sklearn", "onnx", "onnxruntime", "onnxscript", "matplotlib", "pandas", "datasets", "transformers", "scipy")


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after the code."""
    code += "; import json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_names() -> None:
    assert tokenmix.__all__ == PUBLIC
    assert dir(tokenmix) == sorted(PUBLIC)
    for name in PUBLIC:
        assert getattr(tokenmix, name) is getattr(tokenmix, name)
        assert name == "__version__" or callable(getattr(tokenmix, name))


def test_names_are_documented() -> None:
    for name in PUBLIC[1:]:
        assert getattr(tokenmix, name).__doc__, name


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="module 'tokenmix' has no attribute 'comparee'"):
        tokenmix.comparee  # noqa: B018


def test_import_loads_the_models_and_nothing_else() -> None:
    before, after = loaded_by("import torch, timm"), loaded_by("import tokenmix")
    ours = {name.split(".")[1] for name in after if name.startswith("tokenmix.")}
    assert ours == {"version", "safety", "ops", "layers", "mixers", "blocks", "backbones"}
    assert [name for name in HEAVY if name in after - before] == []


@pytest.mark.parametrize("imports", ["import timm, tokenmix", "import tokenmix, timm"])
def test_import_registers_the_models(imports: str) -> None:
    code = f"{imports}; print(timm.list_models('mixernet*'))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert "mixernet_pico" in done.stdout


def test_without_tokenmix_timm_does_not_know_the_models() -> None:
    code = "import timm; print(timm.list_models('mixernet*'))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_version() -> None:
    from importlib.metadata import version

    assert tokenmix.__version__.count(".") == 2
    assert version("tokenmix") == tokenmix.__version__
