"""The main job: which token mixer for these images and this device? Mixers side by side, from data to shipped model."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from tokenmix.comparison.measuring import add_corruptions, measure
from tokenmix.comparison.planning import Estimate, planned_recipe, setting_line
from tokenmix.comparison.request import (
    DEFAULT_MIXERS,
    Request,
    Spec,
    base_recipe,
    check_numbers,
    check_owner,
    claim,
    named_specs,
)
from tokenmix.comparison.results import add_samples, command_line, decided, facts
from tokenmix.comparison.training import Trained, judge_runs, mixer_jobs
from tokenmix.comparison.widths import choose_widths
from tokenmix.evaluate import find_device
from tokenmix.export.extras import require
from tokenmix.files import finite, locked, write_json, write_text
from tokenmix.jobs import Local, Outcomes, Runner, make_runner, options
from tokenmix.pages.comparison import write_comparison
from tokenmix.planning.latency import TIMED_IN
from tokenmix.recipes import RECIPES
from tokenmix.recipes.keys import stated_task
from tokenmix.robustness import check_corruptible
from tokenmix.sources import load_data
from tokenmix.tasks import find_task
from tokenmix.train import Diverged, FitResult
from tokenmix_runtime.terminal import say

SCHEMA = "tokenmix.compare/1"


def compare(
    data: str | os.PathLike[str] = "digits",
    mixers: Sequence[Spec] | str | None = None,
    *,
    out: str | Path,
    skeleton: str | None = None,
    recipe: str | None = None,
    settings: Sequence[str] = (),
    seeds: int = 1,
    match: str | None = None,
    batch_sizes: Sequence[int] = (1, 32),
    compile: bool = False,
    measure_seconds: float = 60.0,
    device: str = "cpu",
    workers: int = 0,
    download: bool = False,
    fresh: bool = False,
    budget_s: float | None = None,
    corruptions: bool = False,
    budget_ms: float | None = None,
    timed_in: str = TIMED_IN[0],
    on: str | Runner = "local",
    log: Callable[[str], None] = say,
) -> dict[str, Any]:
    """Train each mixer in the same skeleton under one budget, judge it on held-out samples, export and measure it.

    Everything lands in ``out``: ``results.json`` (which is also returned), ``report.html``, ``command.txt``, and a
    folder per mixer with ``best.safetensors`` and ``model.onnx``. A second call continues where the first one ended.

    Args:
        data: ``"digits"``, an image folder, a torchvision data set's name, or ``hf:owner/name``.
        mixers: Mixer specs, each for all stages or, ``"aff,aff,pool,pool"``, one per stage. A text lists several with
            commas between; in it, ``"[aff,aff,pool,pool]"`` is one mixer. Default: the task's, or `DEFAULT_MIXERS`.
        out: The folder for the results.
        skeleton: A model's name whose builder takes ``mixers`` and ``dims``; default: ``"mixernet_pico"`` for classes
            of pictures, and else the recipe's model with its arguments.
        recipe: A recipe's name or file, which says the task; default: ``digits`` for the digits, for other data what
            `tokenmix.planning` plans for them and the task that they are recognised to be for.
        settings: Overrides of the recipe, ``"epochs=3"``.
        seeds: How many times each mixer is trained; the accuracy is then a mean with a spread.
        match: ``"params"``, ``"macs"`` or ``"latency"`` changes the widths of the others to the first mixer's budget,
            or, of ``"latency"``, to ``budget_ms``.
        batch_sizes: Of the latency measurement.
        compile: Measure `torch.compile` too; its first compilation takes a minute per mixer.
        measure_seconds: Time for the latency measurement of all mixers together.
        device: Where to train and measure.
        workers: Processes that load images; 0 loads in this one.
        download: Allow torchvision's and Hugging Face's data sets to be downloaded.
        fresh: Throw away what ``out`` holds of an earlier comparison.
        budget_s: Seconds that a planned recipe may take for all trainings together; None: an hour.
        corruptions: Judge each mixer on corrupted test pictures too, see `tokenmix.robustness.corruption_errors`.
        budget_ms: Milliseconds that an answer may take here, for one sample: widths of mixers that take longer are
            made smaller, and those that no widths make fast enough are left out; None: any.
        timed_in: Where those milliseconds are measured, ``"onnxruntime"`` or ``"pytorch"``.
        on: Where to train: ``"local"``, ``"ray"``, ``"slurm"``, or one of `tokenmix.jobs` with its options. The rest
            is done by this process.
        log: Takes progress lines.

    Returns:
        What ``results.json`` says: ``mixers`` by name with accuracies in percent, ``parameters``, multiply-accumulates
        and milliseconds, and what was compared, where and with which versions.

    Raises:
        ValueError: For an unknown name, or if ``out`` holds another comparison or another process is at work in it.
        ImportError: If an optional package is missing; the message has the install command.
        tokenmix.jobs.Queued: Slurm has the training; the same call collects it later.

    Examples:
        >>> import tokenmix
        >>> results = tokenmix.compare("photos", ["aff", "pool"], out="runs/photos", budget_s=600)  # doctest: +SKIP
        >>> sorted(results["mixers"])  # doctest: +SKIP
        ['aff', 'pool']
    """
    data = os.fspath(data)
    runner = make_runner(on)
    check_numbers(match, timed_in, budget_ms, seeds, batch_sizes, measure_seconds, workers)
    asked_device = device
    if isinstance(runner, Local):
        device = str(find_device(device))
    base = base_recipe(recipe, settings, data, skeleton)  # also where it is planned: mistakes are told first
    task = find_task(base.task.name)
    if corruptions:
        check_corruptible(task.name)
    # Who names a recipe or a task has decided how it is trained.
    planned = recipe is None and data not in RECIPES and not stated_task(settings)
    if budget_s is not None and not planned:
        raise ValueError(
            "a budget of training time (--budget 10min) is for a plan; here a recipe is named or the data have their "
            "own: set epochs instead (--set epochs=5)"
        )
    for package in ("scipy", *(("onnx", "onnxscript", "onnxruntime") if task.exported() else ())):
        require(package, "compare")
    own = task.own_widths(base)
    specs = named_specs(task.default_mixers or DEFAULT_MIXERS if mixers is None else mixers, base)
    timed = timed_in if match == "latency" or budget_ms is not None else None
    if timed == "onnxruntime" and not task.exported():
        raise ValueError(
            f"{task.title}: its models do not run in ONNX Runtime, so that they cannot be timed there: "
            "take --timed-in pytorch"
        )
    request = Request(data, tuple(specs), skeleton or task.default_skeleton, base, seeds, match, timed, budget_ms)
    folder = Path(out)
    with locked(folder):
        if not planned:
            check_owner(folder, request, fresh)
        samples = load_data(data, task=base.task.name, seed=base.run.seed, download=download, log=log)
        if planned:
            where: dict[str, Any] = {"device": device, "workers": workers, "fresh": fresh}
            base = planned_recipe(folder, request, samples, settings, budget_s, **where)
            request, own = replace(request, recipe=base), task.own_widths(base)
            check_owner(folder, request, fresh)
        size = getattr(task.complete(base, samples).task, "image_size", None)
        widths = choose_widths(folder, request, own, specs, size, samples, fresh, log, device=device)
        specs = {name: specs[name] for name in widths.dims}
        claim(folder, request, fresh)
        training = {"device": device, "workers": workers, "download": download}
        jobs = {
            name: mixer_jobs(folder, request, name, spec, widths.dims[name], samples, **training)
            for name, spec in specs.items()
        }
        log(setting_line(request, samples, size))
        estimate = Estimate(jobs, samples, log, measure_seconds) if isinstance(runner, Local) else None
        trained: dict[str, Trained] = {}
        with contextlib.closing(runner.run([job for group in jobs.values() for job in group], folder, log)) as outcomes:
            for number, (name, spec) in enumerate(specs.items(), 1):
                log(f"[{number}/{len(specs)}] {name}")
                runs = [_finished(outcomes, name) for _ in jobs[name]]
                if estimate and (left := estimate.ended(name, sum(run.seconds for run in runs))):
                    log(f"  {left}")
                device = str(find_device(device))  # judged and measured here, wherever it was trained
                trained[name] = judge_runs(name, spec, jobs[name], runs, samples, log)
        if corruptions:
            log("judging on corrupted pictures")
            add_corruptions(trained, samples, base.run.seed, device, log)
        measure(folder, base, trained, samples, batch_sizes, compile, measure_seconds, device, log)
        pictures = add_samples(task, trained, samples)
        asked = {
            "recipe": recipe,
            "batch_sizes": batch_sizes,
            "compile": compile,
            "measure_seconds": measure_seconds,
            "device": asked_device,
            "workers": workers,
            "budget_s": budget_s,
            "corruptions": corruptions,
            "budget_ms": budget_ms,
            "timed_in": timed_in,
            **options(runner),
        }
        found = next(iter(trained.values())).judgement.judging.base_line()
        results = {
            "schema": SCHEMA,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": command_line(request, str(out), settings, asked, compare.__kwdefaults__ or {}),
            **facts(request, samples, size),
            "base_line": None if found is None else {"value": found[0], "words": found[1]},
            "timed": None if timed is None else {"in": timed, "ms": widths.target_ms, "mixers": widths.milliseconds},
            "left_out": widths.left_out,
            "device": device,
            "threads": torch.get_num_threads(),
            "batch_sizes": list(batch_sizes),
            "runtimes": list(dict.fromkeys(runtime for one in trained.values() for runtime in one.entry["latency_ms"])),
            "statistics": decided(task, trained),
            "mixers": {name: one.entry for name, one in trained.items()},
        }
        results = finite(json.loads(json.dumps(results)))  # what is returned is what the file holds
        write_json(folder / "results.json", results)
        write_text(folder / "command.txt", results["command"] + "\n")
        write_comparison(results, folder / "report.html", pictures)
    return results


def _finished(outcomes: Outcomes, name: str) -> FitResult:
    """The next outcome, which must be a mixer's result."""
    outcome = next(outcomes)
    if isinstance(outcome, Diverged):
        raise Diverged(f"{name}: {outcome}; what is trained is kept, and --mixers can leave this one out") from outcome
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
