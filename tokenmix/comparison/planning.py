"""What a comparison takes: a recipe that fits the data and the time, an estimate before it starts and on the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tokenmix.comparison.request import Request
from tokenmix.data.dataset import DataSet
from tokenmix.evaluate import find_device
from tokenmix.jobs import Job
from tokenmix.planning.budget import duration
from tokenmix.planning.pace import measure_pace
from tokenmix.planning.plan import sets_length
from tokenmix.recipes import Recipe, override, with_epochs, with_values
from tokenmix.recipes.keys import keys_of
from tokenmix.recipes.stored import check_recipe
from tokenmix.tasks import find_task
from tokenmix_runtime.untrusted import read_json

USUAL_S = 3600.0  # of a comparison that nobody gave a limit
SKELETON_ARGS = ("stem_stride",)  # of a planned model, which a skeleton takes too


def planned_recipe(
    folder: Path,
    request: Request,
    data: DataSet,
    settings: Sequence[str],
    limit_s: float | None,
    *,
    device: str,
    workers: int,
    fresh: bool,
) -> Recipe:
    """The recipe that the data's task plans, with the request's skeleton; that of the comparison in the folder, if any.

    Args:
        folder: Of the comparison.
        request: What is compared, with a recipe that was not planned; it has been checked.
        data: What is learnt from.
        settings: Overrides, which the plan obeys.
        limit_s: Seconds for all trainings together; None: `USUAL_S`.
        device: Where they are trained.
        workers: Processes that load samples.
        fresh: Whether the comparison starts again.

    Raises:
        ValueError: The task plans nothing, or a setting does not fit what it plans.
    """
    task = find_task(request.recipe.task.name)
    asked = [request.data, *sorted(settings), *([duration(limit_s)] if limit_s else [])]
    source = f"ours: planned for the comparison on {', '.join(asked)}; see `tokenmix docs finetune`"
    stamp = folder / "compare.json"
    if not fresh and stamp.is_file():
        before = Recipe.from_values(read_json(stamp).get("recipe"), f"the recipe in {stamp}")
        if before.source == source and before.run.data == request.data and ":" not in before.model.name:
            check_recipe(before, str(stamp), {"run.data", *keys_of(settings)})
            return before
    recipe, share, runs = request.recipe, 1.0, len(request.mixers) * request.seeds
    mixers = {} if ":" in request.mixers[0] else {"mixers": request.mixers[0]}  # code is built by the jobs alone
    drafts = task.drafts(data, find_device(device))
    for draft in [draft for draft in drafts if "mixers" in draft.recipe.model.args] or drafts:
        model = draft.recipe.model
        name, kept = model.name, {key: value for key, value in model.args.items() if key != "mixers"}
        if request.skeleton:
            name, kept = request.skeleton, {key: kept[key] for key in SKELETON_ARGS if key in kept}
        plain = dataclasses.replace(model, name=name, args=kept, weights=None)
        recipe = override(
            dataclasses.replace(draft.recipe, model=plain, source=source), [*settings, f"data={request.data}"]
        )
        task.check_compared(recipe)
        tried = with_values(recipe, model_args={**recipe.model.args, **mixers})
        share = (limit_s or USUAL_S) / (runs * measure_pace(tried, data, find_device(device), workers=workers).seconds)
        if share >= draft.least:
            break
    if share < 1 and not sets_length(settings, task) and recipe.schedule.steps is None:
        recipe = with_epochs(recipe, max(1, int(share * recipe.schedule.epochs)))
    return recipe


class Estimate:
    """How long the trainings of a comparison take: by a few steps of each mixer, corrected by those that have ended.

    Args:
        jobs: The runs of each mixer, by its name.
        data: What is learnt from.
        log: Takes plain lines.
        measure_s: Seconds of measuring that come after the trainings, for the message.
    """

    def __init__(
        self, jobs: Mapping[str, Sequence[Job]], data: DataSet, log: Callable[[str], None], measure_s: float
    ) -> None:
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
            log(
                f"training takes about {duration(sum(self.left.values()))} here, by a few steps of each: {each}; "
                f"judging, export and {duration(measure_s)} of measuring come on top"
            )

    def ended(self, name: str, seconds: float) -> str:
        """Told when a mixer's trainings have ended after so many seconds; returns what is left, in words."""
        expected = self.left.pop(name, 0.0)
        if expected:
            self.expected += expected
            self.spent += seconds
        left = sum(self.left.values()) * (self.spent / self.expected if self.expected else 1.0)
        return f"about {duration(left)} of training left" if left else ""


def setting_line(request: Request, data: DataSet, size: Sequence[int] | None) -> str:
    """What is going to be trained, in a line."""
    recipe, seeds = request.recipe, request.seeds
    shape = "" if size is None else f" at {size[0]} px" if size[0] == size[1] else f" at {size[0]} x {size[1]} px"
    each = f", {seeds} seeds each" if seeds > 1 else ""
    return (
        f"comparing {len(request.mixers)} mixers{each} in {recipe.model.name}{shape}: {recipe.length} of "
        f"{len(data.train):,} training {find_task(recipe.task.name).noun}, {recipe.run.batch_size} per step"
    )
