"""``tokenmix bench`` on tiny models: tables, files, and mistakes as one clear message each."""

from __future__ import annotations

import json
import re

import pytest
import torch

from tests.bench_cases import made_up, tiny_checkpoint
from tokenmix.bench import main as bench
from tokenmix.bench import runtimes
from tokenmix.bench.models import MeasuredModel, noun_of
from tokenmix.bench.published import published
from tokenmix.checkpoints import LoadedModel
from tokenmix.cli import bench_command, main
from tokenmix.cli.bench_tables import timing_tables
from tokenmix.pages.bench import bench_page, caveats
from tokenmix.tasks.forecasting.baselines import DecomposedLinear

FEW = ["--rounds", "1", "--seconds", "0.01", "--threads", "1"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


def test_two_models_from_start_to_end(tiny, tmp_path, capsys):
    other = tmp_path / "other.safetensors"
    other.write_bytes(tiny.read_bytes())
    out, page = tmp_path / "bench.json", tmp_path / "bench.html"
    words = ["bench", str(tiny), str(other), *FEW, "--runtimes", "pytorch", "channels_last", "--batch", "1", "4"]
    assert main([*words, "--no-memory", "--layers", "--json", str(out), "--html", str(page)]) == 0
    text = capsys.readouterr().out
    assert "no ranking in PyTorch, 1 thread, batch 4" in text  # after one round
    assert "GFLOP/s" in text
    assert "requests" not in text
    result = json.loads(out.read_text())
    assert {(row["runtime"], row["batch"]) for row in result["timings"]} == {
        (runtime, batch) for runtime in ("pytorch", "channels_last") for batch in (1, 4)
    }
    for row in result["timings"]:
        assert row["min_ms"] <= row["low_ms"] <= row["median_ms"] <= row["high_ms"]
        assert row["images_per_s"] == pytest.approx(1000 * row["batch"] / row["median_ms"])
        assert row["share"] == pytest.approx(row["limit_ms"] / row["median_ms"])
        limit, entry = result["limits"]["1"], result["models"][row["model"]]
        compute = 1000 * row["slower"] * row["batch"] * entry["gflops"] / limit["gflops"]
        assert row["limit_ms"] >= compute * (1 - 1e-9)
        if row["batch"] == 1:
            memory = row["slower"] * entry["least_mbytes"] / limit["gbytes_per_s"]
            assert row["limit_ms"] == pytest.approx(max(compute, memory))
        assert entry["weights"] == "as given"
        layers = entry["layers"]
        assert layers[-1]["name"] == "between the layers"
        assert sum(layer.get("mflops", 0.0) for layer in layers) == pytest.approx(1000 * entry["gflops"])
    assert str(tiny) in page.read_text()


@pytest.mark.slow
def test_files_of_other_runtimes(tiny, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    file = tmp_path / "model.onnx"
    assert main(["export", str(tiny), "--out", str(file)]) == 0
    capsys.readouterr()
    words = ["bench", str(tiny), str(file), *FEW, "--runtimes", "onnxruntime", "--batch", "1", "best"]
    assert main([*words, "--no-memory", "--image-size", "32", "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {(row["model"], row["best_batch"]) for row in result["timings"]} == {
        (name, best) for name in (str(tiny), str(file)) for best in (False, True)
    }
    assert all("share" in row for row in result["timings"] if row["model"] == str(tiny))


def test_training_and_growth(tiny, tmp_path, capsys):
    assert main(["bench", str(tiny), *FEW, "--train", "--batch", "4", "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["batch"] for row in result["timings"]] == [4]
    assert result["models"][str(tiny)]["peak_memory_mb"]["pytorch"] > 0
    page = tmp_path / "growth.html"
    words = [str(tiny), "--scale", "--mixers", "aff", "pool", "--maps", "4", "8", "16", "--channels", "8"]
    words += ["--sizes", "32", "48", "64", "--batches", "1", "2", "--html", str(page)]
    assert main(["bench", *words, *FEW]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^aff +map +-?\d", text, re.MULTILINE)
    assert re.search(r"tiny.safetensors +image +-?\d", text)
    assert "grows with the" in page.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name at least one model"),
        (["repvit_m0_8"], "did you mean 'repvit_m0_9'"),
        (["affnet_ett"], "did you mean 'affnet_et'"),
        (["missing.onnx"], "no such file: missing.onnx"),
        (["affnet_et", "affnet_et"], "named 2 times"),
        (["affnet_et", "--runtimes", "onnxrutime"], "did you mean 'onnxruntime'"),
        (["affnet_et", "--runtimes", "cuda_graph"], "CUDA graphs need a GPU"),
        (["affnet_et", "--threads", "many"], "--threads takes positive numbers, or all, not 'many'"),
        (["affnet_et", "--batch", "0"], "--batch takes positive numbers, or best"),
        (["affnet_et", "--maps", "8"], "without --scale there is no --maps"),
        (["affnet_et", "--train", "--layers"], "--train takes no --layers"),
        (["affnet_et", "--train", "--scale"], "choose one"),
        (["--scale", "--mixers", "afff"], "did you mean 'aff'"),
        (["--scale", "--maps", "8"], "at least two different map sizes"),
        (["affnet_et", "--scale", "--maps", "8", "16"], "--maps is for what is not measured: name --mixers too"),
        (
            ["--scale", "--mixers", "aff", "--sizes", "32", "48"],
            "--sizes is for what is not measured: name a model too",
        ),
        (["affnet_et", "--rounds", "0"], "--rounds: the number must be from 1 to 1,000,000, not 0"),
        (["vit_tiny_patch16_224", "--image-size", "64"], "cannot take images of 64 x 64 pixels"),
    ],
)
def test_mistakes(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_batch_is_measured_once() -> None:
    assert bench_command._numbers("batch", ["1", "4,1", "best"], "best") == (1, 4, 0)
    assert bench_command._numbers("batch", None, "best") == ()


def test_what_is_counted_is_called_by_its_name(tmp_path) -> None:
    """Series are no images; of models for different tasks they are samples."""
    linear = LoadedModel(DecomposedLinear(24, 8), "linear", "forecasting")
    net = LoadedModel(torch.nn.Identity(), "net", "classification")
    series, pictures = (MeasuredModel(one.name, one, None, (32, 32), 3, None, None) for one in (linear, net))
    assert [noun_of(group) for group in ([series], [pictures], [series, pictures])] == ["windows", "images", "samples"]
    assert "windows/s" in timing_tables(made_up(noun="windows"))[0]
    assert "windows/s" in bench_page(made_up(noun="windows"))


def test_missing_packages_say_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(runtimes.importlib.util, "find_spec", lambda name: None)
    assert main(["bench", "affnet_et", "--runtimes", "openvino"]) == 2
    assert "pip install 'tokenmix[openvino]'" in capsys.readouterr().err
    chosen, reasons = runtimes.choose(None, torch.device("cpu"))
    assert chosen == ["pytorch", "channels_last"]
    assert "tokenmix[executorch]" in reasons["executorch"]
    assert "--runtimes all" in reasons["compile"]
    assert "GPU" in reasons["cuda_graph"]
    assert runtimes.missing("onnxruntime", torch.device("cuda")) == "ONNX Runtime is measured on the CPU only"


def test_overlapping_models_are_not_ranked():
    assert caveats(made_up()) == []
    tied = made_up()
    for row, other in zip(tied["timings"], ("<two>", "one"), strict=True):
        row |= {"place": 1, "tied_with": [other]}
    assert caveats(tied) == [
        "no ranking in PyTorch, 1 thread, batch 1: these models cannot be told apart (the intervals overlap)"
    ]
    third = {**tied["timings"][0], "model": "three", "place": 3, "tied_with": []}
    tied["timings"].append(third)
    assert caveats(tied) == ["cannot be told apart in PyTorch, 1 thread, batch 1: one and <two>"]


def test_a_machine_that_drifts_or_is_busy_is_named():
    drifted = made_up(clock={"drift": {"1": 0.2}, "limit": 0.05, "drifted": True})
    assert "drifted by 20 %" in caveats(drifted)[0]
    busy = made_up(load_average={"before": [3.5, 1.0, 1.0], "after": None})
    assert "load 3.5 on 4 cores" in caveats(busy)[0]


def test_the_page_shows_published_accuracies_and_escapes_names():
    page = bench_page(made_up())
    assert "published top-1, %" in page
    assert "<two>" not in page
    assert "a <paper>" not in page
    assert page.count('chart scatter"') == 2  # for a screen, and for a phone
    assert not re.search(r'(src|href)="(?!#|data:)', page)


def test_published_accuracies_belong_to_a_size():
    assert published("casvit_xs", (384, 384))["top1"] > published("casvit_xs", (224, 224))["top1"]
    assert published("casvit_xs", (200, 200)) is None
    assert published("mixernet_pico", (224, 224)) is None
    distilled = published("fastvit_t8.apple_dist_in1k", (256, 256))
    assert (distilled["top1"], distilled["note"]) == (77.2, "distilled")
    assert published("fastvit_t8.no_such_tag", (256, 256)) is None


@pytest.mark.slow
@pytest.mark.skipif(runtimes.compile_unavailable() is not None, reason="no C++ compiler")
@pytest.mark.parametrize("runtime", ["compile", "frozen", "aoti"])
def test_compiled_models_take_the_best_batch_of_plain_ones(runtime, tiny):
    found = bench.bench_inference(
        [str(tiny)],
        runtimes=["pytorch", runtime],
        threads=[1],
        rounds=3,
        seconds=0.1,
        roofline_seconds=0.01,
        largest_batch=4,
        layers=False,
        memory=False,
    )
    assert [row["best_batch"] for row in found["timings"] if row["runtime"] == runtime] == [False, True]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_events_and_graphs_on_a_gpu(tiny):
    found = bench.bench_inference(
        [str(tiny)], device="cuda", runtimes=["pytorch", "cuda_graph"], rounds=3, seconds=0.1, memory=False
    )
    assert {row["runtime"] for row in found["timings"]} == {"pytorch", "cuda_graph"}
