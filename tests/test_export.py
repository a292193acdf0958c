"""Export: the written file computes what the model computes, holds its manifest, and a wrong one is found out."""

from __future__ import annotations

import json
import math

import pytest
import timm
import torch
from torch import Tensor, nn

from tests.scramble import scramble
from tokenmix.export.extras import require
from tokenmix.export.onnx import ExportError, export_onnx, graph_operators
from tokenmix.export.prepare import evaluation_mode, prepare
from tokenmix.export.verify import VerificationError, check, onnx_session, run_onnx, verify_onnx
from tokenmix.mixers import MIXERS

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


def conv_net() -> nn.Module:
    body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.GELU(), nn.Conv2d(8, 12, 3, 2, 1))
    return scramble(nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5)))


def small_net(mixers: str) -> nn.Module:
    """Two stages with maps of 16 and 8 pixels for images of 32, so that both automatic forms of a transform occur."""
    args = {"depths": (1, 1), "dims": (16, 24), "stem_stride": 2, "num_classes": 5}
    return scramble(timm.create_model("mixernet_pico", mixers=mixers, **args)).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A convolutional network in training mode, its file and its manifest."""
    model = conv_net().train()
    path = tmp_path_factory.mktemp("conv") / "deep" / "model.onnx"
    manifest = export_onnx(
        model, path, image_size=16, labels=list("abcde"), mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.3), sidecar=True
    )
    return model, path, manifest


@pytest.mark.parametrize("mixer", ["aff", "dsm", "global_filter"])
def test_prepared_model_is_equal_and_new(mixer):
    net = small_net(mixer).double().train()
    prepared = prepare(net)
    forms = {getattr(module, "form", None) for module in prepared.modules()}
    assert forms == {None, "matmul"}
    assert {getattr(module, "form", None) for module in net.modules()} == {None, "auto"}
    assert all(module.training for module in net.modules())
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(prepared(x), net.eval()(x))


def test_file_equals_model_at_any_batch(exported, images):
    model, path, _ = exported
    result = verify_onnx(path, model, images, batch_size=2)
    assert result["relative_error"] < 1e-5
    assert result["max_error"] < 1e-5
    assert result["top1_agreement"] == 100.0
    check(result)
    assert model.training
    assert model[0][1].training
    session = onnx_session(path, threads=1)
    for batch in (1, 3):
        assert run_onnx(session, images[:batch]).shape == (batch, 5)


def test_export_leaves_model_alone(exported):
    model, _, _ = exported
    assert all(module.training for module in model.modules())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), conv_net().parameters(), strict=True))


def test_manifest_is_inside_and_beside(exported):
    import onnxruntime

    _, path, manifest = exported
    session = onnxruntime.InferenceSession(path)
    inside = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert inside == {key: value for key, value in manifest.items() if key not in ("bytes", "sha256")}
    assert json.loads((path.parent / "model.onnx.json").read_text()) == manifest
    assert manifest["labels"] == list("abcde")
    assert manifest["input"] == {"name": "image", "shape": ["batch", 3, 16, 16], "dtype": "float32", "layout": "NCHW"}
    assert manifest["output"]["shape"] == ["batch", 5]
    assert manifest["bytes"] == path.stat().st_size
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.onnx", "model.onnx.json"]
    assert graph_operators(path) == manifest["operators"]


def test_file_holds_no_paths_of_this_machine(exported):
    _, path, _ = exported
    content = path.read_bytes()
    assert b".py" not in content
    assert b"/torch/" not in content


def test_export_is_quiet(tmp_path, capfd):
    export_onnx(conv_net(), tmp_path / "model.onnx", image_size=8)
    said = capfd.readouterr()
    assert said.out + said.err == ""


SHOWN = ("aff", "ffnified", "additive", "dsm", "attention", "global_filter")


@pytest.mark.parametrize(
    "mixer", [name if name in SHOWN else pytest.param(name, marks=pytest.mark.slow) for name in MIXERS]
)
def test_every_mixer_exports(mixer, tmp_path):
    model = small_net(mixer)
    path = tmp_path / "model.onnx"
    manifest = export_onnx(model, path, image_size=32)
    assert not {"DFT", "STFT"} & set(graph_operators(path))
    assert manifest["model"] == "mixernet_pico"
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    check(verify_onnx(path, model, images), tolerance=1e-4)


def test_static_batch(tmp_path, images):
    model, path = conv_net(), tmp_path / "model.onnx"
    manifest = export_onnx(model, path, image_size=16, dynamic_batch=False)
    assert manifest["input"]["shape"] == [1, 3, 16, 16]
    check(verify_onnx(path, model, images), tolerance=1e-5)  # the images go one by one


def test_fourier_operators_only_when_asked_for(tmp_path):
    path = tmp_path / "model.onnx"
    manifest = export_onnx(small_net("global_filter"), path, image_size=32, form="fft")
    assert manifest["operators"]["DFT"] == graph_operators(path)["DFT"] >= 4


def test_hidden_fourier_transform_is_named(tmp_path):
    class Hidden(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.rfft2(x).abs().flatten(1)

    model = nn.Sequential(nn.Identity(), Hidden())
    with pytest.raises(ExportError, match=r"by FFT in 1\b.*form"):
        export_onnx(model, tmp_path / "model.onnx", image_size=8)
    assert not list(tmp_path.iterdir())


def test_failures_are_one_clear_message(tmp_path):
    class Branch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) if x.sum() > 0 else -x.flatten(1)

    path = tmp_path / "model.onnx"
    with pytest.raises(ExportError, match=r"Branch could not be exported to ONNX: .{10}"):
        export_onnx(Branch(), path, image_size=4)
    with pytest.raises(ValueError, match="3 labels for 5 outputs"):
        export_onnx(conv_net(), path, image_size=16, labels=list("abc"))
    with pytest.raises(ValueError, match="opset must be 18"):
        export_onnx(conv_net(), path, image_size=16, opset=17)
    with pytest.raises(ValueError, match="unknown form 'dft'"):
        export_onnx(conv_net(), path, image_size=16, form="dft")
    assert not list(tmp_path.iterdir())


def test_wrong_file_is_found_out(exported, images):
    model, path, _ = exported
    other = conv_net()
    with torch.no_grad():
        other[3].bias[2] += 0.25
    result = verify_onnx(path, other, images)
    assert result["max_error"] == pytest.approx(0.25, abs=1e-5)
    with pytest.raises(VerificationError, match=r"model.onnx differs.*relative error 0\.\d+ is above.* 0\.001"):
        check(result, name="model.onnx")
    with torch.no_grad():
        other[3].bias[2] = math.nan
    with pytest.raises(VerificationError, match="relative error inf"):
        check(verify_onnx(path, other, images))
    with pytest.raises(ValueError, match=r"shape \(5, 3, 8, 16\) for an ONNX input"):
        verify_onnx(path, model, images[:, :, :8])
    with pytest.raises(VerificationError, match="returns shape"):
        verify_onnx(path, nn.Flatten(), images)


def test_bad_file_is_one_error(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        onnx_session(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(ValueError, match="cannot load"):
        onnx_session(tmp_path / "bad.onnx")


def test_missing_package_gives_the_pip_line():
    with pytest.raises(ImportError, match=r"pip install 'tokenmix\[onnx\]'"):
        require("no_such_package_of_that_name")


def test_evaluation_mode_restores_each_module():
    model = conv_net().train()
    model[0][1].eval()
    with evaluation_mode(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()].count(False) == 1
    assert not model[0][1].training
