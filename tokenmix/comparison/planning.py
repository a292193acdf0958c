"""What a comparison takes: a recipe that fits the data and the time, an estimate before it starts and on the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tokenmix.comparison.request import check_settings
from tokenmix.data.dataset import DataSet
from tokenmix.evaluate import find_device
from tokenmix.jobs import Job
from tokenmix.planning.budget import duration
from tokenmix.planning.pace import measure_pace
from tokenmix.planning.plan import sets_length
from tokenmix.recipes import Recipe, override, with_epochs, with_values
from tokenmix.tasks import Task, find_task
from tokenmix_runtime.untrusted import read_json

USUAL_S = 3600.0  # of a comparison that nobody gave a limit
SKELETON_ARGS = ("stem_stride",)  # of a planned model, which a skeleton takes too


def planned_recipe(
    folder: Path,
    task: Task,
    data: DataSet,
    spec: str,
    settings: Sequence[str],
    skeleton: str | None,
    mixers: Sequence[str],
    runs: int,
    limit_s: float | None,
    *,
    device: str,
    workers: int,
    fresh: bool,
) -> Recipe:
    """The recipe that the data's task plans, for the skeleton; that of the comparison in the folder, if it goes on.

    Args:
        folder: Of the comparison.
        task: Of the data.
        data: What is learnt from.
        spec: Its name.
        settings: Overrides, which the plan obeys.
        skeleton: The model that is trained; None: the plan's own.
        mixers: Those whose names can be built; the first one's steps are measured.
        runs: How many trainings share the time.
        limit_s: Seconds for all of them; None: `USUAL_S`.
        device: Where they are trained.
        workers: Processes that load samples.
        fresh: Whether the comparison starts again.

    Raises:
        ValueError: The task plans nothing, or a setting is wrong.
    """
    check_settings(settings, task)
    asked = [spec, *sorted(settings), *([duration(limit_s)] if limit_s else [])]
    source = f"ours: planned for the comparison on {', '.join(asked)}; see `tokenmix docs finetune`"
    stamp = folder / "compare.json"
    if not fresh and stamp.is_file():
        before = Recipe.from_values(read_json(stamp).get("recipe"), f"the recipe in {stamp}")
        if before.source == source and before.run.data == spec and before.model.name == (skeleton or before.model.name):
            return before
    recipe, share = None, 1.0
    for draft in task.drafts(data, find_device(device)):
        own = draft.recipe.model
        taken = SKELETON_ARGS if skeleton else [key for key in own.args if key != "mixers"]
        args = {key: value for key, value in own.args.items() if key in taken}
        model = dataclasses.replace(own, name=skeleton or own.name, args=args, weights=None)
        plain = dataclasses.replace(draft.recipe, model=model, source=source)
        recipe = override(plain, [*settings, f"data={spec}"])
        task.check_compared(recipe)
        tried = with_values(recipe, model_args={**args, **({"mixers": mixers[0]} if mixers else {})})
        share = (limit_s or USUAL_S) / (runs * measure_pace(tried, data, find_device(device), workers=workers).seconds)
        if share >= draft.least:
            break
    assert recipe is not None, "a task gives a draft or raises"
    if share < 1 and not sets_length(settings, task) and recipe.schedule.steps is None:
        recipe = with_epochs(recipe, max(1, int(share * recipe.schedule.epochs)))
    return recipe


class Estimate:
    """How long the trainings of a comparison take: by a few steps of each mixer, corrected by those that have ended.

    Args:
        jobs: The runs of each mixer, by its name.
        data: What is learnt from.
        log: Takes plain lines.
    """

    def __init__(self, jobs: Mapping[str, Sequence[Job]], data: DataSet, log: Callable[[str], None]) -> None:
        self.left: dict[str, float] = {}
        self.expected = self.spent = 0.0
        for name, group in jobs.items():
            open_jobs = [job for job in group if not job.outcome_file.is_file()]
            seconds = 0.0
            if open_jobs:
                first = open_jobs[0]
                device = find_device(first.device)
                pace = measure_pace(first.recipe, data, device, workers=first.workers, model=first.make)
                seconds = pace.seconds * len(open_jobs)
            self.left[name] = seconds
        if sum(self.left.values()):
            each = ", ".join(f"{name} {duration(seconds)}" for name, seconds in self.left.items() if seconds)
            log(f"training takes about {duration(sum(self.left.values()))} here, by a few steps of each: {each}")

    def ended(self, name: str, seconds: float) -> str:
        """Told when a mixer's trainings have ended after so many seconds; returns what is left, in words."""
        expected = self.left.pop(name, 0.0)
        if expected:
            self.expected += expected
            self.spent += seconds
        left = sum(self.left.values()) * (self.spent / self.expected if self.expected else 1.0)
        return f"about {duration(left)} of training left" if left else ""


def setting_line(recipe: Recipe, data: DataSet, mixers: int, seeds: int, size: Sequence[int] | None) -> str:
    """What is going to be trained, in a line."""
    task = find_task(recipe.task.name)
    shape = "" if size is None else f" at {size[0]} px" if size[0] == size[1] else f" at {size[0]} x {size[1]} px"
    each = f", {seeds} seeds each" if seeds > 1 else ""
    return (
        f"comparing {mixers} mixers{each} in {recipe.model.name}{shape}: {recipe.length} of {len(data.train):,} "
        f"training {task.noun}, {recipe.run.batch_size} per step"
    )
