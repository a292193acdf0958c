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

import timm
import torch

from tokenmix.bench.match import base_dims
from tokenmix.checkpoints import our_models
from tokenmix.files import write_json
from tokenmix.mixers import MixerSpec, list_mixers, split_specs
from tokenmix.recipes import Recipe, differences, make_recipe, override
from tokenmix.recipes.keys import find_key
from tokenmix.tasks import Task, all_tasks, find_task
from tokenmix.train.loop import in_parts
from tokenmix_runtime.names import unknown
from tokenmix_runtime.untrusted import read_json

DEFAULT_MIXERS = ("aff", "ffnified", "additive", "dsm", "attention", "pool", "depthwise", "identity")
DEFAULT_SKELETON = "mixernet_pico"
DECIDED = {
    "run.data": "the data are the first argument",
    "model.name": "name the skeleton with --skeleton (skeleton=)",
    "model.args": "name the mixers with --mixers (mixers=); --match chooses the widths",
}

OWN_ARGS = ("mixers", "dims")  # of a model: what a comparison itself chooses

Spec = MixerSpec | Sequence[MixerSpec]  # for all stages, or one per stage


@dataclasses.dataclass(frozen=True)
class Request:
    """Everything that decides the numbers of a comparison; what it was asked with is kept in ``compare.json``."""

    data: str
    mixers: tuple[str, ...]
    skeleton: str
    recipe: Recipe
    seeds: int
    match: str | None


def spec_name(spec: Spec) -> str:
    """A spec as text: itself, or where a class or function comes from; those of the stages with commas between."""
    if isinstance(spec, str):
        return spec
    if isinstance(spec, Sequence):
        return ",".join(map(spec_name, spec))
    if isinstance(spec, functools.partial):
        return f"{spec_name(spec.func)}({', '.join(f'{name}={value!r}' for name, value in spec.keywords.items())})"
    module = getattr(spec, "__module__", None)
    return f"{module}:{getattr(spec, '__qualname__', type(spec).__name__)}"


def named_specs(mixers: Sequence[Spec] | str, skeleton: str) -> dict[str, Spec]:
    """Specs by name, each built once in the skeleton.

    Raises:
        ValueError: A mixer is unknown or named twice, or there are not as many as the skeleton has stages for them.
    """
    listed = [
        re.sub(r"\s*\[(.*)\]\s*", r"\1", spec) if isinstance(spec, str) else spec
        for spec in (_listed(mixers) if isinstance(mixers, str) else mixers)
    ]
    if not listed:
        raise ValueError(f"name at least one mixer; known: {', '.join(list_mixers())}")
    owner = owner_of(skeleton)
    build: Any = (
        functools.partial(owner.network, skeleton, {}) if owner else functools.partial(timm.create_model, skeleton)
    )
    names = [spec_name(spec) for spec in listed]
    for name, spec in zip(names, listed, strict=True):
        if names.count(name) > 1:
            raise ValueError(f"mixer {name!r} is named {names.count(name)} times; each needs a name of its own")
        with torch.device("meta"):
            build(mixers=spec)
    return dict(zip(names, listed, strict=True))


def _listed(text: str) -> list[str]:
    """The mixers that a text lists; one that comes twice can only mean stages, and brackets always do."""
    specs = split_specs(text)
    return specs if len(set(specs)) == len(specs) else [text]


def own_dims(skeleton: str) -> tuple[int, ...]:
    """The widths of a skeleton's stages.

    Raises:
        ValueError: It is unknown, or takes no mixers.
    """
    if owner := owner_of(skeleton):
        return owner.widths(skeleton)
    known = our_models()
    if not timm.is_model(skeleton):
        raise ValueError(unknown("skeleton", skeleton, known))
    try:
        return base_dims(skeleton)
    except TypeError:
        raise ValueError(f"{skeleton} takes no mixers, so it is no skeleton; these are: {', '.join(known)}") from None


def owner_of(skeleton: str) -> Task | None:
    """The task whose own network a skeleton is; None for one of timm's registry."""
    return next((task for task in all_tasks().values() if skeleton in task.networks()), None)


def base_recipe(name: str | None, settings: Sequence[str], data: str, skeleton: str) -> Recipe:
    """The recipe by which all mixers are trained, but for the mixer and the widths.

    Raises:
        ValueError: It or a setting is wrong, or a setting decides what the comparison itself decides.
    """
    # What the comparison decides is said at once, so that a recipe's file needs no trust for it.
    owner, decided = owner_of(skeleton), [f"model={skeleton}", f"data={data}"]
    if owner is not None:  # whose network may need more than mixers and widths: how far it looks ahead, for example
        recipe = make_recipe(name or str(owner.default_recipe), decided)
        kept = {key: value for key, value in recipe.model.args.items() if key not in OWN_ARGS}
        recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, args=kept))
    else:
        recipe = make_recipe(name or (data if data == "digits" else "basic"), [*decided, "model_args={}"])
    for key in (setting.partition("=")[0].strip() for setting in settings):
        found = find_key(key, find_task(recipe.task.name))
        free = owner is not None and found.inside and found.inside[0] not in OWN_ARGS
        if found.field in DECIDED and not free:
            raise ValueError(f"the recipe key {key!r} cannot be set here: {DECIDED[found.field]}")
    recipe = override(recipe, settings)
    find_task(recipe.task.name).check_compared(recipe)
    return recipe


def check_owner(folder: Path, request: Request, fresh: bool) -> None:
    """Make sure that ``folder`` belongs to this comparison, so that nothing in it is taken for what it is not."""
    stamp = folder / "compare.json"
    if fresh or not stamp.is_file():
        return
    found, wanted = read_json(stamp), _identity(request)
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
            shutil.rmtree(entry)
    write_json(folder / "compare.json", _identity(request))


def _identity(request: Request) -> dict[str, Any]:
    """What must not change in a folder: all but the mixers, which may join what is there."""
    wanted = {name: value for name, value in vars(request).items() if name != "mixers"}
    return json.loads(json.dumps({**wanted, "recipe": request.recipe.flat()}))
