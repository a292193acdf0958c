"""Families of training runs: one recipe over a grid of overrides, a run each, and one table of what came of them."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tokenmix.data.dataset import DataSet
from tokenmix.evaluate import find_device
from tokenmix.files import locked, slug, write_csv, write_json
from tokenmix.jobs import Job, Local, Outcome, Runner, make_runner
from tokenmix.mixers import split_specs
from tokenmix.recipes import Recipe, make_recipe
from tokenmix.recipes.keys import find_key
from tokenmix.sources import load_data
from tokenmix.tasks import Task, find_task
from tokenmix_runtime.limits import check_number
from tokenmix_runtime.terminal import say

SCHEMA = "tokenmix.sweep/1"
SEEDS = ("seed", "run.seed")  # keys whose values are not compared but averaged over
Point = dict[str, str]  # a value, as text, for every key that is swept


def sweep(
    recipe: str,
    over: Sequence[str],
    *,
    out: str | Path,
    settings: Sequence[str] = (),
    data: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    workers: int = 0,
    download: bool = False,
    fresh: bool = False,
    on: str | Runner = "local",
    log: Callable[[str], None] = say,
) -> dict[str, Any]:
    """Train a recipe once for every combination of values, and say what came of each.

    A run is what ``tokenmix train`` makes of the recipe with these settings, in a folder of its own below ``out``. One
    that fails stands as failed in the table, and the others go on. A second call continues, and may add values.
    ``out`` also gets ``sweep.json`` (which is returned) and ``sweep.csv`` (its ``table``).

    Args:
        recipe: A recipe's or model's name, or a recipe's file.
        over: What is varied, as settings with several values: ``["seed=0,1,2", "model_args.mixers=aff,pool"]``. A value
            with commas stands in brackets or quotes.
        out: The folder for the runs.
        settings: Overrides for all runs, ``["epochs=3"]``.
        data: What ``tokenmix.data.load_data`` takes; None leaves it to the recipe.
        device: Where to train.
        workers: Processes that load images.
        download: Allow named data sets to be downloaded.
        fresh: Throw away what the runs' folders hold.
        on: ``"local"``, ``"ray"``, ``"slurm"``, or one of `tokenmix.jobs` with its options.
        log: Takes progress lines.

    Returns:
        ``schema``, ``recipe`` (name), ``settings``, ``over`` (values by key), ``metric`` (the number that is reported),
        ``runs`` (a dict each: ``folder``, ``values``, ``result``: the best epoch, or None, ``seconds``, ``error``) and
        ``table``: for every combination but for the seeds a dict with ``values``, ``runs`` (that finished),
        ``failed``, ``mean`` and ``spread`` (standard deviation; None for fewer than two runs) of the metric, and
        ``best``, the folder of the best run.

    Raises:
        ValueError: A name, key or value is wrong, or a folder holds another run.
        tokenmix.jobs.Queued: Slurm has the training; the same call collects it later.
    """
    check_number("workers", workers)
    runner = make_runner(on)
    if isinstance(runner, Local):
        find_device(device)
    axes = _axes(over)
    points = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    common = [*settings, *([f"data={os.fspath(data)}"] if data is not None else [])]
    recipes = [make_recipe(recipe, [*common, *_settings(point)]) for point in points]
    task = find_task(recipes[0].task.name)
    _check_once(axes, common, task)
    folder = Path(out)
    with locked(folder):
        load = functools.cache(functools.partial(_load, recipes[0].task.name, download, log))
        first: dict[str, DataSet] = {}  # whatever the seed, a data set has as many classes and images to learn from
        jobs = []
        for point, one in zip(points, recipes, strict=True):
            if one.run.data not in first:
                first[one.run.data] = load(one.run.data, one.run.seed)
            images = first[one.run.data]
            one = make_recipe(recipe, [*common, *_settings(point)], images=len(images.train))
            _check_model(one, images.facts)
            source = functools.partial(load, one.run.data, one.run.seed)
            options: dict[str, Any] = {"device": device, "workers": workers, "download": download, "data": source}
            jobs.append(Job(folder / run_name(point), one, one.run.seed, **options))
        for job in jobs if fresh else []:
            if job.folder.is_dir():
                with locked(job.folder):  # or what a cluster still runs would lose its checkpoints
                    shutil.rmtree(job.folder, ignore_errors=True)
        metric = f"val_{task.headline}"
        runs = []
        with contextlib.closing(runner.run(jobs, folder, log)) as outcomes:
            for number, (job, point) in enumerate(zip(jobs, points, strict=True), 1):
                name = str(job.folder.relative_to(folder))
                log(f"[{number}/{len(jobs)}] {name}")
                runs.append(_row(name, point, next(outcomes), metric))
                said = runs[-1]["error"] or f"{metric} {task.shown(task.headline, runs[-1]['result'][metric])}"
                log(f"  {name}: {said}")
        results = {
            "schema": SCHEMA,
            "recipe": recipe,
            "settings": common,
            "over": axes,
            "metric": metric,
            "runs": runs,
            "table": _table(runs, metric, smaller=task.lower_is_better),
        }
        write_json(folder / "sweep.json", results)
        _write_table(folder / "sweep.csv", results)
    return json.loads(json.dumps(results))  # what is returned is what the file holds


def run_name(point: Mapping[str, str]) -> str:
    """The folder of a run: its values, those of the seed in a folder below the others."""
    parts = [f"{key.removeprefix('model_args.')}-{slug(value)}" for key, value in point.items() if key not in SEEDS]
    seed = [f"seed-{slug(value)}" for key, value in point.items() if key in SEEDS]
    return "/".join([*(["_".join(parts)] if parts else []), *seed])


def _axes(over: Sequence[str]) -> dict[str, list[str]]:
    """The values of every key."""
    axes: dict[str, list[str]] = {}
    for text in over:
        key, equals, values = (part.strip() for part in text.partition("="))
        if not equals or not values:
            raise ValueError(f"{text!r} names no values; write key=value,value, for example seed=0,1,2")
        if key in axes:
            raise ValueError(f"{key!r} is varied twice: give all its values at once")
        axes[key] = split_specs(values)
        for value in axes[key]:
            if not value or axes[key].count(value) > 1:
                raise ValueError(f"{text!r} has " + (f"the value {value} twice" if value else "an empty value"))
    if not axes:
        raise ValueError("name what is varied, for example --over seed=0,1,2; a single run is `tokenmix train`")
    return axes


def _check_once(axes: Mapping[str, Sequence[str]], common: Sequence[str], task: Task) -> None:
    """Raise where a key is varied under two of its names, or both varied and set: one of them would be ignored."""
    varied: dict[str, str] = {}
    for key in axes:
        if (other := varied.setdefault(find_key(key, task).path, key)) != key:
            raise ValueError(f"{other!r} and {key!r} are one key, varied twice: give all its values at once")
    for setting in common:
        if (path := find_key(setting.partition("=")[0].strip(), task).path) in varied:
            told = f"--over {varied[path]}=..."
            raise ValueError(f"{setting!r} sets for all runs what {told} varies: leave one of the two out")


def _settings(point: Point) -> list[str]:
    return [f"{key}={value}" for key, value in point.items()]


def _load(task: str, download: bool, log: Callable[[str], None], data: str, seed: int) -> DataSet:
    return load_data(data, task=task, seed=seed, download=download, log=log)


def _check_model(recipe: Recipe, facts: Mapping[str, Any]) -> None:
    """Find a wrong model, mixer or argument before any run; no weights are made.

    Raises:
        ValueError: There is no such model or mixer.
        TypeError: The model has no such argument.
    """
    # A model that cannot be made without weights is left to its run.
    with contextlib.suppress(RuntimeError), torch.device("meta"):
        find_task(recipe.task.name).build(recipe, facts)


def _row(name: str, point: Point, outcome: Outcome, metric: str) -> dict[str, Any]:
    """One run as JSON."""
    row: dict[str, Any] = {"folder": name, "values": point, "result": None, "seconds": None, "error": None}
    if isinstance(outcome, Exception):
        return row | {"error": f"{type(outcome).__name__}: {outcome}"}
    if outcome.best.get(metric) is None:
        return row | {"error": f"there is no {metric}", "seconds": outcome.seconds}
    return row | {"result": outcome.best, "seconds": outcome.seconds}


def _table(runs: Sequence[Mapping[str, Any]], metric: str, *, smaller: bool) -> list[dict[str, Any]]:
    """A row for every combination without the seed."""
    groups: dict[tuple[tuple[str, str], ...], list[Mapping[str, Any]]] = {}
    for run in runs:
        values = tuple((key, value) for key, value in run["values"].items() if key not in SEEDS)
        groups.setdefault(values, []).append(run)
    table = []
    for group, members in groups.items():
        done = {run["folder"]: run["result"][metric] for run in members if run["result"]}
        scores = list(done.values())
        row = {
            "values": dict(group),
            "runs": len(done),
            "failed": len(members) - len(done),
            "mean": statistics.fmean(scores) if scores else None,
            "spread": statistics.stdev(scores) if len(scores) > 1 else None,
            "best": (min if smaller else max)(done, key=done.__getitem__, default=None),
        }
        table.append(row)
    return table


def _write_table(path: Path, results: Mapping[str, Any]) -> None:
    """The table as comma-separated values."""
    keys = [key for key in results["over"] if key not in SEEDS]
    columns = [key for key in results["table"][0] if key != "values"]
    rows = ([row["values"].get(key) for key in keys] + [row[key] for key in columns] for row in results["table"])
    write_csv(path, [*keys, *columns], rows)
