"""Recipes in files: what one may say that the person has not typed."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Iterable
from pathlib import Path

import timm

from tokenmix.backbones.arguments import check_arguments, check_parameters
from tokenmix.heads import make_dense, own_options
from tokenmix.recipes.keys import find_key, keys_of, parts_of
from tokenmix.recipes.recipe import Recipe, override
from tokenmix.safety import is_trusted, refusal, speaking
from tokenmix.tasks import find_task
from tokenmix_runtime.names import unknown
from tokenmix_runtime.untrusted import read_json


def read_recipe(path: str | os.PathLike[str], overrides: Iterable[str] = ()) -> Recipe:
    """The recipe in a file, with settings applied, which may say what the file may not.

    Args:
        path: A JSON file, or a run's folder that holds ``recipe.json``.
        overrides: See `override`.

    Raises:
        ValueError: It is no recipe, says what no file may say, or a setting is wrong.
    """
    file = Path(path) / "recipe.json" if Path(path).is_dir() else Path(path)
    settings = list(overrides)
    recipe = override(Recipe.from_values(read_json(file), os.fspath(file)), settings)
    check_recipe(recipe, os.fspath(file), keys_of(settings))
    return recipe


def check_recipe(recipe: Recipe, origin: str, typed: Collection[str] = ()) -> None:
    """Raise if a file's recipe names what a file may not name: code, addresses, paths.

    Allowed are what the fields say (`tokenmix.checked_values.from_files`), models of timm's registry and networks of
    the task with arguments of their own, and data sets by name.

    Args:
        recipe: What the file says, and what was typed.
        origin: The file.
        typed: The keys that the person has typed, such as ``"weights"`` and ``"model.args.mixers"``.

    Raises:
        ValueError: It does; the message names file, key and remedy.
    """
    if is_trusted():
        return
    task = find_task(recipe.task.name)
    paths = _typed_paths(typed, recipe)
    for part, cls in parts_of(task).items():
        for entry in dataclasses.fields(cls):
            value, allowed = getattr(getattr(recipe, part), entry.name), entry.metadata.get("from_files")
            path = cls.key(entry.name)
            if value is not None and allowed and path not in paths and not allowed(value):
                raise refusal(f"{origin}: its recipe key {path!r}", "an address or a path", value)
    if recipe.run.data not in task.data_names() and "run.data" not in paths:
        raise refusal(f"{origin}: its recipe key 'run.data'", "an address or a path", recipe.run.data)
    _check_model(recipe, origin, paths)


def _typed_paths(typed: Collection[str], recipe: Recipe) -> set[str]:
    """The full paths of what was typed, also of what parts that were given whole say."""
    task = find_task(recipe.task.name)
    found = set()
    for key in typed:
        try:
            found.add(find_key(key, task).path)
        except ValueError:  # a part as a mapping, all of which was typed
            found |= {path for path in recipe.flat() if path.startswith(f"{key}.")}
    return found


def _check_model(recipe: Recipe, origin: str, typed: Collection[str]) -> None:
    """Raise unless the model's arguments are of its own, and bounded."""
    model, task = recipe.model, find_task(recipe.task.name)
    given = {path.split(".")[2] for path in typed if path.startswith("model.args.")}
    stored = {key: value for key, value in model.args.items() if key not in given}
    if "model.args" in typed or not stored:
        return
    if ":" in model.name:  # typed, and its builder is not known before it is fetched
        raise refusal(f"{origin}: its recipe key 'model.args'", "arguments of a model elsewhere", stored)
    if model.name in task.networks():
        with speaking(origin):
            for key, value in stored.items():
                if key.endswith("mixers") and value is not None:  # also those of a part, such as decoder_mixers
                    task.check_mixers(value)
        return  # what the others may be, `Task.network` knows
    if not timm.is_model(model.name):
        raise ValueError(f"{origin}: {unknown('model', model.name[:100], timm.list_models())}")
    head = model.head
    check_arguments(origin, model.name, stored, () if head is None else (*own_options(head), "level_norm"))
    if given:
        return  # what else the person wants of the model is theirs

    def build():
        return make_dense(head, model.name, 1, **stored) if head else timm.create_model(model.name, **stored)

    with speaking(origin):
        check_parameters(origin, build)
