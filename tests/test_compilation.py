"""`tokenmix.compile`: what it returns computes what the model computes, whatever was chosen, and says what it did."""

from __future__ import annotations

import dataclasses
import json
import os
import warnings
from collections import OrderedDict
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from torch import Tensor, nn

import tokenmix
from tests.export_cases import conv_net, opened, opened_dense, small_net
from tests.scramble import scramble
from tokenmix.bench.interleaved import Timing
from tokenmix.compilation import main as compilation
from tokenmix.compilation import ways
from tokenmix.compilation.choice import Candidate, choose
from tokenmix.compilation.main import difference
from tokenmix.export.aoti import no_compiler

QUICK = ("pytorch", "reparameterized", "channels_last")
needs_compiler = pytest.mark.skipif(no_compiler() is not None, reason="no C++ compiler")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def fastest(monkeypatch: pytest.MonkeyPatch):
    """Decides who is the fastest, without a clock."""

    def decide(*order: str) -> None:
        def timed(calls, **options):
            for call in calls.values():
                call()
            ranks = {name: order.index(name) if name in order else 99 for name in calls}
            return {name: Timing(1.0 + rank, 1.0, 0.9, 1.1, 9) for name, rank in ranks.items()}

        monkeypatch.setattr(compilation, "interleave", timed)

    return decide


@pytest.fixture
def file_way(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a way that leaves a file, which takes no time to write."""

    def load(job: ways.Job, folder: Path) -> ways.Run:
        shift = float((folder / "model.onnx").read_text())
        return lambda x: [job.model(x) + shift]

    def start(job: ways.Job, folder: Path) -> ways.Run:
        (folder / "model.onnx").write_text("1e-7")
        return load(job, folder)

    monkeypatch.setattr(compilation, "WAYS", {**ways.WAYS, "onnxruntime": ways.Way(start, load)})
    return "onnxruntime"


class Structured(nn.Module):
    """Two inputs, and an output of tensors in containers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor, y: Tensor) -> dict[str, object]:
        out = self.layer(x + y)
        return OrderedDict(logits=out, parts=[out.argmax(1), (x, y.sum())])


@pytest.mark.parametrize("chosen", QUICK)
def test_every_eager_way_computes_the_model(chosen: str, fastest, tmp_path: Path) -> None:
    fastest(chosen)
    model, x = small_net("aff").train(), noise(2, 3, 32, 32)
    before = [module.training for module in model.modules()]
    fast = tokenmix.compile(model, x, candidates=QUICK, cache=tmp_path)
    assert [module.training for module in model.modules()] == before
    assert fast.choice.name == chosen
    found = fast(noise(2, 3, 32, 32, seed=5))
    assert not found.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(found, model.eval()(noise(2, 3, 32, 32, seed=5)), atol=1e-5, rtol=1e-5)


def test_outputs_keep_their_structure(fastest) -> None:
    fastest("reparameterized")
    model = Structured()
    x, y = noise(2, 4), noise(2, 4, seed=1)
    some = (*QUICK, "onnxruntime")
    fast = tokenmix.compile(model, (x, y), candidates=some, cache=False)
    found, expected = fast(x, y), model(x, y)
    assert type(found) is OrderedDict
    assert list(found) == ["logits", "parts"]
    torch.testing.assert_close(found["logits"], expected["logits"])
    assert torch.equal(found["parts"][0], expected["parts"][0])
    assert isinstance(found["parts"][1], tuple)
    reasons = {one.name: one.reason for one in fast.choice.candidates}
    assert reasons["onnxruntime"] == "a file takes one tensor, and the model 2"
    assert "no batch of maps" in reasons["channels_last"]


def test_other_inputs_run_in_eager_and_are_told_once(fastest) -> None:
    fastest("reparameterized")
    model = conv_net().eval()
    fast = tokenmix.compile(model, noise(1, 3, 16, 16), candidates=QUICK, cache=False)
    for other in (noise(3, 3, 16, 16), noise(1, 3, 20, 12), noise(1, 3, 16, 16).double()):
        double = other.dtype is torch.float64
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            if double:
                with pytest.raises(RuntimeError):  # as the model itself does
                    fast(other)
            else:
                torch.testing.assert_close(fast(other), model(other).detach())
                fast(other)
        assert [str(one.message)[:26] for one in told] == ["run in eager PyTorch, whic"]
        assert "compiled for float32 of 1 x 3 x 16 x 16 on cpu" in str(told[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast(noise(1, 3, 16, 16))


def test_gradients_and_training_are_refused(fastest) -> None:
    fastest("pytorch")
    fast = tokenmix.compile(conv_net(), noise(1, 3, 16, 16), candidates=("pytorch",), cache=False)
    with pytest.raises(ValueError, match="no gradients"):
        fast(noise(1, 3, 16, 16).requires_grad_())
    with pytest.raises(ValueError, match="cannot be trained"):
        fast.train()
    with pytest.raises(ValueError, match="load them into the model"):
        fast.load_state_dict(conv_net().state_dict())
    with pytest.raises(ValueError, match="stays where and what it is"):
        fast.half()
    assert fast.eval() is fast
    assert not fast.eager.training


def test_a_way_that_computes_something_else_is_left_out(fastest, monkeypatch) -> None:
    fastest("reparameterized")

    def wrong(job: ways.Job, folder: Path) -> ways.Run:
        return lambda x: [job.model(x) * 1.001]

    def failing(job: ways.Job, folder: Path) -> ways.Run:
        raise RuntimeError("a compiler's words\nand many more")

    monkeypatch.setattr(
        compilation, "WAYS", {**ways.WAYS, "reparameterized": ways.Way(wrong), "channels_last": ways.Way(failing)}
    )
    monkeypatch.setenv("COLUMNS", "200")
    fast = tokenmix.compile(conv_net(), noise(1, 3, 16, 16), candidates=QUICK, cache=False)
    assert fast.choice.name == "pytorch"
    _, merged, last = fast.choice.candidates
    assert merged.reason == "it differs by more than 0.0001"
    assert merged.difference == pytest.approx(1e-3, rel=0.01)
    assert last.reason == "a compiler's words"
    assert "left out: a compiler's words" in str(fast.choice)


def test_only_the_last_digits_may_differ() -> None:
    x = torch.tensor([1.0, -4.0])
    assert difference([x + torch.tensor([0.0, 0.002])], [x]) == pytest.approx(0.0005, rel=1e-3)
    assert difference([x, x * 0], [x, x * 0]) == 0.0
    infinite = float("inf")
    for found, expected in [
        ([x], [x, x]),
        ([x[None]], [x]),
        ([x.double()], [x]),
        ([torch.tensor([1, 2])], [torch.tensor([1, 3])]),
        ([torch.tensor([float("nan")])], [torch.tensor([1.0])]),
        ([torch.tensor([1.0, infinite])], [torch.tensor([1.0, -infinite])]),
        ([torch.tensor([1.0, float("nan")])], [torch.tensor([1.0, infinite])]),
    ]:
        assert difference(found, expected) == infinite
    odd = torch.tensor([1.0, infinite, float("nan")])
    assert difference([odd.clone()], [odd]) == 0.0
    assert difference([torch.zeros(0, 3)], [torch.zeros(0, 3)]) == 0.0


def test_the_simplest_is_taken_among_equals() -> None:
    rows = [Candidate("pytorch", 30.0), Candidate("onnxruntime", 10.2), Candidate("aoti", 10.0), Candidate("x", None)]
    assert choose(rows) == (
        "onnxruntime",
        "ONNX Runtime, 10.2 ms, is 2.94 times as fast as PyTorch, is as fast as AOTInductor (10 ms) and simpler",
    )
    assert choose([rows[0], dataclasses.replace(rows[2], ms=29.5)])[0] == "pytorch"
    assert choose([rows[0]]) == ("pytorch", "PyTorch, 30 ms, is the fastest")


def test_where_nothing_can_be_kept_it_is_said_and_the_model_is_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    model, x = conv_net(), noise(1, 3, 16, 16)
    with pytest.warns(UserWarning, match="the choice cannot be kept for the next time"):
        fast = tokenmix.compile(model, x, candidates=("pytorch",), cache=tmp_path / "file" / "cache")
    torch.testing.assert_close(fast(x), model.eval()(x).detach())


def test_a_choice_is_kept_for_the_same_model_only(fastest, file_way: str, tmp_path: Path) -> None:
    fastest(file_way)
    some = ("pytorch", file_way)
    model, x = conv_net(), noise(1, 3, 16, 16)
    first = tokenmix.compile(model, x, candidates=some, cache=tmp_path)
    again = tokenmix.compile(model, x, candidates=some, cache=tmp_path)
    assert (first.choice.cached, again.choice.cached) == (False, True)
    assert again.choice == dataclasses.replace(first.choice, cached=True)
    assert "from the cache" in str(again.choice)
    torch.testing.assert_close(again(x), model.eval()(x).detach(), atol=1e-5, rtol=1e-5)
    assert not tokenmix.compile(model, x, candidates=some, cache=tmp_path, fresh=True).choice.cached
    with torch.no_grad():
        model[-1].bias += 1.0
    assert not tokenmix.compile(model, x, candidates=some, cache=tmp_path).choice.cached
    assert not tokenmix.compile(model, x[..., :8], candidates=some, cache=tmp_path).choice.cached
    relu = nn.Sequential(*[nn.Sequential(*[nn.ReLU() if isinstance(m, nn.GELU) else m for m in model[0]]), *model[1:]])
    assert not tokenmix.compile(relu, x, candidates=some, cache=tmp_path).choice.cached  # the same weights


def test_a_kept_file_that_was_changed_is_not_used(fastest, file_way: str, tmp_path: Path) -> None:
    fastest(file_way)
    some = ("pytorch", file_way)
    model, x = conv_net(), noise(1, 3, 16, 16)
    tokenmix.compile(model, x, candidates=some, cache=tmp_path)
    (file,) = tmp_path.glob("*/model.onnx")
    file.write_text("2e-7")
    with pytest.warns(UserWarning, match="measuring anew: .*another SHA-256"):
        assert not tokenmix.compile(model, x, candidates=some, cache=tmp_path).choice.cached
    (note,) = tmp_path.glob("*/choice.json")
    note.write_text(json.dumps({"schema": "tokenmix.compiled/1"}))
    with pytest.warns(UserWarning, match="measuring anew: .*is damaged"):
        assert not tokenmix.compile(model, x, candidates=some, cache=tmp_path).choice.cached


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no POSIX permissions")
def test_a_folder_that_others_can_write_in_is_refused(fastest, tmp_path: Path) -> None:
    fastest("pytorch")
    model, x = conv_net(), noise(1, 3, 16, 16)
    tokenmix.compile(model, x, candidates=("pytorch",), cache=tmp_path)
    (entry,) = (path for path in tmp_path.iterdir() if path.is_dir())
    entry.chmod(0o770)
    with pytest.warns(UserWarning, match="can be changed by others"), pytest.raises(ValueError, match="chmod go-w"):
        tokenmix.compile(model, x, candidates=("pytorch",), cache=tmp_path)
    tmp_path.chmod(0o777)
    with pytest.raises(ValueError, match="can be changed by others"):
        tokenmix.compile(model, x, candidates=("pytorch",), cache=tmp_path)


def test_time_that_was_used_up_leaves_out_and_more_time_measures_anew(fastest, tmp_path: Path, monkeypatch) -> None:
    fastest("pytorch")
    model, x = conv_net(), noise(1, 3, 16, 16)
    choice = tokenmix.compile(model, x, candidates=QUICK, seconds=0.001, cache=tmp_path).choice
    assert "the time was used up: seconds=0.002 is more" in {one.reason for one in choice.candidates}
    assert tokenmix.compile(model, x, candidates=QUICK, seconds=0.001, cache=tmp_path).choice.cached
    more = tokenmix.compile(model, x, candidates=QUICK, seconds=100, cache=tmp_path).choice
    assert not more.cached
    assert [one.reason for one in more.candidates] == ["", "", ""]


def test_without_a_compiler_and_packages_eager_is_left(fastest, monkeypatch) -> None:
    fastest("pytorch")
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(ways.importlib.util, "find_spec", lambda name: None)
    choice = tokenmix.compile(conv_net(), noise(1, 3, 16, 16), cache=False).choice
    reasons = {one.name: one.reason for one in choice.candidates}
    assert reasons["aoti"] == reasons["frozen"] == "it needs a C++ compiler, and none is installed"
    assert "pip install 'tokenmix[openvino]'" in reasons["openvino"]
    assert choice.name == "pytorch"


@pytest.mark.parametrize("chosen", ["reparameterized", pytest.param("onnxruntime", marks=pytest.mark.slow)])
def test_any_batch(chosen: str, fastest, tmp_path: Path) -> None:
    if chosen == "onnxruntime":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    fastest(chosen)
    model = conv_net().eval()
    options = {"dynamic_batch": True, "candidates": (chosen, "frozen"), "cache": tmp_path}
    fast = tokenmix.compile(model, noise(1, 3, 16, 16), **options)
    assert fast.choice.holds_for == "float32 of any x 3 x 16 x 16 on cpu"
    assert fast.choice.candidates[-1].reason == "it is compiled for one batch size, and any was asked for"
    for count in (1, 2, 5):
        x = noise(count, 3, 16, 16).to(memory_format=torch.channels_last)
        torch.testing.assert_close(fast(x), model(x).detach(), atol=1e-5, rtol=1e-5)


def test_attributes_are_those_of_the_model(fastest) -> None:
    fastest("reparameterized")
    fast = tokenmix.compile(small_net("pool"), noise(1, 3, 32, 32), candidates=QUICK, cache=False)
    assert fast.num_classes == 5
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        fast.nothing  # noqa: B018


def test_predictions_of_a_compiled_model(fastest, tmp_path: Path, monkeypatch) -> None:
    fastest("reparameterized")
    monkeypatch.setattr(compilation, "WAYS", {name: ways.WAYS[name] for name in QUICK})
    monkeypatch.setenv("TOKENMIX_DATA", str(tmp_path / "data"))
    Image.new("RGB", (40, 30), (200, 100, 50)).save(tmp_path / "one.png")
    loaded = opened(small_net("aff"), (32, 32), classes=list("abcde"))
    (plain,) = tokenmix.predict(loaded, tmp_path / "one.png")
    (fast,) = tokenmix.predict(loaded, tmp_path / "one.png", compile=True)
    assert [name for name, _ in fast["top"]] == [name for name, _ in plain["top"]]
    assert [share for _, share in fast["top"]] == pytest.approx([share for _, share in plain["top"]], rel=1e-4)
    assert len(list((tmp_path / "data" / "compiled").glob("*/choice.json"))) == 1
    dense = opened_dense("semantic_fpn", "mixernet_pico", (64, 64))
    with pytest.raises(ValueError, match="takes pictures of all sizes"):
        tokenmix.predict(dense, tmp_path / "one.png", compile=True)


def test_mistakes_are_told() -> None:
    model, x = conv_net(), noise(1, 3, 16, 16)
    with pytest.raises(ValueError, match="did you mean 'onnxruntime'"):
        tokenmix.compile(model, x, candidates=("onxruntime",))
    with pytest.raises(ValueError, match="must be a tensor"):
        tokenmix.compile(model, [3])
    with pytest.raises(ValueError, match="seconds must be"):
        tokenmix.compile(model, x, seconds=0)

    class Text(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, str]:
            return x, "text"

    with pytest.raises(ValueError, match="Text must return tensors"):
        tokenmix.compile(Text(), x, cache=False)


@pytest.mark.slow
def test_outputs_of_a_file_keep_their_structure(fastest) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    fastest("onnxruntime")

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> dict[str, object]:
            out = self.layer(x)
            return {"maps": out, "means": [out.mean((2, 3)), out.argmax(1)]}

    model, x = Two(), noise(2, 3, 8, 8)
    fast = tokenmix.compile(model, x, candidates=("onnxruntime",), cache=False)
    assert fast.choice.name == "onnxruntime"
    found, expected = fast(x), model(x)
    assert list(found) == ["maps", "means"]
    torch.testing.assert_close(found["maps"], expected["maps"].detach(), atol=1e-5, rtol=1e-5)
    assert torch.equal(found["means"][1], expected["means"][1])


@pytest.mark.slow
@needs_compiler
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("chosen", ["aoti", "frozen", "openvino"])
@pytest.mark.parametrize("name", ["mixernet", "resnet10t"])
def test_generated_code_and_openvino(chosen: str, name: str, fastest, tmp_path: Path) -> None:
    if chosen == "openvino":
        pytest.importorskip("openvino")
    fastest(chosen)
    model = small_net("aff") if name == "mixernet" else scramble(timm.create_model(name, num_classes=5)).eval()
    x = noise(1, 3, 32, 32)
    fast = tokenmix.compile(model, x, seconds=600, candidates=(chosen,), cache=tmp_path)
    again = tokenmix.compile(model, x, seconds=600, candidates=(chosen,), cache=tmp_path)
    assert (fast.choice.name, again.choice.name, again.choice.cached) == (chosen, chosen, True)
    with torch.inference_mode(), torch.compiler.set_stance("fail_on_recompile"):
        for run in (fast, again):
            for other in (noise(1, 3, 32, 32, seed=3), noise(1, 3, 32, 32).to(memory_format=torch.channels_last)):
                torch.testing.assert_close(run(other), model(other), atol=1e-4, rtol=1e-4)
