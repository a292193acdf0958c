"""Networks that enlarge pictures in other runtimes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.scramble import scramble
from tests.test_export_runtimes import needs, quietly
from tokenmix.bench.cost import cost
from tokenmix.checkpoints import open_model
from tokenmix.export import export
from tokenmix.recipes import make_recipe
from tokenmix.tasks import find_task
from tokenmix.tasks.super_resolution.model import create_upscaler
from tokenmix.weight_files import weights_bytes

ort = pytest.importorskip("onnxruntime")


def saved(path: Path, **args) -> Path:
    """Weights in a file as a training leaves them."""
    model = scramble(create_upscaler("ffnet_sr_tiny", **args)).eval()
    info = {"model": "ffnet_sr_tiny", "model_args": args, "task": "super_resolution", "image_size": [24, 24]}
    path.write_bytes(weights_bytes(model.state_dict(), info))
    return path


@pytest.mark.parametrize("mixers", [None, "aff,additive"])
def test_onnx_files_take_any_size_and_compute_the_same(mixers: str | None, tmp_path: Path) -> None:
    args = {"dim": 8, "depth": 2, "scale": 3, **({"mixers": mixers} if mixers else {})}
    path = saved(tmp_path / "model.safetensors", **args)
    manifest = export(path, out=tmp_path / "model")
    radius = 8 if mixers is None else None
    found = {"kind": "enlarged", "inside": False, "multiple": 1, "scale": 3, "radius": radius}
    assert manifest["postprocess"] == found
    assert manifest["files"]["onnx"]["errors"]["relative_error"] < 1e-4
    assert json.loads((tmp_path / "model.json").read_text())["outputs"][0]["name"] == "enlarged"
    session = ort.InferenceSession(str(tmp_path / "model.onnx"))
    shape = (2, 3, 17, 31) if mixers is None else (2, 3, 24, 24)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    (found,) = session.run(None, {"image": x.numpy()})
    with torch.no_grad():
        expected = open_model(path).model(x).numpy()
    assert np.abs(found - expected).max() < 1e-4


@pytest.mark.parametrize(
    "form",
    [pytest.param(name, marks=needs(name)) for name in ("openvino", "executorch")]
    + [pytest.param("coreml", marks=needs("coremltools"))],
)
@quietly
def test_other_runtimes_compute_the_same(form: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "model.safetensors", dim=8, depth=2)
    manifest = export(path, [form], out=tmp_path / "model", dynamic_batch=False)
    errors = manifest["files"][form]["errors"]
    if form == "coreml":  # its numbers only on macOS
        assert errors["verified"] is False
        assert manifest["files"][form]["operators"]["conv"] >= 8
    else:
        assert errors["verified"]
        assert errors["relative_error"] < 1e-4


def test_who_names_a_size_gets_a_file_of_it(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.safetensors", dim=8, depth=1)
    assert export(path, out=tmp_path / "model", image_size=20)["input"]["shape"][2:] == [20, 20]


def test_what_cannot_be_exported_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bicubic_x2 cannot be exported"):
        export("bicubic_x2", out=tmp_path / "model")
    grey = saved(tmp_path / "grey.safetensors", dim=8, depth=1, in_chans=1)
    with pytest.raises(ValueError, match="that can be networks for RGB pictures"):
        export(grey, out=tmp_path / "model")


def test_published_costs() -> None:
    """The recipes' EMACs: patches of 96 x 96 pixels, three times the forward pass, 32 million of them."""
    for name, emacs in (("ffnet_sr", 2.08), ("ffnet_sr_light", 1.56)):
        recipe = make_recipe(name)
        ((model, x, times),) = find_task("super_resolution").training_work(recipe, {})
        work = cost(model, tuple(x.shape[-2:])).macs * times * recipe.run.batch_size * recipe.schedule.steps
        assert work / 1e18 == pytest.approx(emacs, abs=0.006)
        assert recipe.cost.startswith(f"{emacs} EMACs")
