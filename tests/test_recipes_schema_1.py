"""The recipes and files of the schema tokenmix.recipe/1, which had all values side by side."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tokenmix.recipes import RECIPES, Recipe, make_recipe, with_values
from tokenmix.tasks import find_task

# What commit 7d79b19, the last one with that schema, had: the default of every key, and of every recipe a digest.
STORED = json.loads((Path(__file__).parent / "recipes_schema_1.json").read_text(encoding="utf-8"))
DEFAULTS: dict[str, Any] = STORED["defaults"]
SHORT = {"model.args": "model_args"} | {f"{part}.name": part for part in ("model", "optimizer", "schedule", "task")}


def flat(recipe: Recipe) -> dict[str, Any]:
    """The values as the schema 1 has them, also those of other tasks."""
    values = {**DEFAULTS, "task_args": {}, "augment_args": {}}
    options = {f"task.{name}": value for name, value in vars(type(recipe.task)()).items()}
    for path, value in recipe.flat().items():
        part, _, name = path.partition(".")
        key = SHORT.get(path, part if path == "augment.name" else name or part)
        if key in values or key in ("source", "expect", "cost", "model"):
            values[key] = value
        elif part == "augment" and value is not None:
            values["augment_args"][name] = value
        elif part == "task" and value != options[path]:
            values["task_args"][name] = value
    return values


def digest(values: dict[str, Any]) -> str:
    """Of values in which 3 and 3.0 are the same, and tuples are lists."""
    text = json.dumps(json.loads(json.dumps(values), parse_int=float), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def test_all_of_the_recipes_are_still_there() -> None:
    assert set(STORED["digests"]) <= set(RECIPES)


@pytest.mark.parametrize("name", STORED["digests"])
def test_every_recipe_has_its_old_values(name: str) -> None:
    recipe = RECIPES[name]()
    values = flat(recipe)
    assert digest(values) == STORED["digests"][name], values
    assert Recipe.from_values({"schema": "tokenmix.recipe/1", **json.loads(json.dumps(values))}) == recipe
    values |= {"lr": values["lr"] * 2}
    assert digest(values) != STORED["digests"][name]


def test_defaults_are_the_old_ones() -> None:
    short = {"source": "", "expect": "", "model": "resnet18"}
    assert Recipe.from_values(short) == Recipe.from_values(short | DEFAULTS | {"schema": "tokenmix.recipe/1"})
    assert len(DEFAULTS) == 60


def test_a_file_of_that_schema_is_read(tmp_path: Path) -> None:
    recipe = with_values(RECIPES["scenes_segment"](), window=64, seed=3)
    old = {"schema": "tokenmix.recipe/1", **flat(recipe)}
    assert old["task_args"] == {"window": (64, 64)}
    assert old["augment_args"] == {"scale": (1.0, 1.0)}
    (tmp_path / "recipe.json").write_text(json.dumps(old))
    assert make_recipe(str(tmp_path)) == recipe
    assert make_recipe(str(tmp_path), ["task_args.stride=32", "epochs=7"]).task.stride == (32, 32)


def test_a_key_of_another_task_is_refused_there_too() -> None:
    old = flat(RECIPES["scenes_segment"]()) | {"schema": "tokenmix.recipe/1"}
    with pytest.raises(ValueError, match=r"'augment\.mixup' belongs to classification, and .* is for segmentation"):
        Recipe.from_values(old | {"mixup": 0.1})
    with pytest.raises(ValueError, match=r"did you mean 'task\.window'"):
        Recipe.from_values(old | {"task_args": {"windows": 3}})


def test_short_names_mean_the_paths_of_every_task() -> None:
    """None of a task's names hides one that all recipes have."""
    for name in ("classification", "detection", "instances", "segmentation"):
        task = find_task(name)
        own = {*vars(task.Options()), *vars(task.Augment())}
        common = {path.split(".")[1] for path in RECIPES["basic"]().flat() if "." in path}
        common -= {*vars(find_task("classification").Options()), *vars(find_task("classification").Augment())}
        assert not own & common
