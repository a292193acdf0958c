"""Export to ONNX: the written file computes what the model computes, holds its manifest, and a wrong one is found."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

import tokenmix
from tests.backbone_cases import TOYS
from tests.backbone_cases import toy as toy_model
from tests.export_cases import conv_net, opened, small_net
from tokenmix.export import FORMATS, ExportError, Format, VerificationError, export, graph_operators, prepare
from tokenmix.export import main as export_main
from tokenmix.export.extras import require
from tokenmix.export.manifest import weights_sha256
from tokenmix.export.onnx import write_onnx
from tokenmix.export.onnx_file import onnx_session, run_onnx
from tokenmix.export.prepare import Prepared, evaluation_mode
from tokenmix.files import sha256
from tokenmix.mixers import MIXERS

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def exported(tmp_path_factory, images):
    """A convolutional network in training mode, its file and its manifest."""
    model = conv_net().train()
    path = tmp_path_factory.mktemp("conv") / "deep" / "model.onnx"
    return model, path, export(opened(model, classes=list("abcde")), ("onnx",), path, images=images)


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
    model, path, manifest = exported
    with evaluation_mode(model), torch.no_grad():
        expected = model(images)
    for batch in (1, 3, 5):
        (found,) = run_onnx(path, images[:batch])
        torch.testing.assert_close(torch.from_numpy(found), expected[:batch], rtol=1e-5, atol=1e-5)
    errors = manifest["files"]["onnx"]["errors"]
    assert errors["verified"]
    assert (errors["images"], errors["source"], errors["top1_agreement"]) == (5, "tensor", 100.0)
    assert errors["relative_error"] < 1e-5


def test_export_leaves_the_model_alone(exported):
    model, _, _ = exported
    assert all(module.training for module in model.modules())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), conv_net().parameters(), strict=True))


def test_manifest_is_inside_and_beside(exported):
    model, path, manifest = exported
    found = onnx_session(path).get_modelmeta().custom_metadata_map
    inside = {key: json.loads(value) for key, value in found.items()}
    assert inside == {key: value for key, value in manifest.items() if key != "files"}
    assert json.loads((path.parent / "model.json").read_text()) == manifest
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.json", "model.onnx"]
    assert manifest["schema"] == "tokenmix.model/2"
    assert manifest["labels"] == list("abcde")
    assert manifest["input"] == {"name": "image", "shape": ["batch", 3, 16, 16], "dtype": "float32", "layout": "NCHW"}
    assert manifest["outputs"] == [{"name": "logits", "shape": ["batch", 5], "dtype": "float32"}]
    assert manifest["preprocess"]["image_size"] == [16, 16]
    assert manifest["preprocess"]["inside"] == []
    assert manifest["postprocess"] == {"kind": "softmax", "multiple": 1, "inside": False}
    assert manifest["weights_sha256"] == weights_sha256(model)
    file = manifest["files"]["onnx"]
    assert (file["file"], file["bytes"], file["sha256"]) == ("model.onnx", path.stat().st_size, sha256(path))
    assert graph_operators(path) == file["operators"]


def fake(name: str, model: nn.Module, error: float = 0.0) -> Format:
    """A format without a runtime: PyTorch runs the model, perhaps with an error."""

    def write(prepared, path, precision, calibration):
        path.write_text("a file")
        return {"operators": {}}

    @torch.no_grad()
    def run(path, x):
        assert path.read_text() == "a file"
        return [model.eval()(x).numpy() + np.float32(error)]

    return Format(name, f".{name}", "onnx", ("fp32",), write, run)


def test_the_manifest_keeps_files_of_the_same_weights_only(tmp_path, images, monkeypatch):
    model = conv_net().eval()
    for name in ("one", "two"):
        monkeypatch.setitem(FORMATS, name, fake(name, model))
    export(opened(model), ("one",), tmp_path / "m", images=images)
    both = export(opened(model), ("two",), tmp_path / "m", images=images)
    assert list(both["files"]) == ["one", "two"]
    with torch.no_grad():
        model[3].bias += 1
    new = export(opened(model), ("two",), tmp_path / "m", images=images)
    assert list(new["files"]) == ["two"]
    for files in (None, [1]):
        damaged = {key: value for key, value in new.items() if key != "files"} | ({"files": files} if files else {})
        (tmp_path / "m.json").write_text(json.dumps(damaged))
        assert list(export(opened(model), ("one",), tmp_path / "m", images=images)["files"]) == ["one"]


def test_export_is_quiet_and_holds_no_paths(tmp_path, capfd, images):
    export(opened(conv_net()), out=tmp_path / "model", images=images)
    said = capfd.readouterr()
    assert said.out + said.err == ""
    content = (tmp_path / "model.onnx").read_bytes()
    assert b".py" not in content
    assert b"/torch/" not in content


SHOWN = ("aff", "attention")


@pytest.mark.parametrize(
    "mixer", [name if name in SHOWN else pytest.param(name, marks=pytest.mark.slow) for name in MIXERS]
)
def test_every_mixer_exports(mixer, tmp_path):
    manifest = export(opened(small_net(mixer), (32, 32)), out=tmp_path / "model", tolerance=1e-5)
    assert not {"DFT", "STFT"} & set(manifest["files"]["onnx"]["operators"])


@pytest.mark.slow
def test_fourier_operators_only_when_asked_for(tmp_path):
    model = prepare(small_net("global_filter"), form="fft")
    prepared = Prepared(model, torch.randn(2, 3, 32, 32), "image", ("logits",), {0: "batch"}, "net")
    assert write_onnx(prepared, tmp_path / "model.onnx")["operators"]["DFT"] >= 4


def test_hidden_fourier_transform_is_named(tmp_path):
    class Hidden(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.rfft2(x).abs().flatten(1)

    with pytest.raises(ExportError, match=r"by FFT in 1\b.*form"):
        export(opened(nn.Sequential(nn.Identity(), Hidden()), (8, 8)), out=tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_model_that_cannot_be_written_is_one_message(tmp_path):
    class Branch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) if x.sum() > 0 else -x.flatten(1)

    with pytest.raises(ExportError, match=r"net could not be exported to ONNX: .{10}"):
        export(opened(Branch(), (4, 4)), out=tmp_path / "model")
    with pytest.raises(ValueError, match="net cannot take images of 8 x 8 pixels: "):
        export(opened(nn.Sequential(nn.Flatten(), nn.Linear(3, 2)), (8, 8)), out=tmp_path / "model")
    assert not list(tmp_path.iterdir())


def planted(name: str, value: float):
    """The writer of a file with one wrong weight."""

    def write(prepared, path, precision, calibration):
        facts = write_onnx(prepared, path, precision, calibration)
        proto = onnx.load(path)
        (weight,) = [one for one in proto.graph.initializer if one.name == name]
        wrong = onnx.numpy_helper.to_array(weight).copy()
        wrong.flat[0] += value
        weight.CopyFrom(onnx.numpy_helper.from_array(wrong, name))
        onnx.save(proto, path)
        return facts

    return dataclasses.replace(FORMATS["onnx"], write=write)


@pytest.mark.parametrize(("where", "value"), [(0.0, np.nan), (0.5, 2.0)])
def test_the_first_wrong_layer_is_named_and_nothing_left(where, value, tmp_path, monkeypatch):
    net = small_net("pool")
    layers = [name for name, module in prepare(net).named_modules() if isinstance(module, nn.Conv2d)]
    layer = layers[int(where * len(layers))]
    monkeypatch.setitem(FORMATS, "onnx", planted(f"{layer}.weight", value))
    (tmp_path / "model.onnx").write_bytes(b"what was there")
    with pytest.raises(VerificationError, match=rf"relative error (0\.|inf).*first layer that differs is {layer}$"):
        export(opened(net, (32, 32)), out=tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_bytes() == b"what was there"


def test_a_failed_format_does_not_take_the_others_with_it(tmp_path, monkeypatch, images):
    model = conv_net().eval()
    monkeypatch.setitem(FORMATS, "good", fake("good", model))
    monkeypatch.setitem(FORMATS, "bad", fake("bad", model, error=1.0))
    with pytest.raises(VerificationError, match=r"m\.bad differs"):
        export(opened(model), ("bad", "good"), tmp_path / "m", images=images)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.good", "m.json"]
    assert list(json.loads((tmp_path / "m.json").read_text())["files"]) == ["good"]


def test_a_runtime_that_fails_does_not_either(tmp_path, monkeypatch, images):
    def fails(path, images):
        raise RuntimeError("no kernel\nat line 5 of its source")

    model = conv_net().eval()
    monkeypatch.setitem(FORMATS, "good", fake("good", model))
    monkeypatch.setitem(FORMATS, "bad", dataclasses.replace(fake("bad", model), run=fails))
    with pytest.raises(ExportError, match=r"m\.bad could not be written and run: no kernel$"):
        export(opened(model), ("bad", "good"), tmp_path / "m", images=images)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.good", "m.json"]


def test_parts_of_two_exports_are_never_together(tmp_path, monkeypatch):
    """However early the second one is killed."""
    moved = []

    def replace(path, place):
        assert not (tmp_path / "net.xml").exists()
        moved.append(place.name)
        path.rename(place)

    monkeypatch.setattr(export_main.os, "replace", replace)
    for content in ("old", "new"):
        (tmp_path / "made").mkdir(exist_ok=True)
        for name in ("net.bin", "net.xml", "net.zzz"):
            (tmp_path / "made" / name).write_text(content)
        beside = export_main._move(tmp_path / "made", tmp_path / "net.xml")
        assert [place.name for place in beside] == ["net.bin", "net.zzz"]
    assert moved == ["net.bin", "net.zzz", "net.xml"] * 2
    assert (tmp_path / "net.xml").read_text() == "new"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"formats": ("onx",)}, "unknown format 'onx'; did you mean 'onnx'"),
        ({"formats": ()}, "no format"),
        ({"precision": "fp8"}, "unknown precision 'fp8'; did you mean 'fp"),
        ({"precision": "int8"}, "needs pictures"),
        ({"precision": "int8", "calibration": "nowhere"}, "nowhere: no such folder"),
        ({"inside": ("softmx",)}, "unknown part inside the file 'softmx'; did you mean 'softmax'"),
        ({"inside": ("nms",)}, "'nms' cannot be inside a file for classification.*resize, normalize, softmax"),
        ({"image_size": 0}, "image_size must be"),
        ({"images": ["missing.png"]}, r"missing\.png"),
        ({"images": torch.zeros(3, 16, 16)}, "pictures \\(N, C, H, W\\)"),
    ],
)
def test_mistakes_are_told_before_the_work(arguments, message, tmp_path):
    with pytest.raises((ValueError, OSError), match=message):
        export(opened(conv_net()), out=tmp_path / "model", **arguments)
    assert not list(tmp_path.iterdir())


def test_an_ending_is_no_name(tmp_path):
    with pytest.raises(ValueError, match=r"\.onnx is an ending alone: give a name before it, such as model\.onnx"):
        export(opened(conv_net()), out=tmp_path / ".onnx")
    assert not list(tmp_path.iterdir())


def test_formats_of_one_size_say_so(tmp_path, monkeypatch):
    model = conv_net().eval()
    monkeypatch.setitem(FORMATS, "fixed", dataclasses.replace(fake("fixed", model), dynamic_batch=False))
    with pytest.raises(ValueError, match="fixed files have a fixed size"):
        export(opened(model), ("onnx", "fixed"), tmp_path / "m", dynamic_size=True)
    with pytest.raises(ValueError, match="fixed files have a fixed batch"):
        export(opened(model), ("fixed",), tmp_path / "m", dynamic_batch=True)
    with pytest.raises(ValueError, match="fixed files cannot be fp16 here, only fp32"):
        export(opened(model), ("fixed",), tmp_path / "m", precision="fp16")
    with pytest.raises(ValueError, match=r"m\.fixed is no name for onnx"):
        export(opened(model), ("onnx",), tmp_path / "m.fixed")
    assert export(opened(model), ("fixed",), tmp_path / "m")["input"]["shape"] == [1, 3, 16, 16]


@pytest.mark.parametrize("dynamic_size", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_half_precision_keeps_the_answers(dynamic_size, tmp_path):
    model = opened(conv_net() if not dynamic_size else small_net("dsm"), (32, 32))
    whole = export(model, out=tmp_path / "whole")["files"]["onnx"]
    half = export(model, out=tmp_path / "half", precision="fp16", dynamic_size=dynamic_size)["files"]["onnx"]
    assert half["precision"] == "fp16"
    assert 1e-5 < half["errors"]["relative_error"] < 1e-2
    assert dynamic_size or half["bytes"] < whole["bytes"]
    session = onnx_session(tmp_path / "half.onnx")
    assert {end.type for end in (*session.get_inputs(), *session.get_outputs())} == {"tensor(float)"}


def test_half_precision_leaves_large_values_in_float32(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        model[0].weight.fill_(1e5)
        model[1].weight.fill_(1e-5)
    facts = export(opened(model), out=tmp_path / "m", precision="fp16")["files"]["onnx"]
    assert len(facts["float_parts"]) == 2
    assert facts["errors"]["relative_error"] < 1e-2


@pytest.mark.parametrize(
    "mixer", [pytest.param(name, marks=[] if name == "aff" else pytest.mark.slow) for name in MIXERS]
)
def test_dynamic_sizes_without_fourier_operators(mixer, tmp_path):
    model = small_net(mixer)
    manifest = export(opened(model, (32, 32)), out=tmp_path / "m", dynamic_size=True, tolerance=1e-5)
    assert manifest["input"]["shape"] == ["batch", 3, "height", "width"]
    assert not {"DFT", "STFT"} & set(manifest["files"]["onnx"]["operators"])
    for height, width in ((33, 47), (64, 29), (12, 15)):
        x = torch.randn(2, 3, height, width)
        with torch.no_grad():
            expected = model(x)
        (found,) = run_onnx(tmp_path / "m.onnx", x)
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", TOYS)
def test_every_family_takes_any_size(family, tmp_path):
    model = toy_model(family)
    export(opened(model, (64, 64)), out=tmp_path / "m", dynamic_size=True, tolerance=1e-4)
    for height, width in ((33, 65), (75, 93)):
        x = torch.randn(1, 3, height, width)
        with torch.no_grad():
            expected = model(x)
        (found,) = run_onnx(tmp_path / "m.onnx", x)
        assert (torch.from_numpy(found) - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_bad_file_is_one_error(tmp_path, exported, images):
    with pytest.raises(ValueError, match="no such file"):
        onnx_session(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(ValueError, match="cannot load"):
        onnx_session(tmp_path / "bad.onnx")
    with pytest.raises(ValueError, match=r"takes images of shape .* fails for \(5, 3, 8, 16\)"):
        run_onnx(exported[1], images[:, :, :8])


def test_a_classifier_from_python_is_exported(tmp_path):
    model = timm.create_model("mixernet_pico", mixers="pool", depths=(1, 1, 1, 1), num_classes=3).train()
    manifest = tokenmix.export(model, "onnx", tmp_path / "py.onnx", image_size=32)
    assert manifest["model"] == "mixernet_pico"
    assert (tmp_path / "py.onnx").is_file()
    assert model.training
    with pytest.raises(TypeError, match=r"LoadedModel\(model.eval\(\)"):
        tokenmix.export(nn.Linear(3, 3), "onnx", tmp_path / "other.onnx")


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
