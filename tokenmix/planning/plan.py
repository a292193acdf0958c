"""A plan for a data set: the first of a task's drafts for which there is time on this machine."""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from tokenmix.data.dataset import DataSet
from tokenmix.planning.budget import Budget, duration
from tokenmix.planning.latency import measure_latency
from tokenmix.planning.pace import Pace, measure_pace
from tokenmix.recipes import Recipe, override, with_epochs
from tokenmix.recipes.keys import find_key
from tokenmix.tasks import Task
from tokenmix.tasks.draft import Draft, FirstStage
from tokenmix.text_tables import counted
from tokenmix_runtime.terminal import say

START_SHARE = 0.35  # of the time for what is trained before
PLANNING_SHARE = 0.25  # of the time, after which nothing more is measured than a step of what is left to be chosen
TOLD_S, TOLD_SHARE = 10.0, 0.1  # of planning, from which on it is told what it took
GAIN = 4.0  # how many times as fast another way to compute may be
WORTH = 1.1  # how many times as fast another way to compute must be
LENGTHS = ("schedule.epochs", "schedule.steps")  # who sets one of these has decided how long it takes


@dataclass(frozen=True)
class Plan:
    """What is going to be trained, and why.

    Attributes:
        recipe: How, as every recipe: it can be stored, changed and taken up.
        lines: About five, for people.
        seconds: What it takes here, what is trained before included.
        start: What is trained before, with the epochs that there is time for; None: nothing.
        planning_s: Seconds that the planning took, which count as the training's do.

    Examples:
        >>> from tokenmix.planning import Plan
        >>> from tokenmix.recipes import make_recipe
        >>> Plan(make_recipe("basic"), ["  model  mixernet_pico"], seconds=120.0).start is None
        True
    """

    recipe: Recipe
    lines: list[str]
    seconds: float
    start: FirstStage | None = None
    planning_s: float = 0.0


def make_plan(
    data: DataSet,
    spec: str,
    task: Task,
    settings: Sequence[str] = (),
    *,
    budget: Budget | None = None,
    device: torch.device | str = "cpu",
    workers: int = 0,
    published: bool = False,
    log: Callable[[str], None] = say,
) -> Plan:
    """Choose how to train on a data set, by the time that it takes here: a few real steps of each draft are measured.

    The measuring counts: after `PLANNING_SHARE` of the time the last draft is taken, which is the cheapest, by a step.

    Args:
        data: What is learnt from.
        spec: Its name or path, for the recipe.
        task: What it is for.
        settings: Overrides, ``["epochs=3"]``, which every draft obeys. Where they set the run's length nobody shortens
            it.
        budget: What may be spent; None: `tokenmix.planning.budget.USUAL_S` on the training.
        device: Where it would be trained.
        workers: Processes that would load samples.
        published: Whether published weights may be fetched to start at.
        log: Told what is tried.

    Raises:
        ValueError: The task plans nothing, a setting is wrong, or no draft's model is as fast as it must be.

    Examples:
        >>> from tokenmix.planning import Budget, make_plan
        >>> from tokenmix.sources import load_data
        >>> from tokenmix.tasks import find_task
        >>> data, task = load_data("photos"), find_task("classification")  # doctest: +SKIP
        >>> plan = make_plan(data, "photos", task, budget=Budget(seconds=600))  # doctest: +SKIP
        >>> for line in plan.lines:  # doctest: +SKIP
        ...     print(line)
    """
    begin = time.perf_counter()
    budget, device = budget or Budget(), torch.device(device)
    fixed = sets_length(settings, task)
    drafts = [*_obeying(task.drafts(data, device, published=published), settings, spec, task)]
    latency = None
    if budget.latency_ms is not None:
        drafts, latency = _fast_enough(drafts, data, budget.latency_ms, log)
    log("measuring a few steps on this machine ...")
    stopwatch = _Stopwatch(device, workers, time.perf_counter() + PLANNING_SHARE * budget.limit_s)
    chosen, tight, pace, preferred = None, False, None, ""
    for number, draft in enumerate(drafts):
        last = number == len(drafts) - 1
        limit = budget.limit_s - (time.perf_counter() - begin)
        room = limit * (1 - START_SHARE) if draft.start else limit
        slower = chosen is not None and pace is not None and _least_s(draft, chosen, pace) * draft.least > room
        if chosen is not None and not last and (slower or stopwatch.over):
            continue
        if published and draft.recipe.model.weights and not _start(task, draft, data, log):
            continue
        draft, pace = stopwatch.fastest(draft, data, settings, math.inf if fixed else room / draft.least)
        share = min(1.0, room / pace.seconds)
        tight = share < draft.least
        chosen = draft
        if tight and not preferred:  # the drafts stand in the order in which they would be chosen
            needed = pace.seconds / (1 - START_SHARE) if draft.start else pace.seconds
            preferred = (
                f"{draft.recipe.model.name} at {_pixels(draft.recipe)} for {_epochs(draft.recipe)}, which needs about "
                f"{duration(needed)} here"
            )
        if fixed or not tight:
            break
    if chosen is None or pace is None:
        raise ValueError(f"{data.name}: no training of the ones that were planned can start here")
    recipe, start, spent = chosen.recipe, chosen.start, 0.0
    if start is not None:
        start, spent = _first(start, chosen, limit * START_SHARE, stopwatch)
    planning_s = time.perf_counter() - begin
    limit = max(0.0, budget.limit_s - planning_s)
    if fixed and chosen.shorter is not None and recipe.schedule.steps is None:
        recipe = chosen.shorter(max(1, round(recipe.schedule.epochs)))
    if not fixed and pace.seconds > limit - spent:
        recipe = _shortened(chosen, (limit - spent) / pace.seconds)
    share = recipe.schedule.epochs / chosen.recipe.schedule.epochs if recipe.schedule.steps is None else 1.0
    seconds = spent + pace.seconds * share
    recipe = replace(recipe, source=plan_source(spec, settings, budget))
    lines = _lines(recipe, replace(chosen, start=start), data, task, pace, share, seconds, budget, latency, fixed)
    if planning_s >= min(TOLD_S, TOLD_SHARE * budget.limit_s):
        lines.append(f"  planning  took {duration(planning_s)}" + ("" if fixed else ", which count"))
    if preferred and not fixed:
        lines.append(f"  too little time for {preferred}: this plan learns less")
    return Plan(recipe, lines, seconds, start, planning_s)


def sets_length(settings: Sequence[str], task: Task) -> bool:
    """Whether one of the settings says how long the training is."""
    return bool(_fields(settings, task) & set(LENGTHS))


def _fields(settings: Sequence[str], task: Task) -> set[str]:
    """Which fields of a recipe they set."""
    return {find_key(setting.partition("=")[0].strip(), task).field for setting in settings}


def _obeying(drafts: Sequence[Draft], settings: Sequence[str], spec: str, task: Task) -> Iterator[Draft]:
    """The drafts with the settings applied; of those that become the same the first.

    Another model does not take the arguments of the draft's; arguments without a model are for a draft that has some.
    """
    fields = _fields(settings, task)
    named, args = "model.name" in fields, "model.args" in fields
    if args and not named:
        drafts = [draft for draft in drafts if draft.recipe.model.args] or drafts

    def obey(recipe: Recipe) -> Recipe:
        obeying = override(recipe, [*settings, f"data={spec}"])
        if args or obeying.model.name == recipe.model.name:
            return obeying
        return replace(obeying, model=replace(obeying.model, args={}))

    seen: list[Recipe] = []
    for draft in drafts:
        made = _changed(draft, obey)
        if made.recipe not in seen:
            seen.append(made.recipe)
            if _side(made.recipe) != _side(draft.recipe):  # what was said of the size is not so any more
                made = replace(made, words={key: text for key, text in draft.words.items() if key != "pictures"})
            kept = draft.start if made.recipe.model == draft.recipe.model else None  # another takes no such weights
            yield replace(made, start=kept)


def _changed(draft: Draft, change: Callable[[Recipe], Recipe]) -> Draft:
    """The draft with its recipe changed, whatever its length."""
    shorter = draft.shorter
    if shorter is None:
        return replace(draft, recipe=change(draft.recipe))
    return replace(draft, recipe=change(draft.recipe), shorter=lambda epochs: change(shorter(epochs)))


def _start(task: Task, draft: Draft, data: DataSet, log: Callable[[str], None]) -> bool:
    """Whether the weights at which a draft starts can be had; said if not."""
    try:
        task.initial_weights(task.complete(draft.recipe, data), data.facts, log)
    except (ValueError, OSError) as error:
        log(f"{error}; the plan starts with fresh weights")
        return False
    return True


@dataclass(frozen=True)
class _Stopwatch:
    """Measures drafts, as long as there is time for it.

    Attributes:
        device: Where they would be trained.
        workers: Processes that would load samples.
        until: When to end, by ``time.perf_counter``.
    """

    device: torch.device
    workers: int
    until: float

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return time.perf_counter() >= self.until

    def fastest(self, draft: Draft, data: DataSet, settings: Sequence[str], room_s: float) -> tuple[Draft, Pace]:
        """The draft, computed in the fastest of its ways on this machine that no setting forbids; and its pace.

        Args:
            draft: It.
            data: What is learnt from.
            settings: Those that it obeys.
            room_s: Seconds that it may take; one that no way to compute brings there is measured by two steps.
        """
        best, pace = draft, self.measure(draft, data, GAIN * room_s)
        for way in draft.faster if pace.seconds < GAIN * room_s else ():
            other = _changed(draft, functools.partial(_computed, way=way, settings=settings))
            if other.recipe in (draft.recipe, best.recipe) or self.over:
                continue
            measured = self.measure(other, data, pace.seconds)
            if WORTH * measured.step_s < pace.step_s:
                best, pace = other, measured
        return best, pace

    def measure(self, draft: Draft, data: DataSet, most_s: float) -> Pace:
        """The pace of a draft as it stands."""
        return measure_pace(draft.recipe, data, self.device, workers=self.workers, until=self.until, most_s=most_s)


def _least_s(draft: Draft, other: Draft, pace: Pace) -> float:
    """Seconds below which a draft cannot be, by another one that was measured: 0 where they are not alike.

    A step on fewer pixels takes at least their share of its time.
    """
    one, two = draft.recipe, other.recipe
    sizes = _side(one), _side(two)
    if one.model != two.model or one.run.batch_size != two.run.batch_size or None in sizes:
        return 0.0
    return pace.steps * pace.step_s * min(1.0, math.prod(sizes[0]) / math.prod(sizes[1]))


def _computed(recipe: Recipe, way: Sequence[str], settings: Sequence[str]) -> Recipe:
    """The recipe, computed in that way as far as the settings leave it open."""
    return override(override(recipe, way), settings)


def _first(start: FirstStage, draft: Draft, limit: float, stopwatch: _Stopwatch) -> tuple[FirstStage, float]:
    """What is trained before, with as many epochs as there is time for, and the seconds that it takes."""
    found, pace = stopwatch.fastest(Draft(start.recipe, faster=draft.faster), start.data(), (), math.inf)
    share = min(1.0, limit / pace.seconds)
    recipe = _shortened(found, share) if share < 1 else found.recipe
    return replace(start, recipe=recipe), pace.seconds * recipe.schedule.epochs / found.recipe.schedule.epochs


def _shortened(draft: Draft, share: float) -> Recipe:
    """The draft's recipe with that share of its epochs, at least one."""
    recipe: Recipe = draft.recipe
    if recipe.schedule.steps is not None:
        return recipe
    epochs = max(1, math.floor(share * recipe.schedule.epochs))
    return with_epochs(recipe, epochs) if draft.shorter is None else draft.shorter(epochs)


def _fast_enough(
    drafts: Sequence[Draft], data: DataSet, limit_ms: float, log: Callable[[str], None]
) -> tuple[list[Draft], float]:
    """The drafts whose models are as fast as that, and the latency of the first of them in milliseconds.

    They stand in the order of their cost: the first that is fast enough and all after it are kept.
    """
    told = []
    for number, draft in enumerate(drafts):
        found = measure_latency(draft.recipe, data)
        told.append(f"{draft.recipe.model.name} at {_pixels(draft.recipe)}: {found:.2f} ms")
        log(f"  {told[-1]} in ONNX Runtime")
        if found <= limit_ms:
            return list(drafts[number:]), found
    raise ValueError(
        f"--budget {limit_ms:g}ms: none of the planned models is as fast here ({'; '.join(told)}); give more, or a "
        "smaller model or image_size by key=value"
    )


def _side(recipe: Recipe) -> Any:
    """Height and width at which a recipe's network sees pictures; None where there are no such."""
    return getattr(recipe.task, "image_size", None)


def _pixels(recipe: Recipe) -> str:
    size = _side(recipe)
    if size is None:
        return "the data's own size"
    return f"{size[0]} px" if size[0] == size[1] else f"{size[0]} x {size[1]} px"


def _epochs(recipe: Recipe) -> str:
    return recipe.schedule.length


def _lines(
    recipe: Recipe,
    draft: Draft,
    data: DataSet,
    task: Task,
    pace: Pace,
    share: float,
    seconds: float,
    budget: Budget,
    latency: float | None,
    fixed: bool,
) -> list[str]:
    """The plan in words."""
    model, optimizer, run = recipe.model, recipe.optimizer, recipe.run
    name = f"{model.name} with {model.head}" if model.head else model.name
    weights = f"weights {model.weights}" if model.weights else "fresh weights"
    if draft.start is not None:
        weights = draft.start.words
    fast = f", {latency:.2f} ms in ONNX Runtime here" if latency is not None else ""
    steps = max(1, round(pace.steps * share))
    average = ", averaged weights" if optimizer.ema_decay else ""
    precision = "" if run.precision == "float32" else f", in {run.precision}"
    changed = {key: value for key, value in _regularisation(recipe).items() if value}
    limit = "as you set it" if fixed else f"of at most {duration(budget.limit_s)}"
    more = "" if fixed or budget.seconds is not None else " (--budget 2h would allow more)"
    pictures = "; ".join(draft.words.values())
    return [
        f"plan: {task.title} of {data.name}, {len(data.train):,} training and {len(data.val):,} validation {task.noun}"
        + (f"; {pictures}" if pictures else ""),
        f"  model     {name}, {pace.parameters / 1e6:.1f} M parameters, {weights}, {_pixels(recipe)}{fast}",
        f"  training  {_epochs(recipe)}, {counted(steps, 'step')} of {run.batch_size} {task.noun}, {optimizer.name} "
        f"with lr={optimizer.lr:g}, {recipe.schedule.name}{average}{precision}",
        f"  against learning by heart  {', '.join(f'{key}={value}' for key, value in changed.items()) or 'nothing'}",
        f"  time      about {duration(seconds)} here, {limit}{more}: {pace.step_s:.2f} s a step, measured{_busy()}",
    ]


def _regularisation(recipe: Recipe) -> dict[str, Any]:
    """What keeps a model from learning its samples by heart, by its keys."""
    flat = recipe.flat()
    wanted = ("augment.name", "augment.mixup", "augment.cutmix", "task.label_smoothing", "model.drop_path_rate")
    found = {path.split(".")[-1]: flat[path] for path in wanted if path in flat}
    if "name" in found:
        found = {"augment": found.pop("name"), **found}
    return found | {"weight_decay": recipe.optimizer.weight_decay, "patience": recipe.run.patience}


def _busy() -> str:
    """Whether other programs slow this machine down now."""
    try:
        load, cores = os.getloadavg()[0], os.cpu_count() or 1
    except (OSError, AttributeError):  # Windows has none
        return ""
    return f"; the machine is busy, load {load:.1f} on {cores} cores" if load > cores else ""


def is_parts(setting: str) -> bool:
    """Whether a setting says in how many parts a batch is computed, which changes no result."""
    return setting.partition("=")[0].strip() in ("accumulate", "run.accumulate")


def plan_source(spec: str, settings: Sequence[str], budget: Budget) -> str:
    """What a planned recipe says of where it comes from, by which it is known again.

    In how many parts a batch is computed does not count: a run that lacked memory goes on with more of them.
    """
    asked = [
        spec,
        *sorted(setting for setting in settings if not is_parts(setting)),
        *([f"budget {budget}"] if str(budget) else []),
    ]
    return f"ours: planned for {', '.join(asked)}; see `tokenmix docs finetune`"
