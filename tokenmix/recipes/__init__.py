"""Recipes by name: functions that return everything that decides a training run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import timm

from tokenmix.checkpoints import our_models
from tokenmix.names import unknown
from tokenmix.recipes.basic import basic, digits
from tokenmix.recipes.recipe import Recipe, differences, override, with_epochs

RECIPES: dict[str, Callable[[], Recipe]] = {"basic": basic, "digits": digits}

__all__ = ["RECIPES", "Recipe", "differences", "make_recipe", "override", "with_epochs"]


def make_recipe(name: str, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe that ``name`` means, with ``key=value`` settings applied.

    Args:
        name: A name in ``RECIPES``; a recipe's JSON file or a run folder that holds ``recipe.json``; or the name of a
            model, which gets the recipe ``basic``.
        overrides: See ``override``.

    Raises:
        ValueError: Nothing has that name, or a setting is wrong.
    """
    if name in RECIPES:
        recipe = RECIPES[name]()
    elif (Path(name) / "recipe.json").is_file():
        recipe = Recipe.from_json((Path(name) / "recipe.json").read_text(encoding="utf-8"))
    elif Path(name).is_file():
        recipe = Recipe.from_json(Path(name).read_text(encoding="utf-8"))
    elif timm.is_model(name):
        recipe = override(basic(), [f"model={name}"])
    else:
        raise ValueError(unknown("recipe or model", name, [*RECIPES, *our_models()]))
    return override(recipe, overrides)
