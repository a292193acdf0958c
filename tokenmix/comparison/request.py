"""What a comparison is asked for: every mistake in it is found here, before any work."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tokenmix.bench.match import BUDGETS
from tokenmix.files import locked, write_json
from tokenmix.mixers import MixerSpec, list_mixers, split_specs
from tokenmix.planning.latency import TIMED_IN
from tokenmix.recipes import RECIPES, Recipe, differences, make_recipe, override, with_values
from tokenmix.recipes.keys import find_key
from tokenmix.sources import recognise
from tokenmix.tasks import find_task
from tokenmix.train.loop import in_parts
from tokenmix_runtime.limits import check_number
from tokenmix_runtime.names import unknown
from tokenmix_runtime.untrusted import read_json

DEFAULT_MIXERS = ("aff", "ffnified", "additive", "dsm", "attention", "pool", "depthwise", "identity")
MATCHED = (*BUDGETS, "latency")
DECIDED = {
    "run.data": "the data are the first argument",
    "model.name": "name the skeleton with --skeleton (skeleton=)",
    "model.args": "name the mixers with --mixers (mixers=); --match chooses the widths",
}

Spec = MixerSpec | Sequence[MixerSpec]  # for all stages, or one per stage


@dataclasses.dataclass(frozen=True)
class Request:
    """Everything that decides the numbers of a comparison; what it was asked with is kept in ``compare.json``."""

    data: str
    mixers: tuple[str, ...]
    skeleton: str | None  # None: the recipe's
    recipe: Recipe
    seeds: int
    match: str | None
    timed_in: str | None = None  # the runtime, where times decide the widths
    limit_ms: float | None = None


def check_numbers(
    match: str | None,
    timed_in: str,
    budget_ms: float | None,
    seeds: int,
    batch_sizes: Sequence[int],
    measure_seconds: float,
    workers: int,
) -> None:
    """Raise where what `tokenmix.compare` is told in numbers and names cannot be, before anything is opened.

    Raises:
        ValueError: One is unknown, beyond its bounds, or contradicts another.
    """
    if match is not None and match not in MATCHED:
        raise ValueError(unknown("budget to match", match, MATCHED))
    if timed_in not in TIMED_IN:
        raise ValueError(unknown("runtime to be timed in", timed_in, TIMED_IN))
    if timed_in != TIMED_IN[0] and match != "latency" and budget_ms is None:
        raise ValueError(
            f"nothing is timed in {timed_in} to choose widths by: add --match latency (match=) or a budget of "
            "milliseconds, or leave --timed-in (timed_in=) out"
        )
    if budget_ms is not None and budget_ms <= 0:
        raise ValueError(f"a budget of milliseconds must be above 0, got {budget_ms:g}")
    if budget_ms is not None and match not in (None, "latency"):
        raise ValueError(f"match={match!r} chooses the widths, and so does a budget of milliseconds: give one of both")
    if seeds < 1:
        raise ValueError(f"seeds must be 1 or more, got {seeds}")
    if not batch_sizes or min(batch_sizes) < 1 or measure_seconds <= 0:
        raise ValueError("batch sizes and the seconds to measure must be positive")
    check_number("seeds", seeds)
    check_number("workers", workers)
    check_number("measure_seconds", measure_seconds)
    for count in batch_sizes:
        check_number("batch_size", count, "a batch size")


def spec_name(spec: Spec) -> str:
    """A spec as text: itself, or where a class or function comes from; those of the stages with commas between.

    Args:
        spec: What `tokenmix.compare` takes of one mixer.

    Returns:
        A name that reads like one of the command line.

    Examples:
        >>> from torch import nn
        >>> spec_name(["aff", nn.Identity])
        'aff,torch.nn.modules.linear:Identity'
    """
    if isinstance(spec, str):
        return spec
    if isinstance(spec, Sequence):
        return ",".join(map(spec_name, spec))
    if isinstance(spec, functools.partial):
        arguments = [*map(repr, spec.args), *(f"{name}={value!r}" for name, value in spec.keywords.items())]
        return f"{spec_name(spec.func)}({', '.join(arguments)})"
    module = getattr(spec, "__module__", None)
    return f"{module}:{getattr(spec, '__qualname__', type(spec).__name__)}"


def named_specs(mixers: Sequence[Spec] | str, recipe: Recipe) -> dict[str, Spec]:
    """Specs by name, each built once in the recipe's network.

    Raises:
        ValueError: A mixer is unknown or named twice, or there are not as many as the skeleton has stages for them.
    """
    listed = [
        re.sub(r"\s*\[(.*)\]\s*", r"\1", spec) if isinstance(spec, str) else spec
        for spec in (_listed(mixers) if isinstance(mixers, str) else mixers)
    ]
    if not listed:
        raise ValueError(f"name at least one mixer; known: {', '.join(list_mixers())}")
    names = [spec_name(spec) for spec in listed]
    task = find_task(recipe.task.name)
    for name, spec in zip(names, listed, strict=True):
        if names.count(name) > 1:
            raise ValueError(f"mixer {name!r} is named {names.count(name)} times; each needs a name of its own")
        with torch.device("meta"):
            task.build(recipe, task.example_facts, mixers=spec)
    return dict(zip(names, listed, strict=True))


def _listed(text: str) -> list[str]:
    """The mixers that a text lists; one that comes twice can only mean stages, and brackets always do."""
    specs = split_specs(text)
    return specs if len(set(specs)) == len(specs) else [text]


def base_recipe(name: str | None, settings: Sequence[str], data: str, skeleton: str | None) -> Recipe:
    """The recipe by which all mixers are trained, but for the mixer and the widths.

    Args:
        name: A recipe's name or file; None: that of the embedded data, or of the task that the data are for.
        settings: Overrides.
        data: What is compared on.
        skeleton: The network; None: the task's, or else the recipe's with its arguments.

    Raises:
        ValueError: It or a setting is wrong, or a setting decides what the comparison itself decides.
    """
    if name is None:
        task = recognise(data)[0]
        name = data if data in RECIPES else task.default_recipe
        if name is None:
            raise ValueError(f"{data} is for {task.title}, which has no usual recipe: name one with --recipe")
    # What the comparison decides is said at once, so that a recipe's file needs no trust for it.
    recipe = make_recipe(name, [f"data={data}", "model.args.mixers=identity"])
    chosen = skeleton or find_task(recipe.task.name).default_skeleton
    if chosen and chosen != recipe.model.name:
        recipe = override(recipe, [f"model={chosen}", "model_args={}"])
    else:
        arguments = {key: value for key, value in recipe.model.args.items() if key != "mixers"}
        recipe = with_values(recipe, model_args=arguments)
    for key in (setting.partition("=")[0].strip() for setting in settings):
        task = find_task(recipe.task.name)
        found = find_key(key, task)
        chosen_here = {"mixers", *task.width_arguments((0,))}
        if found.field in DECIDED and not (found.inside and found.inside[0] not in chosen_here):
            raise ValueError(f"the recipe key {key!r} cannot be set here: {DECIDED[found.field]}")
    recipe = override(recipe, settings)
    find_task(recipe.task.name).check_compared(recipe)
    return recipe


def check_owner(folder: Path, request: Request, fresh: bool) -> None:
    """Make sure that ``folder`` belongs to this comparison, so that nothing in it is taken for what it is not."""
    stamp = folder / "compare.json"
    if fresh or not stamp.is_file():
        return
    found, wanted = read_json(stamp), identity(request)
    differing = [key for key in wanted if found.get(key) != wanted[key]]
    if "recipe" in differing:
        differing.remove("recipe")
        # accumulate, which a run that lacked memory may change, is left to the runs themselves
        before = Recipe.from_values(found.get("recipe"), f"the recipe in {stamp}")
        changed = differences(in_parts(before, request.recipe), request.recipe)
        differing += [f"recipe.{change}" for change in changed]
    if differing:
        raise ValueError(
            f"{folder} holds another comparison (it differs in {', '.join(differing)}): "
            "choose another folder with --out, or start it again with --fresh"
        )


def claim(folder: Path, request: Request, fresh: bool) -> None:
    """Write into ``folder`` which comparison it belongs to, once nothing but training can go wrong."""
    if fresh:
        for entry in folder.glob("*/seed-*"):
            with locked(entry):  # or what a cluster still runs would lose its checkpoints
                shutil.rmtree(entry, ignore_errors=True)
    write_json(folder / "compare.json", identity(request))


def identity(request: Request) -> dict[str, Any]:
    """What must not change in a folder: all but the mixers and the seeds, more of which may join what is there."""
    wanted = {name: value for name, value in vars(request).items() if name not in ("mixers", "seeds")}
    return json.loads(json.dumps({**wanted, "recipe": request.recipe.flat()}))
