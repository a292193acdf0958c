"""Schedules against torch's own, and runs that are counted in steps."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import MultiStepLR, PolynomialLR

from tests.test_train_resume import killed, outcome, run, same
from tests.train_toys import toy_recipe
from tokenmix.recipes import override, with_epochs
from tokenmix.train.schedule import Calendar, learning_rate

COUNTED = {"steps": 14, "warmup_epochs": 0, "warmup_steps": 3, "schedule": "poly", "power": 0.9}  # 6 steps per epoch


def theirs(kind, steps: int, lr: float, **options) -> list[float]:
    """The rates of one of torch's schedulers, float64, before each step."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr)
    scheduler = kind(optimizer, **options)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 60), st.floats(0.2, 3.0), st.floats(1e-6, 1.0))
def test_poly_is_torchs(total, power, lr) -> None:
    ours = [
        learning_rate(step, total=total, warmup=0, lr=lr, schedule="poly", power=power) for step in range(total + 3)
    ]
    # torch multiplies the rate of the step before, which rounds once more per step
    assert ours == pytest.approx(theirs(PolynomialLR, total + 3, lr, total_iters=total, power=power), rel=1e-11)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 40), unique=True, max_size=4), st.floats(0.05, 0.9))
def test_step_is_torchs(milestones, factor) -> None:
    given_ = {"milestones": sorted(milestones), "factor": factor}
    ours = [learning_rate(step, total=40, warmup=0, lr=0.3, schedule="step", **given_) for step in range(45)]
    assert ours == pytest.approx(theirs(MultiStepLR, 45, 0.3, milestones=milestones, gamma=factor), rel=1e-12)


def test_the_rise_meets_the_schedule_and_poly_ends_at_its_floor() -> None:
    shape = {"total": 20, "lr": 1.0, "min_lr": 0.1, "schedule": "poly", "power": 2.0}
    plain = [learning_rate(step, warmup=0, **shape) for step in range(21)]
    rising = [learning_rate(step, warmup=5, warmup_lr=0.2, **shape) for step in range(21)]
    assert rising[4:] == plain[4:]
    assert rising[:4] == pytest.approx([0.2 + (plain[i] - 0.2) * (i + 1) / 5 for i in range(4)])
    assert plain[20] == pytest.approx(0.1)


def test_milestones_are_epochs() -> None:
    recipe = toy_recipe(epochs=4, warmup_epochs=0, schedule="step", milestones=(2, 3.5), milestone_factor=0.5, lr=1.0)
    calendar = Calendar(recipe, lambda epoch: [6, 4, 8, 6][epoch])
    assert calendar.milestones == [10, 21]
    assert [calendar.lr(step) for step in (9, 10, 20, 21, 23)] == [1.0, 0.5, 0.5, 0.25, 0.25]


def test_a_run_of_steps_ends_within_an_epoch() -> None:
    calendar = Calendar(toy_recipe(**COUNTED), lambda epoch: 6)
    assert (calendar.total, calendar.lengths, calendar.warmup) == (14, [6, 6, 2], 3)
    assert calendar.epochs == pytest.approx(14 / 6)
    assert Calendar(toy_recipe(**COUNTED | {"steps": 12}), lambda epoch: 6).lengths == [6, 6]
    assert Calendar(toy_recipe(**COUNTED | {"steps": 4}), lambda epoch: 6).lengths == [4]


def test_a_warm_up_that_is_most_of_the_run_is_said(tmp_path) -> None:
    long = toy_recipe(epochs=2, warmup_epochs=0, warmup_steps=48)
    lines: list[str] = []
    run(tmp_path, long, log=lines.append)
    assert sum("rises for 48 steps, and the run has 12: it reaches 0.0025 of lr=0.01" in line for line in lines) == 1
    assert "warmup_steps=1 would" in Calendar(long, lambda epoch: 6).long_rise()
    assert "warmup_epochs=0.2 would" in Calendar(toy_recipe(epochs=2, warmup_epochs=2), lambda epoch: 6).long_rise()
    assert Calendar(toy_recipe(epochs=2, warmup_epochs=1), lambda epoch: 6).long_rise() == ""


@pytest.mark.parametrize("changes", [{"epochs": 2, "cooldown_epochs": 2}, {"epochs": 0.01}])
def test_a_run_without_a_fall_has_rates_too(changes) -> None:
    calendar = Calendar(toy_recipe(schedule="poly", warmup_epochs=0, min_lr=1e-3, **changes), lambda epoch: 6)
    assert [calendar.lr(step) for step in range(3)] == pytest.approx([1e-2, 1e-3, 1e-3])


@pytest.fixture(scope="module")
def unkilled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("steps")
    run(folder, toy_recipe(**COUNTED))
    return folder


def test_it_validates_at_the_end(unkilled) -> None:
    rows = [json.loads(line) for line in (unkilled / "history.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [6, 12, 14]
    assert rows[-1]["lr"] == pytest.approx(1e-2 * (1 - 13 / 14) ** 0.9)


@pytest.mark.parametrize(("where", "call"), [("step", 2), ("step", 6), ("step", 13), ("end_epoch", 2), ("save", 14)])
def test_resumed_runs_of_steps_equal_unkilled_ones(tmp_path, monkeypatch, unkilled, where, call) -> None:
    recipe = toy_recipe(**COUNTED)
    killed(tmp_path, monkeypatch, where, call, recipe)
    run(tmp_path, recipe)
    assert same(outcome(tmp_path), outcome(unkilled))


def test_other_lengths_keep_the_parts_in_proportion() -> None:
    counted = toy_recipe(**COUNTED)
    half = override(counted, ["steps=7"])
    assert (half.schedule.steps, half.schedule.warmup_steps, half.length) == (7, 2, "7 steps")
    assert override(counted, ["steps=7", "warmup_steps=1"]).schedule.warmup_steps == 1
    back = override(counted, ["steps=none", "epochs=2"])
    assert (back.schedule.steps, back.schedule.epochs, back.schedule.warmup_steps, back.length) == (
        None,
        2.0,
        3,
        "2 epochs",
    )
    falling = toy_recipe(epochs=12, schedule="step", milestones=(8, 11))
    assert override(falling, ["epochs=3"]).schedule.milestones == (2.0, 2.75)
    with pytest.raises(ValueError, match="the recipe counts steps=14, not epochs: set steps=N"):
        with_epochs(counted, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "'schedule.steps' must be above 0"),
        ({"steps": 5}, "'schedule.warmup_epochs' counts epochs, but the run counts steps=5: set warmup_steps instead"),
        ({"steps": 5, "warmup_epochs": 0, "cooldown_epochs": 1}, "'schedule.cooldown_epochs'.*set cooldown_epochs=0"),
        ({"steps": 5, "warmup_epochs": 0, "warmup_steps": 6}, "'schedule.warmup_steps' must not be above steps=5"),
        ({"schedule": "step"}, "'schedule.milestones', the epochs after which"),
        ({"milestones": (1,)}, "schedule is 'cosine', milestones \\(1.0,\\)"),
        ({"schedule": "step", "milestones": (2, 1)}, "'schedule.milestones' must be ascending and above 0"),
        ({"schedule": "step", "milestones": (0, 1)}, "'schedule.milestones' must be ascending and above 0"),
        ({"schedule": "step", "milestones": (1, 3)}, "'schedule.milestones' must be below epochs=3"),
        ({"schedule": "polly"}, "did you mean 'poly'"),
        ({"power": 2}, "'schedule.power' is for schedule='poly'"),
        ({"schedule": "poly", "power": 0}, "'schedule.power' must be above 0"),
        ({"freeze_norms": True}, "'task.freeze_norms' belongs to detection"),
        ({"head_lr": 10}, "'task.head_lr' belongs to detection"),
        (
            {"layer_decay_layers": 9, "head": "upernet", "task": "segmentation", "label_smoothing": 0},
            "'task.layer_decay_layers' needs 'optimizer.layer_decay'",
        ),
    ],
)  # fmt: skip
def test_mistakes_are_named(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        toy_recipe(**changes)
