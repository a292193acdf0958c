"""What a comparison writes down beside the numbers: what was compared, the command, answers with their pictures."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tokenmix.bench import machine
from tokenmix.comparison.request import Request
from tokenmix.comparison.statistics import decide
from tokenmix.comparison.training import Trained
from tokenmix.data.dataset import DataSet
from tokenmix.mixers import split_specs
from tokenmix.tasks import Task, find_task
from tokenmix.train.checkpoint import versions


def facts(request: Request, data: DataSet, size: tuple[int, int] | None) -> dict[str, Any]:
    """What was compared, on what, by what."""
    base = request.recipe
    task = find_task(base.task.name)
    return {
        "task": task.name,
        "noun": task.noun,
        "headline": task.headline,
        "unit": task.unit(task.headline),
        "lower_is_better": task.lower_is_better,
        "skeleton": base.model.name,
        "match": request.match,
        "seeds": list(range(base.run.seed, base.run.seed + request.seeds)),
        "data": {
            "name": data.name,
            **data.facts,
            "train": len(data.train),
            "val": len(data.val),
            "test": len(data.test),
            **({"tested_on": "val"} if data.test is data.val else {}),
            **({} if size is None else {"image_size": size[0] if size[0] == size[1] else size}),
            "skipped": [dataclasses.asdict(skipped) for skipped in data.skipped],
        },
        "recipe": base.flat(),
        "machine": machine.describe(),
        "versions": {**machine.versions(), **versions()},
    }


def command_line(
    request: Request, out: str, settings: Sequence[str], options: Mapping[str, Any], defaults: Mapping[str, Any]
) -> str:
    """The command line that repeats this comparison: what differs from its defaults."""
    mixers = request.mixers
    if len(mixers) == 1 and len(split_specs(mixers[0])) > 1:
        mixers = (f"[{mixers[0]}]",)  # else it would be a list of mixers
    words = ["tokenmix", "compare", request.data, "--mixers", *mixers, "--out", out]
    usual = find_task(request.recipe.task.name).default_skeleton
    skeleton = None if request.skeleton == usual else request.skeleton
    asked = {**options, "skeleton": skeleton, "seeds": request.seeds, "match": request.match}
    for name, value in asked.items():
        if name in defaults and value == defaults[name]:
            continue
        if name in ("budget_s", "budget_ms"):
            words += [*(() if "--budget" in words else ("--budget",)), f"{value:g}{name.removeprefix('budget_')}"]
            continue
        flag = f"--{name.replace('_', '-')}"
        values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        words += [flag] if value is True else [flag, *(str(v) for v in values)]
    return shlex.join([*words, *(word for setting in settings for word in ("--set", setting))])


def add_samples(task: Task, trained: Mapping[str, Trained], data: DataSet) -> dict[str, bytes]:
    """Give every mixer's entry its answers on the same test samples, and return pictures of those as PNG by name."""
    entries, pictures = task.samples({name: one.judgement.judging for name, one in trained.items()}, data)
    for name, one in trained.items():
        one.entry["samples"] = entries.get(name, [])
    return pictures


def decided(task: Task, trained: Mapping[str, Trained]) -> dict[str, Any] | None:
    """What the test says of the mixers, see `tokenmix.comparison.statistics.decide`; None where it says nothing.

    ``left_out`` names the mixers with a score that is not finite. As long as there is one, nobody is the winner.
    """
    told = {name: one.scores for name, one in trained.items() if one.scores is not None}
    scores = {name: values for name, values in told.items() if np.isfinite(values).all()}
    if len(scores) < 2:
        return None
    one = trained[next(iter(scores))]
    found = decide(scores, noun=one.item_noun, lower_is_better=task.lower_is_better, chained=one.chained_items)
    left_out = [name for name in told if name not in scores]
    return {**found, "left_out": left_out, "winner": None if left_out else found["winner"]}
