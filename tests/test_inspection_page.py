"""`tokenmix inspect` from end to end: the page and its files for every task, two models, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from tests.export_cases import opened, opened_dense, small_net
from tests.series_files import write_waves
from tests.train_toys import toy_data, toy_recipe
from tokenmix.checkpoints import LoadedModel, load_checkpoint, open_model
from tokenmix.cli import main
from tokenmix.inspection import inspect
from tokenmix.inspection.activation import score_cam
from tokenmix.inspection.main import Subject, _names, _receptive
from tokenmix.tasks import find_task
from tokenmix.tasks.forecasting.baselines import DecomposedLinear
from tokenmix.tasks.forecasting.looking import time_kernel
from tokenmix.tasks.forecasting.model import ffnet_forecast
from tokenmix.tasks.points.looking import influence_of
from tokenmix.tasks.points.model import PointUNet
from tokenmix.tasks.super_resolution.looking import attribution, diffusion_index
from tokenmix.tasks.super_resolution.model import upscaler
from tokenmix.tasks.view import View
from tokenmix.train import fit
from tokenmix.train.checkpoint import Checkpoints

SIZE = (32, 32)


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    """Two pictures."""
    rng = np.random.default_rng(0)
    files = []
    for name in ("one", "two"):
        file = tmp_path / f"{name}.png"
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8)).save(file)
        files.append(str(file))
    return files


def classifier(mixer: str = "aff") -> LoadedModel:
    return opened(small_net(mixer), SIZE, classes=["a", "b", "c", "d", "e"])


def quiet(*args: Any, **options: Any) -> dict[str, Any]:
    return inspect(*args, device="cpu", log=lambda line: None, **options)


def check(out: Path, found: dict[str, Any]) -> str:
    """Every picture is a file and on the page, which asks for nothing."""
    page = (out / "report.html").read_text(encoding="utf-8")
    named = {figure["file"] for group in found["groups"] for row in group["rows"] for figure in row["figures"]}
    assert named
    assert named == {file.name for file in out.glob("*.png")}
    assert page.count("data:image/png;base64,") == len(
        [1 for g in found["groups"] for r in g["rows"] for _ in r["figures"]]
    )
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page)
    assert json.loads((out / "inspect.json").read_text())["schema"] == "tokenmix.inspect/1"
    assert not list(out.glob(".*.tmp"))
    return page


def test_a_classifier(pictures: list[str], tmp_path: Path) -> None:
    found = quiet(classifier(), pictures, out=tmp_path / "out")
    page = check(tmp_path / "out", found)
    assert [group["anchor"] for group in found["groups"]] == ["activation", "receptive", "slots"]
    for word in ("Grad-CAM", "Score-CAM", "dynamic kernel", "Which frequencies are kept", "one.png", "activation"):
        assert word in page, word
    entry = found["models"]["net"]
    assert set(entry["receptive_fields"]) == {"stages.0", "stages.1"}
    assert entry["receptive_fields"]["stages.0"]["reach"] == 1
    assert max(entry["slots_differ_by"].values()) < 1e-4
    assert set(entry["answers"]) == {"one.png", "two.png"}
    assert re.fullmatch(r"[a-e], \d+\.\d %", entry["answers"]["one.png"])
    assert list(entry["spectra"]) == ["stages.0.blocks.0", "stages.1.blocks.0"]


def test_two_models_side_by_side(pictures: list[str], tmp_path: Path) -> None:
    found = quiet(classifier("dsm"), pictures[0], against=classifier("ffnified"), out=tmp_path / "out", target="b")
    page = check(tmp_path / "out", found)
    assert list(found["models"]) == ["net (1)", "net (2)"]
    table = found["models"]["net (1)"]["alignment"]
    assert np.shape(table["values"]) == (2, 2)
    for word in ("what each band carries", "kernels of key", "How alike they are", "merged"):
        assert word in page, word
    titles = [row["title"] for row in found["groups"][0]["rows"]]
    assert titles[0].startswith("net (1): one.png, b, ")
    assert titles[1].startswith("net (2): one.png, b, ")


def test_models_are_called_by_the_end_of_their_paths() -> None:
    one, other = classifier(), classifier()
    assert _names(["runs/aff/seed-0", "runs/dsm/seed-0"], [one, other]) == ["aff/seed-0", "dsm/seed-0"]
    assert _names(["a/best.safetensors", one], [one, other]) == ["best.safetensors", "net"]
    assert _names([one, other], [one, other]) == ["net (1)", "net (2)"]


def test_two_epochs_of_a_run(pictures: list[str], tmp_path: Path) -> None:
    run, network = tmp_path / "mine", {"mixers": "aff", "depths": [1, 1], "dims": [8, 8], "stem_stride": 2}
    recipe = toy_recipe(model="mixernet_pico", model_args=network, epochs=2)
    fit(recipe, toy_data(16, 6), run, progress=False, log=lambda line: None)
    later, earlier = Checkpoints(run).all()
    found = quiet(later, pictures, against=earlier, out=tmp_path / "out", image_size=32)
    check(tmp_path / "out", found)
    assert list(found["models"]) == ["mine, epoch 2, step 4", "mine, epoch 1, step 2"]
    values = np.array(found["models"]["mine, epoch 2, step 4"]["alignment"]["values"])
    assert (values.diagonal() > 0.5).all()
    assert (values.diagonal() < 1 - 1e-9).all()
    content, plain = Checkpoints(run).read(earlier), load_checkpoint(earlier, ema=False).state_dict()
    judged = open_model(earlier)
    assert judged.classes == ["red", "green", "blue"]
    for key, value in judged.model.state_dict().items():
        assert torch.equal(value, content["average"][f"model.{key}"]), key
        assert torch.equal(plain[key], content["task"][f"model.{key}"]), key
    (run / "best.safetensors").unlink()
    with pytest.raises(ValueError, match="holds the state of a training run; name the run's folder"):
        quiet(later, pictures, out=tmp_path / "other")


def test_pictures_of_one_name_stay_two(pictures: list[str], tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.open(pictures[0]).save(tmp_path / name / "1.png")
    files = [str(tmp_path / "cat" / "1.png"), str(tmp_path / "dog" / "1.png")]
    found = quiet(classifier(), files, out=tmp_path / "out")
    check(tmp_path / "out", found)
    assert list(found["models"]["net"]["answers"]) == found["files"] == ["cat/1.png", "dog/1.png"]


def test_pictures_of_another_size_are_not_averaged_in_silence() -> None:
    def fields(*sizes: tuple[int, int]) -> str:
        loaded = classifier("pool")
        views = [View(f"{size}", torch.zeros(1, 3, *size), loaded.model) for size in sizes]
        return _receptive(Subject("net", loaded, views))[0][0]

    assert fields((32, 32), (32, 32)) == "net"
    assert fields((32, 32), (32, 64)) == "net, averaged over the 1 of 2 pictures that it sees at 32 x 32 px"


def test_a_model_is_like_itself(pictures: list[str], tmp_path: Path) -> None:
    found = quiet(classifier(), pictures, against=classifier(), out=tmp_path / "out")
    values = np.array(found["models"]["net (1)"]["alignment"]["values"])
    assert values.diagonal() == pytest.approx(1)


@pytest.mark.parametrize("first", [True, False])
def test_plain_transformers_have_no_maps_to_compare(first: bool, pictures: list[str], tmp_path: Path) -> None:
    network = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, depth=2, embed_dim=48, num_heads=3, num_classes=5, pretrained=False
    )
    plain, lines = opened(network, SIZE), list[str]()
    one, other = (plain, plain) if first else (classifier(), plain)
    found = inspect(one, pictures[0], against=other, out=tmp_path / "out", device="cpu", log=lines.append)
    assert "alike" not in [group["anchor"] for group in found["groups"]]
    assert [line.split(": ")[1].split(",")[0] for line in lines if "alike" in line] == ["its blocks return tokens"]


def test_one_layer_is_opened(pictures: list[str], tmp_path: Path) -> None:
    found = quiet(classifier("additive"), pictures[0], layer="stages.1.blocks.0", out=tmp_path / "out")
    (slots,) = [group for group in found["groups"] if group["anchor"] == "slots"]
    assert {row["title"].split(", ")[0] for row in slots["rows"]} == {"net: stages.1.blocks.0.mixer.op"}
    titles = {figure["title"] for row in slots["rows"] for figure in row["figures"]}
    assert {"query", "key", "activation", "spatial gate", "channel gate"} <= titles
    with pytest.raises(ValueError, match="unknown layer with a mixer"):
        quiet(classifier(), pictures[0], layer="stages.7", out=tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.filterwarnings("ignore:.*its weights are random")
def test_the_command(pictures: list[str], tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["inspect", "mixernet_pico", *pictures, "image_size=32", "--layer", "stages.3", "--device", "cpu"]
    assert main([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["models"]) == {"mixernet_pico"}
    assert (tmp_path / "inspect" / "report.html").is_file()


def test_mistakes_are_named(pictures: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for words, options in (
        ("is a file; give a folder", {"out": tmp_path / "file"}),
        ("unknown class 'z'", {"target": "z", "out": tmp_path / "x"}),
    ):
        with pytest.raises(ValueError, match=words):
            quiet(classifier(), pictures[0], **options)
    with pytest.raises(ValueError, match="name at least one picture"):
        quiet(classifier(), [], out=tmp_path / "x")
    with pytest.raises(ValueError, match="a file for another runtime cannot be opened"):
        quiet("model.onnx", pictures, out=tmp_path / "x")
    other = classifier()
    other.model.output_fmt = "NHWC"  # as timm's Swin has it
    with pytest.raises(ValueError, match=r"its maps are \(B, H, W, C\)"):
        quiet(other, pictures[0], out=tmp_path / "x")
    network = LoadedModel(upscaler(4, 1), "tiny", "super_resolution")
    with pytest.raises(ValueError, match="must be for one task, not for classification and super-resolution"):
        quiet(classifier(), pictures[0], against=network, out=tmp_path / "x")


# ------------------------------------------------------------------------------------------------------ the other tasks


def test_a_segmenter(pictures: list[str], tmp_path: Path) -> None:
    loaded = opened_dense("semantic_fpn", "mixernet_pico", (64, 64))
    found = quiet(loaded, pictures[0], out=tmp_path / "out")
    check(tmp_path / "out", found)
    entry = found["models"]["mixernet_pico"]
    assert re.fullmatch(r"class \d on \d+\.\d % of the pixels", entry["answers"]["one.png"])
    assert list(entry["receptive_fields"]) == [f"backbone.stages.{number}" for number in range(4)]
    view = find_task("segmentation").view(loaded, pictures[0])
    label = loaded.model(view.inputs)[0].argmax(0)
    number = int(entry["answers"]["one.png"].split()[1])
    expected = loaded.model(view.inputs)[0, number][label == number].mean()
    assert view.score is not None
    assert torch.allclose(view.score(view.inputs), expected)


@pytest.mark.parametrize("head", ["ssdlite", pytest.param("retinanet", marks=pytest.mark.slow)])
def test_a_detector(head: str, pictures: list[str], tmp_path: Path) -> None:
    loaded = opened_dense(head, "mixernet_pico", (64, 64))
    view = find_task("detection").view(loaded, pictures[0])
    assert view.score is not None
    (found,) = loaded.model(list(view.inputs))
    assert torch.allclose(view.score(view.inputs), found["scores"].max().logit())
    both = view.score(torch.cat([view.inputs, view.inputs]))
    assert both.shape == (2,)
    result = quiet(loaded, pictures[0], out=tmp_path / "out")
    check(tmp_path / "out", result)
    assert re.fullmatch(r"class \d, score 0\.\d\d", result["models"]["mixernet_pico"]["answers"]["one.png"])
    assert "activation" in [group["anchor"] for group in result["groups"]]


def test_score_cam_tells_channels_of_a_detector_apart() -> None:
    """Two channels that see one corner each; only what is in one of them makes the box surer, from 0.01 to 0.99."""
    conv = nn.Identity()

    class Detector(nn.Module):
        num_classes = 1

        def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
            sure = [(10 * conv(image[None])[0, 0, :4, :4].mean() - 5).sigmoid() for image in images]
            return [{"scores": score[None], "labels": torch.ones(1, dtype=torch.long)} for score in sure]

    x = torch.zeros(1, 2, 8, 8)
    x[0, 0, :4, :4], x[0, 1, 4:, 4:] = 1, 1
    task = find_task("detection")
    words, score = task.scored(LoadedModel(Detector(), "net", "detection"), x, None)
    assert words.endswith("score 0.99")
    found = score_cam(conv, score, x)
    assert found[:4, :4].mean() > 100 * found[4:, 4:].mean()


def test_a_detector_that_finds_nothing(pictures: list[str], tmp_path: Path) -> None:
    loaded = opened_dense("ssdlite", "mixernet_pico", (64, 64))
    loaded.model.score_threshold = 2.0
    result = quiet(loaded, pictures[0], out=tmp_path / "out")
    assert result["models"]["mixernet_pico"]["answers"]["one.png"] == "nothing found"
    assert "activation" not in [group["anchor"] for group in result["groups"]]


def test_a_photograph_that_is_enlarged(pictures: list[str], tmp_path: Path) -> None:
    network = upscaler(8, 3, scale=2, mixers="ffnified(key_size=3, value_size=3)").eval()
    loaded = LoadedModel(network, "tiny", "super_resolution")
    found = quiet(loaded, pictures[0], out=tmp_path / "out", image_size=24)
    check(tmp_path / "out", found)
    assert [group["anchor"] for group in found["groups"]] == ["task", "receptive", "slots"]
    assert 0 < found["models"]["tiny"]["figures"]["one.png"]["diffusion_index"] < 100
    x = torch.rand(1, 3, 24, 24)
    near = upscaler(8, 1, scale=2).eval()
    influence = attribution(near, x, (20, 20, 24, 24))
    assert influence[10:12, 10:12].min() > 0
    assert influence[0, 0] == 0, "one block of small kernels does not reach the corner"
    whole = upscaler(8, 1, scale=2, mixers="aff").eval()
    assert attribution(whole, x, (20, 20, 24, 24)).min() > 0


def test_diffusion_index() -> None:
    assert diffusion_index(torch.ones(4, 5)) == pytest.approx(100)
    one = torch.zeros(4, 5)
    one[0, 0] = 3
    assert diffusion_index(one) == pytest.approx(100 / 20)


def test_a_series(tmp_path: Path) -> None:
    file = write_waves(tmp_path / "waves.csv", 200)
    columns = len(file.read_text().splitlines()[0].split(",")) - 1
    network = ffnet_forecast(columns, 24, 8, dims=(8,), kernel_sizes=(5,), small_sizes=(3,)).eval()
    loaded = LoadedModel(network, "tiny", "forecasting")
    found = quiet(loaded, str(file), out=tmp_path / "out")
    check(tmp_path / "out", found)
    (numbers,) = found["models"]["tiny"]["figures"].values()
    assert 1 <= numbers["past_steps"] <= numbers["look_back"] == 24
    (differs,) = found["models"]["tiny"]["slots_differ_by"].items()
    assert differs[0] == "stages.0.blocks.0.token_mixer.core"
    assert differs[1] < 1e-5
    with pytest.raises(ValueError, match="neither classes nor an image size"):
        quiet(loaded, str(file), out=tmp_path / "out", target="x")
    with pytest.raises(ValueError, match="unknown layer with a mixer"):
        quiet(loaded, str(file), out=tmp_path / "out", layer="stages.7")
    linear = LoadedModel(DecomposedLinear(24, 8), "linear", "forecasting")
    found = quiet(linear, str(file), out=tmp_path / "linear")
    assert [group["anchor"] for group in found["groups"]] == ["task"], "it has no mixers"


def test_the_kernel_in_time_of_a_linear_forecaster_is_its_matrix() -> None:
    matrix = torch.randn(5, 12)
    window = torch.randn(1, 12, 3)
    kernel = time_kernel(lambda x: torch.einsum("hl,blm->bhm", matrix, x), window)
    assert torch.allclose(kernel, matrix)


def test_a_cloud(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    file = tmp_path / "cloud.npy"
    np.save(file, np.hstack([rng.uniform(0, 2, (400, 3)), rng.integers(0, 255, (400, 3))]))
    torch.manual_seed(0)
    network = PointUNet((1, 1), (8, 8), (1,), (8,), in_chans=3, num_classes=2).eval()
    facts = {"classes": ["floor", "wall"], "features": ["color"], "voxel": 0.2}
    loaded = LoadedModel(network, "tiny", "points", facts=facts)
    found = quiet(loaded, str(file), out=tmp_path / "out")
    check(tmp_path / "out", found)
    (numbers,) = found["models"]["tiny"]["figures"].values()
    assert 0 <= numbers["radius_m"] < 2
    differs = found["models"]["tiny"]["slots_differ_by"]
    assert list(differs) == ["encoder.0.blocks.0.mixer", "encoder.1.blocks.0.mixer", "decoder.0.blocks.0.mixer"]
    assert max(differs.values()) < 1e-5
    view: Any = find_task("points").view(loaded, str(file))
    influence = influence_of(view)
    away = np.linalg.norm(view.coord - view.coord[view.chosen], axis=1)
    assert influence[view.chosen] > 0
    assert float(influence[away > 1.9].sum()) <= float(influence[away < 0.5].sum())
