"""Files for other runtimes compute there what the model computes and hold their manifest; int8 is chosen by measure."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.export_cases import MEAN, STD, conv_net, opened, opened_dense, small_net
from tokenmix.checkpoints import open_model
from tokenmix.cli import main
from tokenmix.data.prepare import preprocess
from tokenmix.export import aoti, export
from tokenmix.export.aoti import no_compiler
from tokenmix.export.extras import matching
from tokenmix.export.onnx import ExportError
from tokenmix.export.onnx_file import graph_operators
from tokenmix.export.prepare import Prepared, prepare
from tokenmix.export.program import trace
from tokenmix.export.quantize import choose, decibels, quantize_onnx, relative_noise
from tokenmix.ops.dispatch import definitions
from tokenmix.weight_files import weights_bytes
from tokenmix_runtime.images import open_image


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed")


# The packages warn while they are imported.
quietly = pytest.mark.filterwarnings("ignore")


def prepared(model: nn.Module, size: int, *, dynamic: bool = False, name: str = "net") -> Prepared:
    sample = torch.randn(1 + dynamic, 3, size, size, generator=torch.Generator().manual_seed(0))
    return Prepared(prepare(model), sample, "image", ("logits",), {0: "batch"} if dynamic else {}, name)


@pytest.mark.parametrize("mixer", ["aff", "dsm"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_program_stores_what_does_not_depend_on_the_image(mixer: str, dynamic: bool) -> None:
    case = prepared(small_net(mixer), 32, dynamic=dynamic)
    program = trace(case)
    names = {node.target.__name__.split(".")[0] for node in program.graph.nodes if node.op == "call_function"}
    assert not names & {"arange", "full", "cos", "sin", "remainder", "fft_rfft2", "fft_irfft2"}
    x = torch.randn(5 if dynamic else 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with definitions():  # the operations that were traced, not those that inference or training choose on a CPU
        torch.testing.assert_close(program.module()(x), case.model(x), atol=1e-6, rtol=1e-6)


def test_model_that_cannot_be_traced_is_named() -> None:
    class Branch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ExportError, match=r"net could not be exported by torch\.export"):
        trace(prepared(Branch(), 8))


def test_torch_file_holds_its_manifest(tmp_path: Path) -> None:
    manifest = export(opened(small_net("aff"), (32, 32)), ["torch"], tmp_path / "net")
    assert manifest["files"]["torch"]["errors"]["max_error"] < 1e-5
    inside = {"tokenmix.json": ""}
    program = torch.export.load(tmp_path / "net.pt2", extra_files=inside)
    assert json.loads(inside["tokenmix.json"])["schema"] == manifest["schema"]
    assert program.module()(torch.zeros(3, 3, 32, 32)).shape == (3, 5)


@pytest.mark.slow
@pytest.mark.skipif(no_compiler() is not None, reason="no C++ compiler")
@quietly
@pytest.mark.parametrize("dynamic", [False, True])
def test_aoti_package(dynamic: bool, tmp_path: Path) -> None:
    model = small_net("aff")
    manifest = export(opened(model, (32, 32)), ["aoti"], tmp_path / "net.aoti.pt2", dynamic_batch=dynamic)
    facts, path = manifest["files"]["aoti"], tmp_path / "net.aoti.pt2"
    assert (facts["file"], facts["errors"]["verified"]) == ("net.aoti.pt2", True)
    assert facts["machine"] == aoti.this_machine()
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        (inside,) = (name for name in names if name.endswith(aoti.METADATA))
        assert json.loads(archive.read(inside))["schema"] == manifest["schema"]
    assert not [name for name in names if name.endswith(".cpp")]
    run = aoti.load_aoti(path)
    x = torch.randn(3 if dynamic else 1, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        for given in (x, x.to(memory_format=torch.channels_last)):  # the code itself would read it in the wrong order
            torch.testing.assert_close(run(given)[0], model(x), atol=1e-5, rtol=1e-5)
    for wrong in (x[..., 1:], x.double(), x[0]):
        with pytest.raises(ValueError, match="takes float32 of"):
            run(wrong)
    code = f"from tokenmix.export.aoti import load_aoti; load_aoti({str(path)!r})"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert "native code, which runs when it is loaded" in done.stderr
    code = f"from tokenmix.export.aoti import load_aoti; print(load_aoti({str(path)!r}, trust=True))"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True).returncode == 0


def test_a_package_of_native_code_is_not_even_read_unless_it_is_ours(tmp_path: Path) -> None:
    path = tmp_path / "stranger.aoti.pt2"
    path.write_bytes(b"no zip at all")
    with pytest.raises(ValueError, match=r"stranger.* is native code.*--trust"):
        aoti.load_aoti(path)
    with pytest.raises(ValueError, match=r"no package of `tokenmix export --to aoti`: File is not a zip file"):
        aoti.load_aoti(path, trust=True)
    with pytest.raises(ValueError, match="no such file"):
        aoti.load_aoti(tmp_path / "nothing.aoti.pt2", trust=True)


def test_a_package_for_another_machine_is_told(tmp_path: Path) -> None:
    path = tmp_path / "net.aoti.pt2"
    other = {"system": "Linux", "architecture": "aarch64", "vector_instructions": "DEFAULT", "torch": "2.14.1"}
    facts = {"shape": [1, 3, 8, 8], "dtype": "float32", "machine": other}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "net/data/aotinductor/model/c.wrapper_metadata.json", json.dumps({"tokenmix": json.dumps(facts)})
        )
    with pytest.raises(
        ValueError, match=r"is for Linux aarch64 DEFAULT with torch 2\.14\.1, and this is .*export the model here"
    ):
        aoti.load_aoti(path, trust=True)


def test_without_a_compiler_there_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ExportError, match=r"needs a C\+\+ compiler"):
        export(opened(conv_net()), ["aoti"], tmp_path / "net")
    assert not list(tmp_path.iterdir())


@needs("openvino")
@quietly
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_openvino(precision: str, tmp_path: Path) -> None:
    import openvino

    images = torch.randn(4, 3, 32, 32)
    case = opened(small_net("aff"), (32, 32))
    manifest = export(case, ["openvino"], tmp_path / "net", precision=precision, images=images, calibration=images)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.bin", "net.json", "net.xml"]
    file = manifest["files"]["openvino"]
    assert file["errors"]["verified"]
    assert file["errors"]["relative_error"] < {"fp32": 1e-5, "fp16": 1e-2, "int8": 0.1}[precision]
    assert file.get("latency_in") == ("OpenVINO" if precision == "int8" else None)
    assert file["bytes"] == sum((tmp_path / name).stat().st_size for name in ("net.xml", "net.bin"))
    assert file["parts"] == {"net.bin": hashlib.sha256((tmp_path / "net.bin").read_bytes()).hexdigest()}
    model = openvino.Core().read_model(tmp_path / "net.xml")
    assert json.loads(model.get_rt_info(["tokenmix"]).value)["schema"] == manifest["schema"]


@needs("openvino")
@quietly
def test_openvino_keeps_off_weights_of_others(tmp_path: Path) -> None:
    images = torch.randn(4, 3, 32, 32)
    case = opened(small_net("pool"), (32, 32))
    (tmp_path / "net.bin").write_bytes(b"somebody's")
    with pytest.raises(ValueError, match=r"net\.bin is in the way"):
        export(case, ["openvino"], tmp_path / "net", images=images)
    assert [path.name for path in tmp_path.iterdir()] == ["net.bin"]
    assert (tmp_path / "net.bin").read_bytes() == b"somebody's"
    export(case, ["openvino"], tmp_path / "other", images=images)
    export(case, ["openvino"], tmp_path / "other", images=images)


@needs("executorch")
@quietly
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_executorch(precision: str, tmp_path: Path) -> None:
    images = torch.randn(4, 3, 16, 16)
    options = {"precision": precision, "images": images, "calibration": images, "dynamic_batch": False}
    manifest = export(opened(conv_net()), ["executorch"], tmp_path / "net", **options)
    facts = manifest["files"]["executorch"]
    assert facts["operators"]["XnnpackBackend"] >= 1
    assert facts["errors"]["relative_error"] < (1e-5 if precision == "fp32" else 0.2)


@needs("executorch")
@quietly
def test_every_chosen_layer_becomes_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions with and without a ReLU; the simulation promises the noise that the program has."""
    from tokenmix.export import quantize_program

    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.GELU(), nn.Flatten(), nn.Linear(1152, 5))
    case, images = prepared(net, 16), torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    promised = []

    def noted(*args, **kwargs):
        chosen, noise = choose(*args, **kwargs)
        promised.append(decibels(noise))
        return chosen, noise

    monkeypatch.setattr(quantize_program, "choose", noted)
    program, facts = quantize_program.quantize_program(trace(case), case, [images])
    layers = [node for node in program.graph.nodes if node.target in quantize_program.LAYERS]
    rounded = [node for node in layers if all("dequantize" in str(one.target) for one in node.all_input_nodes[:2])]
    assert (len(layers), len(rounded)) == (3, facts["quantized_parts"])
    assert len(rounded) >= 2
    assert facts["signal_to_noise_db"] == pytest.approx(promised[0], abs=3)


@needs("coremltools")
@quietly
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_coreml_is_inspected(precision: str, tmp_path: Path) -> None:
    import coremltools

    manifest = export(opened(small_net("aff"), (32, 32)), ["coreml"], tmp_path / "net", precision=precision)
    facts = manifest["files"]["coreml"]
    assert facts["errors"]["verified"] is False
    assert "unverified" in facts["errors"]["reason"]
    assert facts["operators"]["matmul"] >= 4
    package = coremltools.models.MLModel(str(tmp_path / "net.mlpackage"), skip_model_load=True)
    assert json.loads(package.user_defined_metadata["tokenmix"])["schema"] == manifest["schema"]


@needs("coremltools")
@quietly
def test_coreml_of_another_model_is_found_out(tmp_path: Path) -> None:
    from tokenmix.export.coreml import inspect_coreml, write_coreml

    write_coreml(prepared(conv_net(), 16), tmp_path / "net.mlpackage", "fp32")
    with pytest.raises(ExportError, match="instead of"):
        inspect_coreml(tmp_path / "net.mlpackage", prepared(conv_net(), 8))


@pytest.mark.slow
@pytest.mark.parametrize("form", [pytest.param("executorch", marks=needs("executorch")), "torch"])
@pytest.mark.parametrize("head", ["mask_rcnn", "cascade_mask_rcnn"])
@quietly
def test_two_stages_run_elsewhere(head: str, form: str, tmp_path: Path) -> None:
    manifest = export(opened_dense(head, "mixernet_pico", (75, 93)), [form], tmp_path / "net")
    errors = manifest["files"][form]["errors"]
    assert errors["verified"]
    assert errors["detections"] == 20
    assert manifest["postprocess"]["max_detections"] == 5


@needs("coremltools")
@pytest.mark.slow
@pytest.mark.parametrize("head", ["mask_rcnn", "cascade_mask_rcnn", "ffnet_seg", "semantic_fpn"])
@quietly
def test_dense_coreml_is_inspected(head: str, tmp_path: Path) -> None:
    backbone = "ffnet_1" if head == "ffnet_seg" else "mixernet_pico"
    manifest = export(opened_dense(head, backbone, (64, 96)), ["coreml"], tmp_path / "net", precision="fp16")
    assert manifest["files"]["coreml"]["errors"]["verified"] is False


@pytest.mark.parametrize("name", ["openvino", "executorch", "coremltools"])
def test_missing_package_gives_the_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"coremltools": "coreml"}.get(name, name)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"pip install 'tokenmix\[{extra}\]'"):
        matching(name, extra)


def test_package_that_does_not_fit_torch_gives_both_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_runtime.py").write_text("raise AttributeError('torch has no such thing')")
    (tmp_path / "broken_runtime-0.1.dist-info").mkdir()
    (tmp_path / "broken_runtime-0.1.dist-info" / "METADATA").write_text("Name: broken_runtime\nVersion: 0.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ImportError, match=r"broken_runtime 0\.1 does not work with torch .*no such thing.*python -m venv"
    ):
        matching("broken_runtime", "executorch")


@pytest.mark.parametrize("target", [3.0, 10.0, 20.0, 27.0])
def test_loudest_parts_stay_in_float(target: float) -> None:
    """Noises that add up: the answer is the longest quiet tail, by brute force."""
    noises = np.random.default_rng(0).permutation(10.0 ** -np.arange(1.0, 4.0, 0.25))
    parts = list(range(len(noises)))
    chosen, noise = choose(parts, lambda some: float(noises[list(some)].sum()), target_db=target)
    order = np.argsort(-noises)
    fewest = next(count for count in parts if noises[order[count:]].sum() <= 10 ** (-target / 10))
    assert chosen == sorted(order[fewest:].tolist())
    assert noise == pytest.approx(noises[chosen].sum())
    assert decibels(noise) >= target


def test_nothing_quiet_enough_is_said() -> None:
    with pytest.raises(ExportError, match="no part can be int8"):
        choose([1, 2], lambda some: float(len(some)))


def test_noise_is_of_the_worst_output_and_of_numbers_only() -> None:
    wanted = [np.array([[3.0, 4.0]]), np.array([[1.0]])]
    assert relative_noise([wanted[0] + 0.5, wanted[1] + 0.1], wanted) == pytest.approx(0.02)
    assert relative_noise([wanted[0] * np.nan, wanted[1]], wanted) == np.inf
    with pytest.raises(ExportError, match="post-processing"):
        relative_noise([np.array([1])], [np.array([1])])


@pytest.fixture(scope="module")
def float_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tensor]:
    path = tmp_path_factory.mktemp("int8") / "net.onnx"
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    export(opened(small_net("aff", (32, 64)), (32, 32)), ["onnx"], path, images=images)
    return path, images


def test_int8_onnx_keeps_its_promise(float_file: tuple[Path, Tensor], tmp_path: Path) -> None:
    path, images = float_file
    facts = quantize_onnx(path, tmp_path / "int8.onnx", [images], target_db=30.0)
    operators = graph_operators(tmp_path / "int8.onnx")
    assert facts["signal_to_noise_db"] >= 30.0
    assert facts["quantized_parts"] + facts["float_parts"] == sum(
        operators[name] for name in ("Conv", "MatMul", "Gemm")
    )
    assert operators["DequantizeLinear"] >= 2 * facts["quantized_parts"] > 0
    assert facts["bytes_before_after"][1] < 0.7 * facts["bytes_before_after"][0]  # names and nodes count too


def test_stricter_target_keeps_more_in_float(
    float_file: tuple[Path, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, images = float_file
    # Else the file with the large layers alone may be the faster one at either target: that is the processor's choice.
    monkeypatch.setattr("tokenmix.export.quantize._latencies", lambda runs, image: [1.0] * len(runs))
    parts = [quantize_onnx(path, tmp_path / "x.onnx", [images], target_db=db)["float_parts"] for db in (20.0, 45.0)]
    assert parts[0] < parts[1]


def test_int8_report_of_accuracy_size_and_speed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command, on pictures in folders named after the classes: how many are right, before and after."""
    rng = np.random.default_rng(0)
    for name, level in (("dark", 40), ("light", 215)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(level - 30, level + 30, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    model = small_net("aff")
    info = {"model": "mixernet_pico", "task": "classification", "classes": ["dark", "light"], "image_size": (32, 32)}
    args = {"mixers": "aff", "depths": (1, 1), "dims": (16, 24), "stem_stride": 2}
    model.reset_classifier(2)
    content = weights_bytes(model.state_dict(), {**info, "model_args": args, "mean": MEAN, "std": STD})
    (tmp_path / "net.safetensors").write_bytes(content)
    photos = str(tmp_path / "photos")
    command = ["export", str(tmp_path / "net.safetensors"), "--out", str(tmp_path / "small"), "--precision", "int8"]
    assert main([*command, "--calibration", photos, "--images", photos]) == 0
    said = capsys.readouterr().out
    assert re.search(r"top-1 [\d.]+ % in PyTorch and [\d.]+ % here", said)
    assert re.search(r"int8: \d+ layers, \d+ stay in float, .* [\d.]+ to [\d.]+ MB, [\d.]+ to [\d.]+ ms", said)
    file = json.loads((tmp_path / "small.json").read_text())["files"]["onnx"]
    assert file["bytes"] == (tmp_path / "small.onnx").stat().st_size
    opened = open_model(tmp_path / "net.safetensors")
    right = 0
    for truth, name in enumerate(opened.classes):
        for path in (tmp_path / "photos" / name).iterdir():
            image = preprocess(open_image(path), opened.image_size, **opened.preparation)
            with torch.no_grad():
                right += int(opened.model(image[None]).argmax() == truth)
    assert file["errors"]["top1"][0] == 100 * right / 8


def test_int8_without_images_is_an_error(float_file: tuple[Path, Tensor], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="calibration images"):
        quantize_onnx(float_file[0], tmp_path / "int8.onnx", [])
