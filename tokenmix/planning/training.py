"""From a folder, or a recipe, to a trained model that its test has judged: what ``tokenmix train`` does."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from tokenmix.checkpoints import open_model
from tokenmix.data.dataset import DataSet
from tokenmix.evaluate import find_device, judge
from tokenmix.files import finite, write_json, write_text
from tokenmix.planning.budget import Budget
from tokenmix.planning.plan import Plan, is_parts, make_plan, plan_source
from tokenmix.recipes import Recipe, make_recipe
from tokenmix.recipes.keys import find_key, keys_of, stated_task
from tokenmix.recipes.recipe import override
from tokenmix.recipes.stored import check_recipe
from tokenmix.sources import load_data, recognise
from tokenmix.tasks import Task, all_tasks, find_task
from tokenmix.tasks.draft import FirstStage
from tokenmix.train.advice import Advice
from tokenmix.train.checkpoint import Checkpoints
from tokenmix.train.distributed import place
from tokenmix.train.loop import FitResult, fit
from tokenmix.train.trackers import check_trackers
from tokenmix_runtime.terminal import say
from tokenmix_runtime.untrusted import read_json

PLAN, START = "plan.json", "start"
Log = Callable[[str], None]


@dataclass(frozen=True)
class TrainedModel:
    """What came of a training.

    Attributes:
        out: Its folder.
        recipe: How it was trained.
        result: What the training says of itself; None: it was only planned.
        plan: What was planned; None: a recipe was given, or the plan was there.
        test: The numbers of its test, by name; None: there are no test samples, or several processes trained.
        test_samples: How many there are.
        facts: Of the data, such as the names of the classes; None: it was only planned.
        advice: What its numbers say is wrong with it, and what to try, see `tokenmix.train.advice`.
    """

    out: Path
    recipe: Recipe
    result: FitResult | None
    plan: Plan | None = None
    test: dict[str, float] | None = None
    test_samples: int = 0
    advice: Sequence[Advice] = field(default_factory=list)
    facts: Mapping[str, Any] | None = None

    @property
    def task(self) -> Task:
        """What it does."""
        return find_task(self.recipe.task.name)


def train_model(
    recipe: str | None = None,
    settings: Sequence[str] = (),
    *,
    data: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] = "runs/train",
    budget: Budget | None = None,
    device: str = "auto",
    workers: int = 0,
    download: bool = False,
    fresh: bool = False,
    plan_only: bool = False,
    log: Log = say,
    trackers: Sequence[str] = (),
    **options: Any,
) -> TrainedModel:
    """Train by a recipe, or by what is planned for the data; then let the test samples judge the best weights.

    The same call continues an interrupted training; a plan that was made for it holds.

    Args:
        recipe: A recipe's or model's name or a recipe's file; None: it is planned from the data.
        settings: Overrides, ``["epochs=3"]``.
        data: A folder, or a data set's name; None: the recipe's.
        out: The run's folder.
        budget: What a plan may spend.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        workers: Processes that load samples.
        download: Whether named data sets, and published weights for a plan, may be fetched.
        fresh: Start again, whatever the folder holds.
        plan_only: Make and store the plan, and train nothing.
        log: Takes plain lines.
        trackers: See `tokenmix.train.fit`.
        **options: Further ones of `tokenmix.train.fit`.

    Raises:
        ValueError: A name, setting or option is wrong, or the folder holds another run.
    """
    check_trackers(trackers)
    where, folder = find_device(device), Path(out)
    settings = [*settings, *([f"data={os.fspath(data)}"] if data is not None and recipe is not None else [])]
    plan: Plan | None = None
    if recipe is not None:
        if budget is not None:
            raise ValueError("a budget is for a plan: leave the recipe out, or set epochs and image_size yourself")
        if plan_only:
            raise ValueError("--plan is for what is planned: leave the recipe out, and name the data by --data")
        made = make_recipe(recipe, settings)
        loaded = _load(made.run.data, find_task(made.task.name), made.run.seed, download, log)
        made = make_recipe(recipe, settings, images=len(loaded.train))
    else:
        if data is None:
            raise ValueError("name what to learn from: tokenmix train --data FOLDER, or a recipe")
        if place().world > 1:
            raise ValueError(
                "a plan is made by one process: `tokenmix train --data ... --plan` first, then its plan.json"
            )
        spec, budget = os.fspath(data), budget or Budget()
        task = _task_of(spec, settings, log)
        loaded = _load(spec, task, _seed(settings, task), download, log)
        source = plan_source(spec, settings, budget)
        found = None if fresh else _stored_plan(folder, budget, spec, settings)
        if found is None and (plan_only or not fresh):
            _check_unused(folder, source)
        if found is None:
            common: dict[str, Any] = {"device": where, "workers": workers, "published": download, "log": log}
            plan = make_plan(loaded, spec, task, settings, budget=budget, **common)
            made = _store(plan, folder)
            for line in plan.lines:
                log(line)
            log(f"  stored as {folder / PLAN}; key=value changes it, --budget 10min or 2ms limits it")
        else:
            made = found
            log(f"{folder / PLAN}: the plan that was made before; --fresh makes a new one")
        if plan_only:
            return TrainedModel(folder, made, None, plan)
        if made.model.weights == os.fspath(folder / START):
            _train_start(plan, task, loaded, folder, where, workers, fresh, log, options)
    fitted = fit(
        made, loaded, folder, device=where, workers=workers, log=log, fresh=fresh, trackers=trackers, **options
    )
    test, count = _tested(folder, fitted, loaded, made, where, workers, log)
    advice = [Advice(**note) for note in read_json(folder / "advice.json")] if place().rank == 0 else []
    return TrainedModel(folder, made, fitted, plan, test, count, advice, loaded.facts)


def _load(spec: str, task: Task, seed: int, download: bool, log: Log) -> DataSet:
    return load_data(spec, task=task.name, seed=seed, download=download, log=log)


def _task_of(spec: str, settings: Sequence[str], log: Log) -> Task:
    """The task that a setting names, else the one that speaks from the data."""
    if stated := stated_task(settings):
        return find_task(stated)
    task, evidence = recognise(spec)
    if Path(spec).expanduser().is_dir():
        log(f"{spec}: {task.title} ({evidence}); task=NAME for another: {', '.join(all_tasks())}")
    return task


def _seed(settings: Sequence[str], task: Task) -> int:
    """The seed that the settings name, which also splits the data."""
    for setting in reversed(settings):
        key, _, value = setting.partition("=")
        if find_key(key.strip(), task).field == "run.seed" and value.strip().isdigit():
            return int(value)
    return 0


def _store(plan: Plan, folder: Path) -> Recipe:
    """Write a plan as a recipe that names what it starts at; returns it."""
    made = plan.recipe
    if plan.start is not None:
        made = replace(made, model=replace(made.model, weights=os.fspath(folder / START)))
        write_text(folder / START / PLAN, plan.start.recipe.to_json())
    write_text(folder / PLAN, made.to_json())
    return made


def _check_unused(folder: Path, source: str) -> None:
    """Raise if the folder holds a run, whose plan another one would replace."""
    if not any(Checkpoints(part).newest() for part in (folder, folder / START)):
        return
    file = next((file for name in (PLAN, "recipe.json") if (file := folder / name).is_file()), None)
    before = Recipe.from_values(read_json(file), os.fspath(file)).source if file else ""
    told = f" ({before}), and this would be another ({source})" if before not in ("", source) else ""
    raise ValueError(
        f"{folder} holds a run of another recipe{told}; give another output folder, or start again with --fresh "
        "(fresh=True), without --plan"
    )


def _stored_plan(folder: Path, budget: Budget, spec: str, settings: Sequence[str]) -> Recipe | None:
    """The plan in a folder, if it is for the same question; nothing else that it may name is taken from a file."""
    file = folder / PLAN
    if not file.is_file():
        return None
    found = Recipe.from_values(read_json(file), os.fspath(file))
    own = found.model.weights in (None, "pretrained", os.fspath(folder / START))
    same = found.run.data is not None and Path(found.run.data) == Path(spec)  # photos, photos/ and ./photos
    if not same or not own or ":" in found.model.name or found.source != plan_source(found.run.data, settings, budget):
        return None
    check_recipe(found, os.fspath(file), {"run.data", "model.weights", *keys_of(settings)})
    return override(found, [setting for setting in settings if is_parts(setting)])


def _train_start(
    plan: Plan | None,
    task: Task,
    data: DataSet,
    folder: Path,
    device: Any,
    workers: int,
    fresh: bool,
    log: Log,
    options: dict[str, Any],
) -> None:
    """Train what the plan starts at, or take it up."""
    start: FirstStage | None = plan.start if plan else None
    if start is None:
        drafts = [draft for draft in task.drafts(data, device) if draft.start is not None]
        if not drafts or drafts[0].start is None:
            raise ValueError(f"{folder}: its plan starts at weights that nothing here makes; --fresh makes a new plan")
        file = folder / START / PLAN
        stored = Recipe.from_values(read_json(file), os.fspath(file))
        check_recipe(stored, os.fspath(file), {"run.data"})
        start = replace(drafts[0].start, recipe=stored)
    log(f"first: {start.words}")
    fit(start.recipe, start.data(), folder / START, device=device, workers=workers, log=log, fresh=fresh, **options)


def _tested(
    folder: Path, fitted: FitResult, data: DataSet, recipe: Recipe, device: torch.device, workers: int, log: Log
) -> tuple[dict[str, float] | None, int]:
    """What the test samples say of the best weights, and how many there are; asked once for the same weights."""
    count = len(data.test)
    if not count or data.test is data.val or place().world > 1:
        return None, 0
    file, digest = folder / "test.json", fitted.best["weights_sha256"]
    if file.is_file() and (known := read_json(file)).get("weights_sha256") == digest:
        return known["numbers"], count
    size = recipe.run.batch_size
    shown: dict[str, Any] = {"device": device, "batch_size": size, "workers": workers}
    judged = judge(open_model(fitted.best_weights), data.test, data.facts, **shown)
    numbers = {name: float(value) for name, value in judged.numbers.items() if math.isfinite(value)}
    rows = finite(judged.rows)  # a class that no test sample has is judged by nothing
    write_json(file, {"weights_sha256": digest, "samples": count, "numbers": numbers, "rows": rows})
    return numbers, count
