"""List the recipes, or explain one with overrides applied: each value, its meaning, and what else may stand there.

`--json` prints the recipe as the JSON that `tokenmix train` takes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import shutil
import textwrap
from collections.abc import Iterator
from typing import Any

from tokenmix.cli.options import add_common, add_settings
from tokenmix.cli.output import print_json
from tokenmix.recipes import RECIPES, Recipe, make_recipe
from tokenmix.recipes.keys import parts_of
from tokenmix.tasks import find_task
from tokenmix.text_tables import table
from tokenmix_runtime.terminal import say

TITLES = ("recipe", "px", "length", "batch", "expected", "model", "cost")
NEEDED = 5  # of these; the others are shown where the terminal is wide enough
WIDTH = 100  # of what is printed where nobody says how wide the terminal is
LEAST = 24  # characters that the last column gets in any case


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tokenmix recipes``."""
    parser.add_argument("recipe", nargs="?", help="a recipe's name or JSON file, or a model's name (default: list all)")
    add_common(parser, "--json", json={"help": "print the recipe, or the list, as JSON"})
    add_settings(parser)


def run(args: argparse.Namespace) -> None:
    """Print the table, or the recipe."""
    width = shutil.get_terminal_size((WIDTH, 24)).columns
    if args.recipe:
        recipe = make_recipe(args.recipe, args.set)
        if args.json:
            print(recipe.to_json(), end="")
        else:
            say("\n".join(explained(recipe, width)))
        return
    recipes = {name: make() for name, make in RECIPES.items()}
    if args.json:
        print_json({name: json.loads(recipe.to_json()) for name, recipe in recipes.items()})
        return
    rows = [
        [name, _side(recipe), recipe.length, str(recipe.run.batch_size), recipe.expect, _model(recipe), recipe.cost]
        for name, recipe in recipes.items()
    ]
    widths = [max(len(row[column]) for row in [TITLES, *rows]) + 2 for column in range(len(TITLES))]
    count = next((n for n in range(len(TITLES), NEEDED, -1) if sum(widths[:n]) <= width), NEEDED)
    room = max(LEAST, width - sum(widths[: NEEDED - 1])) if count == NEEDED else max(widths)
    for row in rows:
        row[NEEDED - 1] = textwrap.shorten(row[NEEDED - 1], room, placeholder=" …")
    say(table(TITLES[:count], [row[:count] for row in rows]))
    say("\n`tokenmix recipes NAME` explains each value of one; `tokenmix train --data FOLDER` needs none.")


def explained(recipe: Recipe, width: int) -> Iterator[str]:
    """Each value of a recipe by its path, and what it means, in lines that fit a terminal."""
    for note in ("source", "expect", "cost"):
        yield from textwrap.wrap(f"{note}: {getattr(recipe, note)}", width, subsequent_indent="  ")
    for part, cls in parts_of(find_task(recipe.task.name)).items():
        yield ""
        yield f"{part}: {summary(cls)}"
        about = meanings(cls)
        for entry in dataclasses.fields(cls):
            value = getattr(getattr(recipe, part), entry.name)
            mark = "" if value == _default(entry) else "  (set here)"
            yield f"  {entry.name}={_written(value)}{mark}"
            text = about.get(entry.name, "")
            yield from textwrap.wrap(text, width, initial_indent="      ", subsequent_indent="      ")
    yield ""
    yield "Change any of them: tokenmix train RECIPE epochs=3, or by the whole path, schedule.epochs=3."


def summary(cls: type) -> str:
    """What a part of a recipe is for: the first line of its docstring."""
    return (cls.__doc__ or "").strip().splitlines()[0]


def meanings(cls: type) -> dict[str, str]:
    """What each field means, as the docstrings of a part and its bases say it."""
    found: dict[str, str] = {}
    for one in cls.__mro__:
        text = textwrap.dedent("    " + (one.__doc__ or ""))
        if "Args:" not in text:
            continue
        block = text.split("Args:", 1)[1].split("\n\n", 1)[0]
        for name, words in re.findall(r"^ +(\w+): (.*(?:\n {9,}.*)*)", block, re.MULTILINE):
            found.setdefault(name, re.sub(r"\s+", " ", words).replace("``", "").strip())
    return found


def _default(entry: dataclasses.Field[Any]) -> Any:
    made = entry.default_factory
    return entry.default if made is dataclasses.MISSING else made()


def _written(value: Any) -> str:
    """A value as it is written on a command line."""
    if isinstance(value, tuple | list):
        return ",".join(map(str, value)) or "()"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _model(recipe: Recipe) -> str:
    return f"{recipe.model.name} with {recipe.model.head}" if recipe.model.head else recipe.model.name


def _side(recipe: Recipe) -> str:
    """The first side of the pictures, where samples are pictures."""
    if "task.image_size" not in (values := recipe.flat()):
        return ""
    size = values["task.image_size"]
    return "data's" if size is None else str(size[0])
