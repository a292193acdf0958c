"""Recipes in files: what one may say that the person has not typed."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path

import timm

from tokenmix.backbones.arguments import check_arguments, check_parameters
from tokenmix.heads import make_dense, own_options
from tokenmix.names import unknown
from tokenmix.recipes.recipe import Recipe, override
from tokenmix.safety import is_trusted, read_json, refusal, speaking
from tokenmix.tasks import find_task

RESERVED_WEIGHTS = "pretrained"  # timm's own published ones


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
    check_recipe(recipe, os.fspath(file), {setting.partition("=")[0].strip() for setting in settings})
    return recipe


def check_recipe(recipe: Recipe, origin: str, typed: Collection[str] = ()) -> None:
    """Raise if a file's recipe names what a file may not name: code, addresses, paths.

    Allowed are models of timm's registry with arguments of their own, their published weights, and data sets by name.

    Args:
        recipe: What the file says, and what was typed.
        origin: The file.
        typed: The keys that the person has typed, such as ``"weights"`` and ``"model_args.mixers"``.

    Raises:
        ValueError: It does; the message names file, key and remedy.
    """
    if is_trusted():
        return
    names = timm.is_model
    may = {
        "model": lambda value: ":" not in value,  # an unknown name is told where it is built
        "weights": lambda value: value == RESERVED_WEIGHTS,
        "teacher": names,
        "teacher_weights": lambda value: False,
        "data": lambda value: value in find_task(recipe.task).data_names(),
    }
    for key, allowed in may.items():
        value = getattr(recipe, key)
        if value is not None and key not in typed and not allowed(value):
            raise refusal(f"{origin}: its recipe key {key!r}", "an address or a path", value)
    given = {key.split(".")[1] for key in typed if key.startswith("model_args.")}
    stored = {key: value for key, value in recipe.model_args.items() if key not in given}
    if "model_args" in typed or not stored:
        return
    if ":" in recipe.model:  # typed, and its builder is not known before it is fetched
        raise refusal(f"{origin}: its recipe key 'model_args'", "arguments of a model elsewhere", stored)
    if not names(recipe.model):
        raise ValueError(f"{origin}: {unknown('model', recipe.model[:100], timm.list_models())}")
    head = recipe.head
    check_arguments(origin, recipe.model, stored, () if head is None else (*own_options(head), "level_norm"))
    if given:
        return  # what else the person wants of the model is theirs

    def build():
        return make_dense(head, recipe.model, 1, **stored) if head else timm.create_model(recipe.model, **stored)

    with speaking(origin):
        check_parameters(origin, build)
