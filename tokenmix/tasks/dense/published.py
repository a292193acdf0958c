"""The published dense models counted: parameters beside what the papers say."""

from __future__ import annotations

from typing import Any

from tokenmix.heads import make_dense
from tokenmix.recipes import RECIPES
from tokenmix.recipes.recipe import Recipe

# What the recipes' data sets hold: training images and classes. Of VOC those with the extra annotations of SBD.
DATA = {"coco": (118_287, 80), "ade20k": (20_210, 150), "voc": (10_582, 21), "cityscapes": (2_975, 19)}
# Millions as printed, by what the recipe's name begins with: AFFNet's README and arXiv:2407.12217, FFNet's README.
PUBLISHED = {
    "affnet_t_ssdlite": "3.0",
    "affnet_s_ssdlite": "5.6",
    "affnet_et_deeplabv3": "2.2",
    "affnet_t_deeplabv3": "3.5",
    "affnet_s_deeplabv3": "6.9",
    "ffnet_2_upernet": "58",
    "ffnet_3_upernet": "80",
    "ffnet_4_upernet": "113",
    "ffnet_seg": "68",
}
REMARKS = {
    "affnet_s_deeplabv3": "the official code counts 7.01 with 21 classes",
    "affnet_t_ssdlite": "the configuration is not released",
    "affnet_s_ssdlite": "the configuration is not released",
}


def dense_recipes() -> dict[str, Recipe]:
    """The recipes of published dense results, by name."""
    found = {name: make() for name, make in RECIPES.items()}
    return {name: recipe for name, recipe in found.items() if recipe.model.head is not None and recipe.run.data in DATA}


def parameters(recipe: Recipe) -> int:
    """Backbone and head as the papers count them: FFNet's UPerNet with its auxiliary head, AFFNet's DeepLabv3 without.

    Nothing is computed: the model is made on torch's meta device.
    """
    head, name = recipe.model.head, recipe.model.name.split(".")[0]
    assert head is not None
    args: dict[str, Any] = dict(recipe.model.args)
    if head == "deeplabv3":
        args["aux"] = False
    model = make_dense(head, name, DATA[recipe.run.data][1], device="meta", **args)
    return sum(parameter.numel() for parameter in model.parameters())


def published(name: str) -> tuple[str, str]:
    """The millions of parameters that are printed for a recipe's model, and a remark; empty where there are none."""
    key = next((key for key in PUBLISHED if name.startswith(key)), "")
    return PUBLISHED.get(key, ""), REMARKS.get(key, "")


def markdown() -> str:
    """The table of ``docs/dense.md``."""
    lines = ["| recipe | backbone | head | data | parameters (M) | published (M) |", "|---|---|---|---|---:|---:|"]
    for name, recipe in dense_recipes().items():
        printed, remark = published(name)
        shown = f"{printed} ({remark})" if remark else printed or "-"
        counted = f"{parameters(recipe) / 1e6:.2f}"
        backbone, head = recipe.model.name.split(".")[0], recipe.model.head
        cells = (f"`{name}`", f"`{backbone}`", f"`{head}`", recipe.run.data, counted, shown)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
