"""What a run's numbers say is wrong with it: each rule speaks where it should, and nowhere else."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.test_pages_run import made_up
from tokenmix.pages.run import run_page
from tokenmix.recipes import make_recipe
from tokenmix.tasks import find_task
from tokenmix.train.advice import advise

TASK = find_task("classification")


def healthy(epochs: int = 20) -> dict[str, Any]:
    """A run with which nothing is wrong."""
    run = made_up(classes=4, epochs=epochs) | {"epochs": epochs, "steps": 2000, "best_epoch": epochs // 2}
    for row in run["history"]:
        place = min(1.0, 2 * row["epoch"] / epochs)
        row |= {"loss": 2 - 1.5 * place, "val_loss": 2 - 1.3 * place}
        row |= {"val_top1": 25 + 55 * place, "train_top1": 27 + 58 * place}
    run["evidence"]["mistakes"] = []
    return run


def kinds(run: dict[str, Any]) -> list[str]:
    return [note.kind for note in advise(run, TASK, Path("runs/x"))]


def test_nothing_is_said_where_nothing_is_wrong() -> None:
    assert kinds(healthy()) == []
    assert kinds(healthy(epochs=2)) == []


def test_too_few_steps() -> None:
    run = healthy() | {"steps": 80}
    (note,) = advise(run, TASK, Path("runs/x"))
    assert note.kind == "steps"
    words = shlex.split(note.command)
    assert words[:2] == ["tokenmix", "train"]
    recipe = make_recipe("basic", [word for word in words if "=" in word])
    per_epoch = 80 / 20 * (64 / recipe.run.batch_size)
    assert per_epoch * recipe.schedule.epochs >= 300
    assert kinds(run | {"recipe": run["recipe"] | {"model.weights": "pretrained"}}) == []


def test_commands_that_are_proposed_are_taken() -> None:
    """Recipes that count steps have no epochs, a path must be typed, and a small batch stays as it is."""
    run = healthy() | {"steps": 80}
    run["recipe"] = run["recipe"] | {"run.batch_size": 4}
    (note,) = advise(run, TASK, Path("runs/x"))
    assert "batch_size" not in note.command
    assert "epochs=80" in note.command  # four times as many steps
    start = healthy() | {"steps": 20}
    start["recipe"] = start["recipe"] | {"model.weights": "runs/x/start"}
    (note,) = advise(start, TASK, Path("runs/x"))
    assert "weights=runs/x/start" in note.command
    stepped = healthy()
    stepped["recipe"] = stepped["recipe"] | {"schedule.steps": 900}
    for row in stepped["history"]:
        row["val_top1"] = 25.0
    longer = next(note.command for note in advise(stepped, TASK, Path("runs/x")) if note.kind == "nothing")
    assert "steps=2700" in longer
    assert "epochs=" not in longer

    stepped["recipe"] |= {"schedule.steps": 640_000}
    for row in stepped["history"]:
        row |= {"val_top1": 3.0 * row["epoch"] + 20, "train_top1": 3.0 * row["epoch"] + 24}
    (note,) = advise(stepped | {"best_epoch": 20}, TASK, Path("runs/x"))
    assert "steps=1280000 " in note.command  # a whole number, as it must be typed


def test_a_smaller_rate_takes_its_ends_along() -> None:
    run = healthy()
    for row in run["history"][-4:]:
        row["loss"] = 4.0
    run["recipe"] |= {"schedule.min_lr": 9e-4, "schedule.warmup_lr": 1e-6}
    (note,) = advise(run, TASK, Path("runs/x"))
    settings = [word for word in shlex.split(note.command) if "=" in word]
    assert settings == ["lr=0.00025", "min_lr=0.000225"]
    start = ["min_lr=9e-4", "warmup_lr=1e-6", "epochs=20"]
    assert make_recipe("basic", [*start, *settings]).schedule.min_lr == 0.000225
    assert advise(run | {"made": True}, TASK, Path("runs/x"))[0].command == "", "no recipe names its model"


def test_learning_by_heart() -> None:
    run = healthy()
    for row in run["history"]:
        row["train_top1"] = 99.0
    (note,) = advise(run, TASK, Path("runs/x"))
    assert note.kind == "overfits"
    assert "99.00 % on what was learnt and 80.00 % on what was not" in note.text
    assert "cutmix=1.0" in note.command
    for row in run["history"]:
        del row["train_top1"]
        row["val_loss"] = 0.5 + row["epoch"] / 20
    assert kinds(run) == ["overfits"]


def test_the_learning_rate() -> None:
    run = healthy()
    for row in run["history"][-4:]:
        row["loss"] = 4.0
    assert kinds(run) == ["rate"]
    assert "lr=0.00025" in advise(run, TASK, Path("runs/x"))[0].command


def test_a_run_that_has_not_learnt_out() -> None:
    run = healthy() | {"best_epoch": 20}
    for row in run["history"]:
        row |= {"val_top1": 3.0 * row["epoch"] + 20, "train_top1": 3.0 * row["epoch"] + 24}
    assert kinds(run) == ["underfits"]
    assert "epochs=100" in advise(run, TASK, Path("runs/x"))[0].command
    assert kinds(run | {"status": "running"}) == []


def test_classes_base_lines_and_labels() -> None:
    run = healthy()
    run["evidence"]["cells"] = [[0, 0, 20], [1, 0, 5], [2, 2, 20], [3, 3, 20]]
    (note,) = advise(run, TASK, Path("runs/x"))
    assert note.kind == "classes"
    assert "balance=sampling" in note.command
    run["evidence"]["cells"] = [[0, 0, 20], [1, 0, 20], [2, 2, 20], [3, 3, 20]]  # not rare: more of it would not help
    (note,) = advise(run, TASK, Path("runs/x"))
    assert "epochs=" in note.command
    assert "balance" not in note.command
    run = healthy()
    run["evidence"]["cells"] = [[0, 0, 97], [1, 1, 1], [2, 2, 1], [3, 3, 1]]
    assert kinds(run) == ["nothing"]
    run = healthy()
    sure = {"index": 1, "name": "a/1.jpg", "truth": 0, "prediction": 2, "confidence": 0.98, "truth_confidence": 0.01}
    run["evidence"]["mistakes"] = [sure, sure | {"confidence": 0.6}]
    (note,) = advise(run, TASK, Path("runs/x"))
    assert note.text.endswith("a/1.jpg, labelled class 0: class 2 with 98 %")
    assert note.command == "tokenmix data check digits"


def test_the_page_shows_it() -> None:
    run = healthy() | {"steps": 80}
    notes = [note.told() for note in advise(run, TASK, Path("runs/x"))]
    page = run_page(run | {"advice": notes})
    assert 'id="advice"' in page
    assert "too few to learn much" in page
    assert "on training images" in page
    assert 'id="advice"' not in run_page(run)


@pytest.mark.parametrize("name", ["super_resolution", "points", "detection", "classification"])
def test_every_task_can_be_asked(name: str) -> None:
    task = find_task(name)
    assert task.unfound({"classes": [], "cells": []}, {"classes": []}) in ((), [])
    assert task.doubtful({"mistakes": []}, {"classes": []}) in ((), [])
