"""The parts of training, and what a run writes."""

from __future__ import annotations

import json
import math
import re

import pytest
import torch
from torch import nn

from tests.train_toys import checkpoint, toy_data, toy_model, toy_recipe
from tokenmix.evaluate import evaluate
from tokenmix.tasks.classification.loader import Loader
from tokenmix.tasks.classification.objective import ClassificationObjective
from tokenmix.train import Diverged, fit, load_run
from tokenmix.train.ema import Average
from tokenmix.train.log import Progress, clock
from tokenmix.train.optimizer import make_optimizer, parameter_groups
from tokenmix.train.schedule import learning_rate


def run(out, recipe=None, data=None, **options):
    """Train a toy; returns the result and the log."""
    lines: list[str] = []
    options = {"model": toy_model, "progress": False, "log": lines.append} | options
    return fit(recipe or toy_recipe(), data or toy_data(), out, **options), lines


def test_schedules() -> None:
    def rates(schedule: str, total: int = 14) -> list[float]:
        settings = {"total": total, "warmup": 4, "lr": 1.0, "min_lr": 0.1, "schedule": schedule}
        return [learning_rate(step, **settings) for step in range(total)]

    for schedule in ("cosine", "linear", "constant"):
        assert rates(schedule)[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates("constant")[5:] == [1.0] * 9
    assert rates("linear")[9] == pytest.approx(0.55)
    assert rates("cosine")[9] == pytest.approx(0.55)
    assert rates("cosine")[13] == pytest.approx(0.1 + 0.9 * (1 + math.cos(0.9 * math.pi)) / 2)
    assert rates("cosine", total=4) == [0.25, 0.5, 0.75, 1.0]
    with pytest.raises(ValueError, match="did you mean 'cosine'"):
        rates("cosin")


class Exempt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(2, 3))
        self.weight = nn.Parameter(torch.zeros(2, 3))
        self.bias = nn.Parameter(torch.zeros(2, 3))

    def no_weight_decay(self) -> set[str]:
        return {"tab*"}


def test_what_does_not_decay() -> None:
    model = nn.ModuleDict({"conv": nn.Conv2d(3, 4, 3), "norm": nn.BatchNorm2d(4), "own": Exempt()})
    model["conv"].weight.requires_grad_(False)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, free = parameter_groups(model, 0.3)
    assert [names[id(p)] for p in decayed["params"]] == ["own.weight"]
    assert [names[id(p)] for p in free["params"]] == ["conv.bias", "norm.weight", "norm.bias", "own.table", "own.bias"]
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.3, 0.0)


def test_optimizers() -> None:
    model = Exempt()
    adamw = make_optimizer(toy_recipe(betas=(0.8, 0.95)), model)
    assert (type(adamw), adamw.defaults["betas"], adamw.defaults["fused"]) == (torch.optim.AdamW, (0.8, 0.95), True)
    sgd = make_optimizer(toy_recipe(optimizer="sgd", momentum=0.8), model)
    assert (type(sgd), sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (torch.optim.SGD, 0.8, True)
    model.complex = nn.Parameter(torch.zeros(2, 2, dtype=torch.complex64))
    assert not make_optimizer(toy_recipe(), model).defaults["fused"]
    with pytest.raises(ValueError, match="no trainable parameter"):
        make_optimizer(toy_recipe(), nn.ReLU())


def test_average_of_weights() -> None:
    task = ClassificationObjective(toy_model(), num_classes=3)
    task.model.register_parameter("filter", nn.Parameter(torch.ones(2, dtype=torch.complex64) * 1j))
    average = Average(task, 0.5)
    start = [p.clone() for p in task.parameters()]
    with torch.no_grad():
        for parameter in task.parameters():
            parameter += 1
    task.model[1].num_batches_tracked += 7
    average.update(task, 0)  # the first decay is (1 + 0) / (10 + 0)
    for before, after in zip(start, average.objective.parameters(), strict=True):
        torch.testing.assert_close(after, before + 0.9)
        assert not after.requires_grad
    assert average.objective.model[1].num_batches_tracked == 7
    average.update(task, 1000)
    for before, after in zip(start, average.objective.parameters(), strict=True):
        torch.testing.assert_close(after, before + 0.95)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ema_decay": None, "clip_grad": None, "optimizer": "sgd", "schedule": "linear", "lr": 0.1},
        {"precision": "bfloat16", "channels_last": True},
    ],
)
def test_it_learns_and_writes_what_it_should(tmp_path, changes) -> None:
    recipe, data = toy_recipe(epochs=8, **changes), toy_data()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    result, lines = run(tmp_path, recipe, data)
    assert torch.equal(torch.get_rng_state(), state)
    assert lines == []
    history = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert history == result.history
    assert [row["epoch"] for row in history] == list(range(1, 9))
    measured = {"seconds", "images_per_second", "data_wait", "memory_mb"}
    assert set(history[0]) == {"epoch", "step", "loss", "lr"} | measured | {
        *("val_top1", "val_top5", "val_balanced_top1", "val_macro_f1", "val_loss", "train_top1")
    }
    assert history[-1]["loss"] < history[0]["loss"]
    assert result.best["val_top1"] == max(row["val_top1"] for row in history) > 80
    best = json.loads((tmp_path / "best.json").read_text())
    assert best["weights_sha256"] == result.best["weights_sha256"]
    assert set(best["versions"]) >= {"tokenmix", "torch", "timm", "python"}
    model, info = load_run(tmp_path, model=toy_model())
    assert not model.training
    assert info["classes"] == data.classes
    assert (info["image_size"], info["mean"], info["crop_pct"]) == ((8, 8), data.mean, 1.0)
    loader = Loader(data.val, batch_size=5, image_size=8, mean=data.mean, std=data.std, train=False)
    found = evaluate(ClassificationObjective(model, num_classes=3), loader)
    assert found["top1"] == pytest.approx(result.best["val_top1"])
    assert found["loss"] == pytest.approx(result.best["val_loss"], abs=1e-6)


def test_a_run_is_repeatable_and_the_seed_matters(tmp_path) -> None:
    one, two, three = (run(tmp_path / str(i), toy_recipe(seed=i // 2))[0] for i in range(3))
    assert one.best["weights_sha256"] == two.best["weights_sha256"]
    assert one.best["weights_sha256"] != three.best["weights_sha256"]


def test_a_fraction_of_an_epoch(tmp_path) -> None:
    result, _ = run(tmp_path, toy_recipe(epochs=1.5, warmup_epochs=0))
    assert len(result.history) == 2
    content = checkpoint(tmp_path)
    assert content["state"]["steps"] == 9
    assert content["state"]["finished"]


def test_a_loss_that_stays_nan_stops(tmp_path) -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = toy_model()

        def forward(self, x):
            return self.inner(x * float("nan") if self.training else x)

    with pytest.raises(
        Diverged, match=r"loss is not finite, 4 steps in a row, the last at epoch 1, step 4 \(images tr"
    ):
        run(tmp_path, toy_recipe(max_bad_steps=4), model=Broken)


def test_single_bad_steps_are_skipped_and_leave_no_trace(tmp_path) -> None:
    data = toy_data()
    calls = []

    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = toy_model()

        def forward(self, x):
            if self.training:
                calls.append(1)
                if len(calls) in (2, 9):
                    x = x * float("nan")
            return self.inner(x)

    result, lines = run(tmp_path, toy_recipe(max_bad_steps=2, ema_decay=None), data, model=Sometimes)
    assert [line.startswith("skipped a step: the loss is not finite at epoch") for line in lines] == [True, True]
    assert all(math.isfinite(row["loss"]) and math.isfinite(row["val_loss"]) for row in result.history)
    model, _ = load_run(tmp_path, model=Sometimes())
    assert all(value.isfinite().all() for value in model.state_dict().values())


@pytest.mark.parametrize("clip", [1.0, None])
def test_an_endless_gradient_is_a_bad_step_too(tmp_path, clip) -> None:
    class Cliff(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = toy_model()
            self.zero = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return self.inner(x) + self.zero.abs().sqrt()  # infinite slope at 0

    with pytest.raises(Diverged, match="the gradient is not finite"):
        run(tmp_path, toy_recipe(max_bad_steps=2, clip_grad=clip), model=Cliff)


def test_empty_parts_are_named(tmp_path) -> None:
    with pytest.raises(ValueError, match="no images in its part 'val'"):
        run(tmp_path, data=toy_data(val=0))


def test_a_timm_model_comes_back_from_its_file_alone(tmp_path) -> None:
    recipe = toy_recipe(
        epochs=0.2, warmup_epochs=0, model="mixernet_pico", drop_path_rate=0.1,
        model_args={"mixers": "pool", "depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}, image_size=32,
    )  # fmt: skip
    result, _ = run(tmp_path, recipe, model=None)
    model, info = load_run(result.best_weights)
    assert info["model_args"]["mixers"] == "pool"
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    with pytest.raises(ValueError, match="belong to another model"):
        load_run(result.best_weights, model=toy_model())


def test_an_unknown_model_gets_a_suggestion(tmp_path) -> None:
    with pytest.raises(ValueError, match="unknown model 'mixernet_pic'; did you mean 'mixernet_pico'"):
        run(tmp_path, toy_recipe(model="mixernet_pic"), model=None)


def test_load_run_errors(tmp_path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(ValueError, match="there are no weights"):
        load_run(tmp_path)
    (tmp_path / "best.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="no safetensors file or is damaged"):
        load_run(tmp_path)
    save_file({"weight": torch.zeros(2)}, tmp_path / "best.safetensors")
    with pytest.raises(ValueError, match="does not say which model"):
        load_run(tmp_path)


def test_plain_lines_where_there_is_no_terminal(tmp_path) -> None:
    _, lines = run(tmp_path, progress=True, label="toy")
    assert "too few to learn much" in "".join(lines)  # what to try is said too
    lines = [line for line in lines if "note: " not in line]
    assert len(lines) == 3
    assert lines[0].startswith("toy  epoch 1/3  loss ")
    assert re.search(r" [\d,]+ images/s  data wait \d+ %  peak [\d,]+ MB  \d:\d\d left$", lines[0])


def test_a_moving_line_on_a_terminal(monkeypatch, capsys) -> None:
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("tokenmix.train.log.REDRAW_S", 0.0)
    lines: list[str] = []
    progress = Progress(10, 0, 8, lines.append, show=True, label="toy")
    progress.step(1, lambda: "one")
    progress.say("a warning")
    progress.clear()
    shown = capsys.readouterr().err
    assert shown.startswith("\rtoy  one  ")
    assert shown.endswith("\r")
    assert lines == ["toy  a warning"]
    assert (clock(59.6), clock(61), clock(3725)) == ("1:00", "1:01", "1:02:05")


def test_a_set_smaller_than_a_batch_is_not_counted_as_one(tmp_path, monkeypatch) -> None:
    sizes = []
    monkeypatch.setattr(Progress, "step", lambda self, *_: sizes.append(self.batch_size))
    run(tmp_path, toy_recipe(epochs=1, batch_size=64))
    assert sizes == [48]


class Still(nn.Module):
    """Learns nothing: its answers do not depend on what is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)) + 0 * self.unused


def test_slack_keeps_the_last_weights_that_chance_may_have_made_worse(tmp_path) -> None:
    best = run(tmp_path / "best", toy_recipe(epochs=4, ema_decay=None), model=Still)[0].best
    last = run(tmp_path / "last", toy_recipe(epochs=4, ema_decay=None, slack=5.0), model=Still)[0].best
    assert (best["epoch"], last["epoch"]) == (1, 4)
    assert best["val_top1"] == last["val_top1"]
    shaken = {"epochs": 6, "lr": 0.3, "schedule": "constant", "seed": 2, "ema_decay": None}
    rows = run(tmp_path / "none", toy_recipe(**shaken))[0].history
    scores = [row["val_top1"] for row in rows]
    kept = run(tmp_path / "wide", toy_recipe(**shaken, slack=8.0))[0].best
    within = [place for place, score in enumerate(scores) if score >= max(scores[: place + 1]) - 8.0]
    assert (kept["epoch"], kept["val_top1"]) == (within[-1] + 1, scores[within[-1]])


def test_patience_ends_a_run_that_gets_no_better_and_stays_ended(tmp_path) -> None:
    recipe = toy_recipe(epochs=20, patience=3, ema_decay=None)
    result, lines = run(tmp_path, recipe, model=Still)
    assert [row["epoch"] for row in result.history] == [1, 2, 3, 4]
    assert (result.best["epoch"], lines) == (
        1,
        ["ended after epoch 4: no better top1 since epoch 1, whose weights are kept (patience=3)"],
    )
    assert "Finished after 4 epochs of 20" in (tmp_path / "report.html").read_text()
    again, lines = run(tmp_path, recipe, model=Still)
    assert (again.history, lines) == (result.history, [])
    with pytest.raises(ValueError, match=r"run\.patience"):
        toy_recipe(patience=-1)
