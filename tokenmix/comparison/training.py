"""Training the mixers of a comparison: a job for every mixer and seed, and the best of each judged on test images."""

from __future__ import annotations

import dataclasses
import functools
import math
import shutil
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenmix.bench.cost import count
from tokenmix.checkpoints import LoadedModel, described_model, open_model
from tokenmix.comparison.request import Request, Spec
from tokenmix.comparison.statistics import interval
from tokenmix.comparison.widths import build, widened
from tokenmix.data.dataset import DataSet
from tokenmix.data.loader import BatchLoader
from tokenmix.evaluate import Judgement, judge
from tokenmix.files import atomic_path, slug
from tokenmix.jobs import Job
from tokenmix.recipes import with_values
from tokenmix.tasks import find_task
from tokenmix.train import FitResult, load_run
from tokenmix.train.log import Shown


@dataclasses.dataclass
class Trained:
    """A mixer's best run: its model, what its test says, and what goes into the results.

    ``scores`` are the headline by seeds and test items, (S, N), and ``item_noun`` is what an item is called; None where
    the task cannot tell it by items. ``chained_items``: they share data with their neighbours.
    """

    spec: Spec
    loaded: LoadedModel
    judgement: Judgement
    entry: dict[str, Any]
    scores: NDArray[np.float64] | None = None
    item_noun: str = ""
    chained_items: bool = False


def mixer_jobs(
    folder: Path,
    request: Request,
    name: str,
    spec: Spec,
    dims: tuple[int, ...],
    data: DataSet,
    **options: Any,
) -> list[Job]:
    """A job for every seed of one mixer."""
    jobs = []
    for seed in range(request.recipe.run.seed, request.recipe.run.seed + request.seeds):
        plain = with_values(widened(request.recipe, dims), seed=seed)
        recipe = widened(plain, dims, mixers=name)
        job = Job(
            folder / slug(name) / f"seed-{seed}",
            recipe,
            request.recipe.run.seed,
            label=f"seed {seed}" if request.seeds > 1 else "",
            data=lambda: data,
            make=None if isinstance(spec, str) else functools.partial(build, plain, data.facts, spec),
            **options,
        )
        jobs.append(job)
    return jobs


def judge_runs(
    name: str,
    spec: Spec,
    jobs: Sequence[Job],
    results: Sequence[FitResult],
    data: DataSet,
    log: Callable[[str], None],
) -> Trained:
    """Judge every seed of one mixer on the test samples; the weights of the best seed are kept."""
    place, device, task = jobs[0].folder.parent, jobs[0].device, find_task(jobs[0].recipe.task.name)
    runs, by_item = [], []
    for job, result in zip(jobs, results, strict=True):
        loaded = open_model(result.best_weights) if job.make is None else _made(job, result)
        shown = functools.partial(_shown, log=log, label=f"{name}: testing", noun=task.noun)
        judgement = judge(loaded, data.test, data.facts, device=device, shown=shown)
        loaded.model.cpu()
        runs.append((result, loaded, judgement))
        by_item.append(judgement.judging.item_scores())
    headline = task.headline
    better = min if task.lower_is_better else max
    scores = [judgement.numbers[headline] for *_, judgement in runs]
    several = len(scores) > 1 and all(map(math.isfinite, scores))
    chosen_by = [run[0].best[f"val_{headline}"] for run in runs]  # None where it was no number
    known = [row for row, value in enumerate(chosen_by) if value is not None] or [0]
    best = better(known, key=chosen_by.__getitem__)
    result, loaded, judgement = runs[best]
    with atomic_path(place / "best.safetensors") as temporary:
        shutil.copyfile(result.best_weights, temporary)
    module, inputs = task.timed(loaded, data.test, 1)
    counted = count(module.eval(), inputs)
    entry = {
        "mixer": name,
        f"test_{headline}": sum(scores) / len(scores),
        f"test_{headline}_spread": statistics.stdev(scores) if several else None,
        f"test_{headline}_per_seed": scores,
        f"val_{headline}": result.best[f"val_{headline}"],
        "dims": list(task.own_widths(jobs[0].recipe)),
        "params": counted.params,
        "macs": counted.macs,
        "transform_macs": counted.transform_macs,
        "seconds": sum(run[0].seconds for run in runs),
        "weights_sha256": result.best["weights_sha256"],
        "history": result.history,
        **task.compared(judgement.judging),
        "files": {"weights": f"{place.name}/best.safetensors"}
        | ({"onnx": f"{place.name}/model.onnx"} if task.exported() else {}),
    }
    mean = task.shown(headline, entry[f"test_{headline}"])
    log(f"  {name}: {headline} {mean} on {len(data.test):,} test {task.noun}")
    items = [found for found in by_item if found is not None]
    if len(items) < len(runs):
        return Trained(spec, loaded, judgement, entry)
    values = np.stack([found.values for found in items])
    if not np.isfinite(values).all():
        log(f"  {name}: its {headline} is not finite on all {items[0].noun}: it is compared with none, and nobody wins")
    if not task.headline_is_share:
        entry[f"test_{headline}_interval"] = interval(values, chained=items[0].chained)
    return Trained(spec, loaded, judgement, entry, values, items[0].noun, items[0].chained)


def _shown(loader: BatchLoader, *, log: Callable[[str], None], label: str, noun: str) -> Shown:
    return Shown(loader, log, label, noun)


def _made(job: Job, result: FitResult) -> LoadedModel:
    """The run of a mixer that is an object, which no file can name."""
    assert job.make is not None
    model, info = load_run(result.best_weights, model=job.make())
    return described_model(model, info)
