"""Recipes by name: functions that return everything that decides a training run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import timm

from tokenmix.checkpoints import our_models
from tokenmix.names import unknown
from tokenmix.recipes import affnet, casvit, dsm, ffnet
from tokenmix.recipes.basic import basic, digits
from tokenmix.recipes.demo import scenes_detect, scenes_segment
from tokenmix.recipes.finetune import finetune
from tokenmix.recipes.recipe import Recipe, differences, override, with_epochs

RECIPES: dict[str, Callable[[], Recipe]] = {
    recipe.__name__: recipe
    for recipe in (
        basic,
        digits,
        scenes_detect,
        scenes_segment,
        finetune,
        affnet.affnet_et,
        affnet.affnet_t,
        affnet.affnet_s,
        ffnet.ffnet_1,
        ffnet.ffnet_2,
        ffnet.ffnet_3,
        ffnet.ffnet_4,
        ffnet.ffnet_1_distilled,
        ffnet.ffnet_2_distilled,
        ffnet.ffnet_3_distilled,
        ffnet.ffnet_3_384,
        ffnet.ffnet_4_384,
        casvit.casvit_xs,
        casvit.casvit_s,
        casvit.casvit_m,
        casvit.casvit_t,
        casvit.casvit_xs_384,
        casvit.casvit_s_384,
        casvit.casvit_m_384,
        casvit.casvit_t_384,
        dsm.dsm_ti,
        dsm.dsm_t,
        dsm.dsm_s,
        dsm.dsm_b,
    )
}

__all__ = ["RECIPES", "Recipe", "differences", "make_recipe", "override", "with_epochs"]


def make_recipe(name: str, overrides: Iterable[str] = (), *, images: int | None = None) -> Recipe:
    """The recipe that ``name`` means, with ``key=value`` settings applied.

    Args:
        name: A name in ``RECIPES``; a recipe's JSON file or a run folder that holds ``recipe.json``; or the name of a
            model, which gets its own recipe, or ``basic`` where it has none.
        overrides: See ``override``.
        images: How many images there are to learn from, if that is known; the recipe ``finetune`` depends on it.

    Raises:
        ValueError: Nothing has that name, or a setting is wrong.
    """
    if name == "finetune" and images is not None:
        recipe = finetune(images)
    elif name in RECIPES:
        recipe = RECIPES[name]()
    elif (Path(name) / "recipe.json").is_file():
        recipe = Recipe.from_json((Path(name) / "recipe.json").read_text(encoding="utf-8"))
    elif Path(name).is_file():
        recipe = Recipe.from_json(Path(name).read_text(encoding="utf-8"))
    elif timm.is_model(name):
        recipe = override(RECIPES.get(name.split(".")[0], basic)(), [f"model={name}"])
    else:
        raise ValueError(unknown("recipe or model", name, [*RECIPES, *our_models()]))
    return override(recipe, overrides)
