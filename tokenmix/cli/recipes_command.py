"""List the recipes, or print one with overrides applied, as the JSON that `tokenmix train` takes."""

from __future__ import annotations

import argparse
import json

from tokenmix.cli.output import print_json
from tokenmix.recipes import RECIPES, Recipe, make_recipe
from tokenmix.text_tables import table
from tokenmix_runtime.terminal import say

TITLES = ("recipe", "model", "px", "length", "images per step", "expected", "cost")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tokenmix recipes``."""
    parser.add_argument("recipe", nargs="?", help="a recipe's name or JSON file, or a model's name (default: list all)")
    parser.add_argument("settings", nargs="*", default=[], metavar="KEY=VALUE", help="overrides, as for train")
    parser.add_argument("--json", action="store_true", help="print the list as JSON")


def run(args: argparse.Namespace) -> None:
    """Print the table, or the recipe."""
    if args.recipe:
        print(make_recipe(args.recipe, args.settings).to_json(), end="")
        return
    recipes = {name: make() for name, make in RECIPES.items()}
    if args.json:
        print_json({name: json.loads(recipe.to_json()) for name, recipe in recipes.items()})
        return
    rows = [
        [
            name,
            f"{recipe.model.name} with {recipe.model.head}" if recipe.model.head else recipe.model.name,
            _side(recipe),
            recipe.length,
            str(recipe.run.batch_size),
            recipe.expect,
            recipe.cost,
        ]
        for name, recipe in recipes.items()
    ]
    say(table(TITLES, rows))


def _side(recipe: Recipe) -> str:
    """The first side of the pictures, where samples are pictures."""
    if "task.image_size" not in (values := recipe.flat()):
        return ""
    size = values["task.image_size"]
    return "of the data" if size is None else str(size[0])
