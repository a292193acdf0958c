"""Recipes by name: functions that return everything that decides a training run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import timm

from tokenmix.checkpoints import our_models
from tokenmix.recipes import affnet, affnet_dense, casvit, casvit_dense, dsm, dsm_dense, ffnet, ffnet_dense
from tokenmix.recipes.basic import basic, digits
from tokenmix.recipes.demo import scenes_detect, scenes_segment
from tokenmix.recipes.finetune import finetune
from tokenmix.recipes.recipe import Recipe, differences, override, with_epochs
from tokenmix.recipes.stored import read_recipe
from tokenmix.safety import trusting
from tokenmix_runtime.names import unknown

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
        affnet_dense.affnet_t_ssdlite,
        affnet_dense.affnet_s_ssdlite,
        affnet_dense.affnet_et_deeplabv3_voc,
        affnet_dense.affnet_t_deeplabv3_voc,
        affnet_dense.affnet_s_deeplabv3_voc,
        affnet_dense.affnet_et_deeplabv3_ade20k,
        affnet_dense.affnet_t_deeplabv3_ade20k,
        affnet_dense.affnet_s_deeplabv3_ade20k,
        ffnet_dense.ffnet_2_cascade_mask_rcnn,
        ffnet_dense.ffnet_3_cascade_mask_rcnn,
        ffnet_dense.ffnet_4_cascade_mask_rcnn,
        ffnet_dense.ffnet_2_upernet,
        ffnet_dense.ffnet_3_upernet,
        ffnet_dense.ffnet_4_upernet,
        ffnet_dense.ffnet_seg_ade20k,
        ffnet_dense.ffnet_seg_cityscapes,
        casvit_dense.casvit_xs_retinanet,
        casvit_dense.casvit_s_retinanet,
        casvit_dense.casvit_m_retinanet,
        casvit_dense.casvit_t_retinanet,
        casvit_dense.casvit_xs_mask_rcnn,
        casvit_dense.casvit_s_mask_rcnn,
        casvit_dense.casvit_m_mask_rcnn,
        casvit_dense.casvit_t_mask_rcnn,
        casvit_dense.casvit_xs_semantic_fpn,
        casvit_dense.casvit_s_semantic_fpn,
        casvit_dense.casvit_m_semantic_fpn,
        casvit_dense.casvit_t_semantic_fpn,
        dsm_dense.dsm_ti_upernet,
        dsm_dense.dsm_t_upernet,
        dsm_dense.dsm_s_upernet,
        dsm_dense.dsm_b_upernet,
        dsm_dense.dsm_ti_retinanet,
        dsm_dense.dsm_t_retinanet,
        dsm_dense.dsm_s_retinanet,
        dsm_dense.dsm_b_retinanet,
        dsm_dense.dsm_ti_mask_rcnn,
        dsm_dense.dsm_t_mask_rcnn,
        dsm_dense.dsm_s_mask_rcnn,
        dsm_dense.dsm_b_mask_rcnn,
    )
}

__all__ = ["RECIPES", "Recipe", "differences", "make_recipe", "override", "with_epochs"]


def make_recipe(name: str, overrides: Iterable[str] = (), *, images: int | None = None, trust: bool = False) -> Recipe:
    """The recipe that ``name`` means, with ``key=value`` settings applied.

    Args:
        name: A name in ``RECIPES``; a recipe's JSON file or a run folder that holds ``recipe.json``; or the name of a
            model, which gets its own recipe, or ``basic`` where it has none.
        overrides: See ``override``.
        images: How many images there are to learn from, if that is known; the recipe ``finetune`` depends on it.
        trust: A file of that name is the caller's own, and may name Python code, addresses and paths, see
            `tokenmix.safety`.

    Raises:
        ValueError: Nothing has that name, a setting is wrong, or a file says what only the caller may say.
    """
    overrides = list(overrides)
    if name == "finetune" and images is not None:
        recipe = finetune(images)
    elif name in RECIPES:
        recipe = RECIPES[name]()
    elif (Path(name) / "recipe.json").exists() or (Path(name).exists() and not Path(name).is_dir()):
        with trusting(trust):
            return read_recipe(name, overrides)
    elif timm.is_model(name):
        recipe = override(RECIPES.get(name.split(".")[0], basic)(), [f"model={name}"])
    else:
        raise ValueError(unknown("recipe or model", name, [*RECIPES, *our_models()]))
    return override(recipe, overrides)
