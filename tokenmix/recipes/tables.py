"""Recipes as rows of a table that can be read beside a paper's."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from tokenmix.recipes.recipe import Recipe


def rows(
    table: Mapping[str, tuple[Any, ...]], name: str, about: str, make: Callable[..., Recipe], column: int | None = None
) -> list[Callable[[], Recipe]]:
    """The recipes of a table's rows, as functions.

    Args:
        table: Rows by their heads, which are models or data sets.
        name: What the functions are called, with ``{}`` for the head: ``"{}_retinanet"``.
        about: Their docstrings, with ``{}`` for the head.
        make: Makes a recipe of a head and what stands in its row.
        column: The only one that it is given, where a table has several results side by side; a cell may be a tuple.
    """
    return [
        _named(name.format(head), about.format(head), make, head, *_cells(row, column)) for head, row in table.items()
    ]


def _cells(row: tuple[Any, ...], column: int | None) -> tuple[Any, ...]:
    if column is None:
        return row
    return row[column] if isinstance(row[column], tuple) else (row[column],)


def _named(name: str, about: str, make: Callable[..., Recipe], *values: Any) -> Callable[[], Recipe]:
    recipe: Any = functools.partial(make, *values)
    recipe.__name__, recipe.__doc__ = name, about
    return recipe
