"""What `compare` accepts, how it names it, and that nothing wrong is kept: no training here."""

from __future__ import annotations

import functools
import math
import shlex
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from tests.comparison_results import made_up
from tests.test_files import HOLD
from tokenmix.cli import compare_command, main
from tokenmix.comparison import compare, spec_name, training
from tokenmix.comparison.request import Request, claim, named_specs
from tokenmix.comparison.results import command_line, decided
from tokenmix.jobs import Job
from tokenmix.pages.comparison import comparison_page
from tokenmix.pages.conclusions import headline
from tokenmix.recipes import make_recipe
from tokenmix.tasks import find_task
from tokenmix.train import FitResult

pytest.importorskip("sklearn")
pytest.importorskip("onnxruntime")


class Stop(Exception):
    """Ends a comparison where its training would begin."""


@pytest.fixture
def stopped(monkeypatch):
    """`compare` that only does what comes before training."""

    def stop(*_):
        raise Stop

    monkeypatch.setattr("tokenmix.jobs.local.attempt", stop)
    return functools.partial(compare, log=lambda line: None)


def conv(dim: int, kernel: int = 3) -> nn.Module:
    """A user's own mixer as a function."""
    return nn.Conv2d(dim, dim, kernel, padding=kernel // 2)


def test_a_refused_request_leaves_no_claim_on_the_folder(stopped, tmp_path):
    for wrong in ({"data": "no-such-folder"}, {"settings": ["lr=-1"]}, {"skeleton": "resnet18"}):
        with pytest.raises(ValueError, match=r"no-such-folder|lr|takes no mixers"):
            stopped(**{"data": "digits", **wrong}, mixers="pool", out=tmp_path)
        assert not (tmp_path / "compare.json").exists()
    with pytest.raises(Stop):
        stopped("digits", "pool", out=tmp_path)
    with pytest.raises(ValueError, match=r"recipe\.optimizer\.lr"):
        stopped("digits", "pool", out=tmp_path, settings=["lr=1e-4"])
    with pytest.raises(Stop):
        stopped("digits", ["aff", "pool"], out=tmp_path, seeds=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"settings": ["model=mixernet_tiny"]}, "--skeleton"),
        ({"settings": ["model_args.mixers=aff"]}, "--mixers"),
        ({"settings": ["data=cifar10"]}, "first argument"),
        ({"batch_sizes": [0]}, "positive"),
        ({"batch_sizes": []}, "positive"),
        ({"measure_seconds": -1.0}, "positive"),
        ({"timed_in": "pytorch"}, "nothing is timed in pytorch to choose widths by"),
        ({"device": "gpu"}, "device 'gpu'"),
        ({"mixers": "aff,aff"}, "2 mixers given for 4 stages"),
        ({"mixers": [3]}, "not by int"),
        ({"mixers": [conv, conv]}, "named 2 times"),
    ],
)
def test_mistakes_are_named_before_any_work(stopped, tmp_path, arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        stopped(**{"data": "digits", "mixers": "pool", **arguments}, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_path_object_is_a_data_set(stopped, tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(ValueError, match="no class folders"):
        stopped(tmp_path / "photos", "pool", out=tmp_path / "out")


def test_two_data_sets_are_one_too_many(capsys, monkeypatch):
    monkeypatch.setattr(compare_command, "compare", lambda data, *args, **options: pytest.fail(data))
    assert main(["compare", "photos", "--data", "other"]) == 2
    assert "photos and --data other are two data sets" in capsys.readouterr().err


def test_a_fresh_start_leaves_what_is_at_work(tmp_path):
    pytest.importorskip("fcntl")
    run = tmp_path / "pool" / "seed-0"
    request = Request("digits", ("pool",), None, make_recipe("digits"), 1, None)
    with subprocess.Popen([sys.executable, "-c", HOLD, run], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=r"at work in .*seed-0"):
            claim(tmp_path, request, fresh=True)
        assert run.exists()
        other.kill()
    claim(tmp_path, request, fresh=True)
    assert not run.exists()


def test_names_of_objects():
    assert spec_name(conv) == f"{__name__}:conv"
    assert spec_name(functools.partial(conv, kernel=5)) == f"{__name__}:conv(kernel=5)"
    assert spec_name(functools.partial(conv, 3, kernel=5)) == f"{__name__}:conv(3, kernel=5)"
    assert spec_name(["aff", conv]) == f"aff,{__name__}:conv"


def recipe(skeleton):
    return make_recipe("basic", [f"model={skeleton}", "model_args={}"])


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("aff,pool", ["aff", "pool"]),
        ("aff(groups=4),pool", ["aff(groups=4)", "pool"]),
        ("aff,aff,pool,pool", ["aff,aff,pool,pool"]),
        ("[aff,pool,dsm,swift]", ["aff,pool,dsm,swift"]),
        ("[aff,pool,dsm,swift],aff", ["aff,pool,dsm,swift", "aff"]),
    ],
)
def test_one_text_lists_mixers_or_stages(text, names):
    assert list(named_specs(text, recipe("mixernet_pico"))) == names


def test_specs_have_as_many_parts_as_the_skeleton_has_stages_for_them():
    assert list(named_specs(["aff,pool,dsm"], recipe("affnet_et"))) == ["aff,pool,dsm"]
    with pytest.raises(ValueError, match="4 mixers given for 3 stages"):
        named_specs("[aff,pool,dsm,aff]", recipe("affnet_et"))


@pytest.mark.parametrize("mixers", [("aff", "pool"), ("aff,pool,dsm,swift",), ("aff,aff,pool,pool", "aff")])
def test_the_command_line_asks_for_the_same(mixers, monkeypatch):
    asked = {}

    def note(data, mixers, **options):
        asked.update(options, data=data, mixers=list(named_specs(mixers, recipe("mixernet_pico"))))
        raise ValueError("enough")

    monkeypatch.setattr(compare_command, "compare", note)
    options = {"recipe": None, "settings": ["epochs=3", "image_size=(16, 24)"], "batch_sizes": (1, 4), "compile": True}
    request = Request("my photos", mixers, "mixernet_tiny", make_recipe("basic"), 2, "macs")
    settings = options.pop("settings")
    asked = {**options, "measure_seconds": 5.0, "device": "cpu", "workers": 2}
    words = shlex.split(command_line(request, "my runs/x", settings, asked, compare.__kwdefaults__))
    assert main(words[1:]) == 2
    wanted = {"data": "my photos", "mixers": list(mixers), "skeleton": "mixernet_tiny", "seeds": 2, "match": "macs"}
    wanted |= {**asked, "out": "my runs/x", "settings": settings}
    assert {name: asked[name] for name in wanted} == wanted


def test_stages_by_object_are_built(stopped, tmp_path):
    stages = ["pool", functools.partial(conv, kernel=5), conv, torch.nn.Identity]
    with pytest.raises(Stop):
        stopped("digits", [stages, "pool"], out=tmp_path, match="params")


class Odd:
    """A task whose numbers some networks do not have."""

    name = noun = headline = "error"
    lower_is_better, headline_is_share = True, False

    def timed(self, loaded, data, batch):
        return nn.Identity(), (torch.zeros(1, 3),)

    def own_widths(self, recipe):
        return (8,)

    def compared(self, judging):
        return {}

    def exported(self):
        return ()

    def shown(self, name, value):
        return f"{value}"


def test_numbers_that_a_seed_does_not_have_are_ranked_last(tmp_path, monkeypatch):
    """A validation without its headline, and a test that is NaN, cost neither the results nor the other seeds."""
    tested = iter([math.nan, 3.0])
    judging = SimpleNamespace(item_scores=lambda: None)
    monkeypatch.setattr(training, "find_task", lambda name: Odd())
    monkeypatch.setattr(training, "open_model", lambda weights: SimpleNamespace(model=nn.Identity(), weights=weights))
    monkeypatch.setattr(
        training,
        "judge",
        lambda *args, **options: SimpleNamespace(numbers={"error": next(tested)}, judging=judging),
    )
    jobs, results = [], []
    for seed, value in enumerate((None, 2.0)):
        (weights := tmp_path / f"{seed}.safetensors").write_text(str(seed))
        jobs.append(Job(tmp_path / "aff" / f"seed-{seed}", make_recipe("digits"), 0))
        results.append(FitResult({"val_error": value, "weights_sha256": "1"}, [], 1.0, weights))
    data = SimpleNamespace(test=range(4), facts={})
    found = training.judge_runs("aff", "aff", jobs, results, data, lambda line: None)
    assert (tmp_path / "aff" / "best.safetensors").read_text() == "1"
    assert found.entry["val_error"] == 2.0
    assert found.entry["test_error_per_seed"][1] == 3.0


def test_a_mixer_with_a_score_that_is_no_number_leaves_no_winner():
    scores = {"pool": np.zeros((1, 40)), "aff": np.full((1, 40), 100.0), "dsm": np.full((1, 40), 100.0)}
    told = {"item_noun": "images", "chained_items": False}
    trained = {name: SimpleNamespace(scores=values, **told) for name, values in scores.items()}
    task = find_task("classification")
    trained["dsm"].scores = None
    assert decided(task, trained) | {"winner": "aff", "left_out": []} == decided(task, trained)
    trained["dsm"].scores = np.array([[math.inf] + [100.0] * 39])
    found = decided(task, trained)
    assert (found["winner"], found["left_out"]) == (None, ["dsm"])
    results = made_up(3) | {"statistics": found}
    assert "every other" not in headline(results)
    assert "Compared with none, since their scores are not all finite: dsm." in comparison_page(results)
