"""Batches for tasks whose pictures have objects or labels for each pixel, as a recipe says."""

from __future__ import annotations

from typing import Any

from tokenmix.data import DataSet
from tokenmix.data.dense import DenseData, DenseLoader, dense_augment
from tokenmix.recipes.recipe import Recipe
from tokenmix.train.distributed import Group


def dense_loaders(
    recipe: Recipe, data: DataSet, preparation: dict[str, Any], group: Group, workers: int
) -> tuple[DenseLoader, DenseLoader]:
    """Of the pictures to learn from and of those to choose by.

    Raises:
        ValueError: The data set was loaded for another task, or the recipe's augmentation is none of this one.
    """
    if not isinstance(data, DenseData) or data.task != recipe.task:
        loaded = data.task if isinstance(data, DenseData) else "classification"
        raise ValueError(
            f"the recipe's task is {recipe.task!r}, but {data.name} was loaded for {loaded!r}: "
            f"use load_data(..., task={recipe.task!r})"
        )
    assert recipe.image_size is not None
    options: dict[str, Any] = {
        "batch_size": recipe.batch_size,
        "image_size": recipe.image_size,
        "mean": preparation["mean"],
        "std": preparation["std"],
        "augment": dense_augment(recipe.augment, recipe.task, recipe.augment_args),
        "seed": recipe.seed,
        "workers": workers,
        "rank": group.rank,
        "world": group.world,
    }
    judged = options | {"batch_size": -(-recipe.batch_size // recipe.accumulate)}
    return DenseLoader(data.train, train=True, **options), DenseLoader(data.val, train=False, **judged)
