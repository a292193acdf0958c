"""Recipes by name: functions that return everything that decides a training run."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import timm

from tokenmix.checkpoints import our_models
from tokenmix.recipes.parts import Model, Optimizer, Run, Schedule
from tokenmix.recipes.recipe import Recipe, differences, override, with_epochs, with_values
from tokenmix.recipes.stored import read_recipe
from tokenmix.safety import trusting
from tokenmix.tasks import DEFAULT_TASK, all_tasks, find_task
from tokenmix_runtime.images import EXTENSIONS
from tokenmix_runtime.names import unknown

__all__ = [
    "RECIPES",
    "Model",
    "Optimizer",
    "Recipe",
    "Run",
    "Schedule",
    "differences",
    "make_recipe",
    "override",
    "with_epochs",
    "with_values",
]

HUBS = ("hf-hub:", "local-dir:")
DATA_ENDINGS = (".json", ".csv", ".zip", ".tar", ".txt", *EXTENSIONS)


class _Recipes(Mapping[str, Callable[[], Recipe]]):
    """The recipes of all tasks, by their names; asked for when they are used, since they import this package."""

    def _all(self) -> dict[str, Callable[[], Recipe]]:
        return {make.__name__: make for task in all_tasks().values() for make in task.recipes()}

    def __getitem__(self, name: str) -> Callable[[], Recipe]:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


RECIPES: Mapping[str, Callable[[], Recipe]] = _Recipes()


def make_recipe(name: str, overrides: Iterable[str] = (), *, images: int | None = None, trust: bool = False) -> Recipe:
    """The recipe that ``name`` means, with ``key=value`` settings applied.

    Args:
        name: A name in ``RECIPES``; a recipe's JSON file or a run folder that holds ``recipe.json``; or the name of a
            model, which gets its own recipe, or its task's recipe for such models.
        overrides: See ``override``.
        images: How many samples there are to learn from, if that is known; the recipe ``finetune`` depends on it.
        trust: A file of that name is the caller's own, and may name Python code, addresses and paths, see
            `tokenmix.safety`.

    Raises:
        ValueError: Nothing has that name, a setting is wrong, or a file says what only the caller may say.

    Examples:
        >>> from tokenmix.recipes import make_recipe
        >>> make_recipe("ffnet_1", ["epochs=100", "task.label_smoothing=0.2"]).schedule.epochs
        100.0
    """
    overrides, known = list(overrides), dict(RECIPES)
    if name in known:
        make: Callable[..., Recipe] = known[name]
        counts = images is not None and "images" in inspect.signature(make).parameters
        recipe = make(images=images) if counts else make()
    elif (Path(name) / "recipe.json").exists() or (Path(name).exists() and not Path(name).is_dir()):
        with trusting(trust):
            return read_recipe(name, overrides)
    elif usual := _default_recipe(name):
        recipe = override(known.get(name.split(".")[0], known[usual])(), [f"model={name}"])
    elif Path(name).is_dir():
        raise ValueError(
            f"{name} is a folder without a recipe.json, so no recipe: name one, and the data by --data {name} "
            f"(data={name}); `tokenmix train --data {name}` plans one for them"
        )
    elif _is_path(name):
        raise ValueError(f"{name}: there is no such file or folder; `tokenmix recipes` lists the recipes by name")
    else:
        raise ValueError(unknown("recipe or model", name, [*known, *our_models()]))
    return override(recipe, overrides)


def _is_path(name: str) -> bool:
    """Whether a name that nothing has looks like that of a file or a folder."""
    separators = "/" in name or os.sep in name
    return (separators and not name.startswith(HUBS)) or name.lower().endswith(DATA_ENDINGS)


def _default_recipe(model: str) -> str | None:
    """The recipe for a model that may have none of its own, or None if there is no such model."""
    for task in all_tasks().values():
        if model in task.networks():
            return task.default_recipe
    return find_task(DEFAULT_TASK).default_recipe if timm.is_model(model) else None
