"""Training the mixers of a comparison: a job for every mixer and seed, and the best of each judged on test images."""

from __future__ import annotations

import dataclasses
import functools
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tokenmix.bench.cost import cost, count
from tokenmix.bench.match import Match, nearest_widths
from tokenmix.checkpoints import LoadedModel, described_model, open_model
from tokenmix.comparison.request import Request, Spec
from tokenmix.data.dataset import DataSet
from tokenmix.data.loader import BatchLoader
from tokenmix.evaluate import Judgement, judge
from tokenmix.files import atomic_path, slug
from tokenmix.jobs import Job
from tokenmix.recipes import Recipe, with_values
from tokenmix.tasks import find_task
from tokenmix.train import FitResult, load_run
from tokenmix.train.log import Shown


@dataclasses.dataclass
class Trained:
    """A mixer's best run: its model, what its test says, and what goes into the results."""

    spec: Spec
    loaded: LoadedModel
    judgement: Judgement
    entry: dict[str, Any]


def choose_dims(
    request: Request,
    own: tuple[int, ...],
    specs: Mapping[str, Spec],
    size: tuple[int, int] | None,
    facts: Mapping[str, Any],
    log: Callable[[str], None],
) -> dict[str, tuple[int, ...]]:
    """Widths per mixer: the skeleton's own, or those that match the first mixer's budget.

    Raises:
        ValueError: MACs are wanted of models that see no pictures of one size.
    """
    task = find_task(request.recipe.task.name)
    result = dict.fromkeys(specs, own)
    if request.match is None:
        return result
    if request.match == "macs" and size is None:
        raise ValueError(f"--match macs is for pictures of one size; {task.noun} have none: match params")

    def counted(name: str, widths: tuple[int, ...]) -> int:
        with torch.device("meta" if request.match == "params" else "cpu"):
            model = _build(widened(request.recipe, widths), facts, specs[name])
        if request.match == "macs":
            assert size is not None
            return cost(task.raw_form(model), size).macs
        return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)

    first = next(iter(specs))
    target = counted(first, own)
    log(f"budget: {target:,} {request.match} of {first} with widths {own}")
    for name in list(specs)[1:]:
        found: Match = nearest_widths(functools.cache(functools.partial(counted, name)), own, target)
        log(f"  {name}: widths {found.dims}, {found.value:,} {request.match} ({found.deviation:+.1%})")
        result[name] = found.dims
    return result


def widened(recipe: Recipe, dims: tuple[int, ...], **model_args: Any) -> Recipe:
    """The recipe of a skeleton with other widths."""
    widths = find_task(recipe.task.name).width_arguments(dims)
    return with_values(recipe, model_args={**recipe.model.args, **widths, **model_args})


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
            make=None if isinstance(spec, str) else functools.partial(_build, plain, data.facts, spec),
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
    runs = []
    for job, result in zip(jobs, results, strict=True):
        loaded = open_model(result.best_weights) if job.make is None else _made(job, result)
        shown = functools.partial(_shown, log=log, label=f"{name}: testing")
        judgement = judge(loaded, data.test, data.facts, device=device, shown=shown)
        loaded.model.cpu()
        runs.append((result, loaded, judgement))
    headline = task.headline
    scores = [judgement.numbers[headline] for *_, judgement in runs]
    better = min if task.lower_is_better else max
    best = better(range(len(runs)), key=lambda row: runs[row][0].best[f"val_{headline}"])
    result, loaded, judgement = runs[best]
    with atomic_path(place / "best.safetensors") as temporary:
        shutil.copyfile(result.best_weights, temporary)
    module, inputs = task.timed(loaded, data.test, 1)
    counted = count(module.eval(), inputs)
    entry = {
        "mixer": name,
        f"test_{headline}": sum(scores) / len(scores),
        f"test_{headline}_spread": statistics.stdev(scores) if len(scores) > 1 else None,
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
    return Trained(spec, loaded, judgement, entry)


def _shown(loader: BatchLoader, *, log: Callable[[str], None], label: str) -> Shown:
    return Shown(loader, log, label)


def _made(job: Job, result: FitResult) -> LoadedModel:
    """The run of a mixer that is an object, which no file can name."""
    assert job.make is not None
    model, info = load_run(result.best_weights, model=job.make())
    return described_model(model, info)


def _build(recipe: Recipe, facts: Mapping[str, Any], spec: Spec) -> nn.Module:
    """A recipe is text; a mixer that is an object goes beside it."""
    return find_task(recipe.task.name).build(recipe, facts, mixers=spec)
