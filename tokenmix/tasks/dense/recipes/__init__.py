"""The recipes of detectors and segmenters, a file for each paper; the demos' recipes too."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tokenmix.recipes.recipe import Recipe
from tokenmix.tasks.dense.recipes import affnet, casvit, dsm, ffnet, scenes


def recipes_of(task: str) -> Iterator[Callable[[], Recipe]]:
    """Those for a task."""
    for one in (scenes, affnet, ffnet, casvit, dsm):
        yield from one.RECIPES.get(task, ())
