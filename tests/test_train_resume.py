"""A run that dies and comes back ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.train_toys import Exact, checkpoint, toy_data, toy_model, toy_recipe
from tokenmix.train import Diverged, Terminated, fit
from tokenmix.train.checkpoint import Checkpoints
from tokenmix.train.loop import _Run

STEPS = 18  # of the toy recipe
TIMES = ("seconds", "images_per_second", "data_wait", "memory_mb")  # of a row: measured, and different every time
VARIANTS = [
    {},
    {"ema_decay": None, "clip_grad": None, "optimizer": "sgd", "augment": "standard"},
    {"channels_last": True, "precision": "bfloat16", "schedule": "constant"},
]


class Killed(BaseException):
    """Stands for a death that leaves no time to save."""


def run(out, recipe=None, data=None, **options):
    lines: list[str] = []
    options = {"model": toy_model, "progress": False, "log": lines.append, "checkpoint_seconds": 0.0} | options
    return fit(recipe or toy_recipe(), data or toy_data(), out, **options), lines


def outcome(out: Path) -> dict:
    """Everything in the folder but measured times."""
    content = checkpoint(out)
    rows = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    best = json.loads((out / "best.json").read_text())
    for row in (*rows, best, content["state"]["best"], *content["state"]["history"]):
        for name in TIMES:
            row.pop(name)
    content["state"].pop("seconds")
    for name in ("waited", "worked"):
        content["watch"].pop(name)
    files = {name: (out / name).read_bytes() for name in ("best.safetensors", "steps.jsonl")}
    return {"rows": rows, "best": best, "checkpoint": content, "files": files}


def same(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return one == other


def die(monkeypatch, where: str, call: int) -> None:
    """Let the ``call``-th call of a method of the run raise ``Killed``, after its work is done."""
    inner, count = getattr(_Run, where), []

    def wrapped(self, *args, **options):
        result = inner(self, *args, **options)
        count.append(1)
        if len(count) == call:
            raise Killed
        return result

    monkeypatch.setattr(_Run, where, wrapped)


def killed(out, monkeypatch, where: str, call: int, recipe=None, **options) -> None:
    """A run that dies right after that call."""
    with monkeypatch.context() as patch:
        die(patch, where, call)
        with pytest.raises(Killed):
            run(out, recipe, **options)


@pytest.fixture(scope="module")
def unkilled(tmp_path_factory) -> list[dict]:
    outcomes = []
    for changes in VARIANTS:
        out = tmp_path_factory.mktemp("unkilled")
        run(out, toy_recipe(**changes))
        outcomes.append(outcome(out))
    return outcomes


@pytest.mark.parametrize("variant", range(len(VARIANTS)))
@pytest.mark.parametrize(("where", "call"), [("step", 1), ("step", 4), ("step", 6), ("step", 11), ("save", 2)])
def test_killed_in_a_step_or_after_a_save(tmp_path, monkeypatch, unkilled, variant, where, call) -> None:
    recipe = toy_recipe(**VARIANTS[variant])
    killed(tmp_path, monkeypatch, where, call, recipe)
    run(tmp_path, recipe)
    assert same(outcome(tmp_path), unkilled[variant])


def test_a_model_without_norms_resumes_too(tmp_path, monkeypatch) -> None:
    run(tmp_path / "whole", model=Exact)
    killed(tmp_path / "killed", monkeypatch, "step", 8, model=Exact)
    run(tmp_path / "killed", model=Exact)
    assert same(outcome(tmp_path / "killed"), outcome(tmp_path / "whole"))


@pytest.mark.parametrize(
    ("where", "call"), [("publish", 1), ("end_epoch", 1), ("save", 6), ("save", STEPS), ("step", STEPS)]
)
@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_killed_around_an_epochs_end(tmp_path, monkeypatch, unkilled, where, call, seconds) -> None:
    if where == "save" and seconds:
        call = call // 6
    killed(tmp_path, monkeypatch, where, call, checkpoint_seconds=seconds)
    recipe = (tmp_path / "recipe.json").read_bytes()
    files = ("best.safetensors", "history.jsonl", "steps.jsonl", "recipe.json")
    for name in files:  # as if the kill had come before them, or in them
        (tmp_path / name).write_bytes(b"junk")
    run(tmp_path, checkpoint_seconds=seconds)
    assert same(outcome(tmp_path), unkilled[0])
    assert (tmp_path / "recipe.json").read_bytes() == recipe


def test_a_diverged_run_does_the_skipped_steps_again(tmp_path, monkeypatch, unkilled) -> None:
    recipe = toy_recipe(max_bad_steps=3)
    with monkeypatch.context() as patch:
        inner = _Run.step

        def spoilt(self, batch, images):
            if self.state.steps >= 8:
                batch["image"].fill_(torch.nan)
            inner(self, batch, images)

        patch.setattr(_Run, "step", spoilt)
        with pytest.raises(Diverged):
            run(tmp_path, recipe)
    run(tmp_path, recipe)
    assert same(outcome(tmp_path)["checkpoint"]["task"], unkilled[0]["checkpoint"]["task"])


def test_a_finished_run_returns_at_once(tmp_path, monkeypatch, unkilled) -> None:
    first, _ = run(tmp_path)
    monkeypatch.setattr(_Run, "train_epoch", lambda self: pytest.fail("it trained"))
    again, lines = run(tmp_path)
    assert again == first
    assert lines == []
    assert same(outcome(tmp_path), unkilled[0])


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "missing"])
def test_a_broken_checkpoint_falls_back_to_the_one_before(tmp_path, monkeypatch, unkilled, damage) -> None:
    killed(tmp_path, monkeypatch, "save", 9)
    last, _ = Checkpoints(tmp_path).all()
    content = bytearray(last.read_bytes())
    if damage == "truncated":
        last.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":  # in the bytes of a tensor, where torch.load sees nothing
        weight = torch.load(last, weights_only=True)["task"]["model.0.weight"].numpy().tobytes()
        content[content.index(weight) + 5] ^= 4
        last.write_bytes(content)
    elif damage == "empty":
        last.write_bytes(b"")
    else:
        last.unlink()
    _, lines = run(tmp_path)
    assert any(f"{last} is broken" in line for line in lines) == (damage != "missing")
    assert any("continuing at epoch 2, step 3" in line for line in lines)
    assert same(outcome(tmp_path), unkilled[0])


def test_a_fresh_run_that_is_stopped_at_once_leaves_no_model_of_the_one_before(tmp_path, monkeypatch) -> None:
    run(tmp_path)
    assert (tmp_path / "best.safetensors").exists()

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(_Run, "train_epoch", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, fresh=True)
    assert not (tmp_path / "best.safetensors").exists()
    assert not (tmp_path / "best.json").exists()


def test_no_readable_checkpoint_is_one_clear_error_and_fresh_the_remedy(tmp_path, monkeypatch, unkilled) -> None:
    killed(tmp_path, monkeypatch, "save", 9)
    for path in Checkpoints(tmp_path).all():
        path.write_bytes(b"PK\3\4")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"step-00000009-epoch-0001\.pt, .*\.pt broken; start again with --fresh"):
            run(tmp_path)
    run(tmp_path, fresh=True)
    assert same(outcome(tmp_path), unkilled[0])


def test_another_recipe_or_other_data_is_refused(tmp_path) -> None:
    run(tmp_path, toy_recipe(epochs=1))
    with pytest.raises(
        ValueError,
        match=r"another recipe: optimizer.lr \(0.01 -> 0.02\), schedule.epochs \(1.0 -> 3.0\); give another out",
    ):
        run(tmp_path, toy_recipe(lr=0.02))
    with pytest.raises(ValueError, match=r"other data \(3 added: train/48, train/49, train/50\)"):
        run(tmp_path, toy_recipe(epochs=1), toy_data(train=51))
    with pytest.raises(ValueError, match="belong to another model"):
        run(
            tmp_path,
            toy_recipe(epochs=1),
            model=lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3)),
        )
    run(tmp_path, toy_recipe(epochs=1, expect="other words"))  # words change nothing
    result, _ = run(tmp_path, toy_recipe(epochs=2), fresh=True)
    assert len(result.history) == 2


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
@pytest.mark.parametrize("where", ["step", "evaluate"])
def test_signals_save_first(tmp_path, monkeypatch, unkilled, number, error, where) -> None:
    import tokenmix.train.loop as loop

    owner, name = (_Run, "step") if where == "step" else (loop, "evaluate")
    inner, count = getattr(owner, name), []

    def wrapped(*args):
        count.append(1)
        if len(count) == 2:
            signal.raise_signal(number)
        return inner(*args)

    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, wrapped)
        with pytest.raises(error) as caught:
            run(tmp_path, checkpoint_seconds=60.0)
    assert error is KeyboardInterrupt or caught.value.code == 143
    assert handlers == [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    state = checkpoint(tmp_path)["state"]
    assert (state["epoch"], state["step"]) == ((0, 2) if where == "step" else (1, 6))
    run(tmp_path)
    assert same(outcome(tmp_path), unkilled[0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("variant", range(len(VARIANTS)))
def test_resumed_on_a_gpu(tmp_path, monkeypatch, variant) -> None:
    recipe = toy_recipe(**VARIANTS[variant])
    whole, _ = run(tmp_path / "whole", recipe, device="cuda")
    killed(tmp_path / "killed", monkeypatch, "step", 9, recipe, device="cuda")
    again, _ = run(tmp_path / "killed", recipe, device="cuda")
    for one, other in zip(whole.history, again.history, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)  # its kernels need not repeat bit for bit


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_gpu_is_named(tmp_path) -> None:
    with pytest.raises(ValueError, match="no CUDA GPU"):
        run(tmp_path, device="cuda")


SCRIPT = """
import sys
from tests.train_toys import Exact, checkpoint, toy_data, toy_model, toy_recipe
from tokenmix.train import fit
print("ready", flush=True)
fit(toy_recipe(epochs=40), toy_data(), sys.argv[1], model=toy_model, checkpoint_seconds=0.0, log=lambda line: None)
"""


def test_a_real_sigkill(tmp_path) -> None:
    root = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}  # as many threads as here
    run(tmp_path / "whole", toy_recipe(epochs=40))
    out, generator = tmp_path / "killed", random.Random(0)
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(out)], cwd=root, env=environment, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        before = Checkpoints(out).newest()
        deadline = time.monotonic() + 60
        while Checkpoints(out).newest() == before and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(generator.uniform(0.0, 0.1))
        process.kill()
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
    _, lines = run(out, toy_recipe(epochs=40))
    assert any("continuing at epoch" in line for line in lines)
    assert same(outcome(out), outcome(tmp_path / "whole"))
