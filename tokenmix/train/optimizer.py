"""Optimisers, and which parameters decay."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatch
from typing import Any

import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from tokenmix.heads.levels import Place, levels_of
from tokenmix.recipes.recipe import Recipe

BLOCKS = 3  # of the stage before the last one that mmdetection counts as one layer


def learning_rates(
    module: nn.Module, layer_decay: float | None = None, layers: int | None = None, head_lr: float = 1.0
) -> dict[str, float]:
    """Factors on the learning rate of a dense model's parameters, by name.

    What is outside of the backbone has ``head_lr``, the norms behind the backbone's levels 1, and in the backbone a
    layer has ``layer_decay`` times the factor of the layer above it, the last one ``layer_decay``. With ``layers`` = N
    they are mmdetection's: the stem 0, each early stage the next one; of the stage before the last one each three
    blocks, its downsampling counted as the first; and the last stage N.

    Args:
        module: Made by ``tokenmix.heads.make_dense``.
        layer_decay: The factor from layer to layer; None: 1.
        layers: N, or None: the stem, every downsampling and every block is a layer.
        head_lr: See above.

    Raises:
        ValueError: The backbone has more layers than N.
    """
    prefix, levels = levels_of(module)
    below = {name: name.removeprefix(f"{prefix}.") for name, _ in module.named_parameters()}
    places = {name: levels.place(inner) for name, inner in below.items() if inner != name}
    found = sorted({place for place in places.values() if place is not None})
    numbers = dict(zip(found, range(len(found)), strict=True)) if layers is None else _numbered(found, layers)
    top = 1 + max(numbers.values())

    def factor(name: str) -> float:
        if name not in places:
            return head_lr
        place = places[name]
        return 1.0 if place is None else (layer_decay or 1.0) ** (top - numbers[place])

    return {name: factor(name) for name in below}


def _numbered(places: list[Place], layers: int) -> dict[Place, int]:
    """The layer of each place in mmdetection's grouping."""
    last = places[-1][0]
    numbers = {
        (stage, block): layers if stage == last else stage + 1 + (block // BLOCKS if stage == last - 1 else 0)
        for stage, block in places
    }
    if max(numbers.values()) > layers:
        raise ValueError(
            f"recipe key 'layer_decay_layers': the backbone has {max(numbers.values())} layers below its last stage, "
            f"more than {layers}"
        )
    return numbers


def parameter_groups(
    module: nn.Module,
    weight_decay: float,
    layer_decay: float | None = None,
    factors: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """The trainable parameters in groups of one ``weight_decay`` and, with ``layer_decay``, one ``lr_scale`` each.

    Not decayed: biases, everything with at most one dimension (norms, layer scales), and what the ``no_weight_decay()``
    of the module or of any submodule names; names there are relative to it and may be patterns, as in timm.

    Args:
        module: Whose parameters.
        weight_decay: Of those that decay.
        layer_decay: Factor on the learning rate per layer from the output down. The layers are those of the module's
            ``group_matcher``, or timm's guess.
        factors: On the learning rate, by name, instead of ``layer_decay``.
    """
    patterns = [
        f"{prefix}.{pattern}" if prefix else pattern
        for prefix, child in module.named_modules()
        if callable(exempt := getattr(child, "no_weight_decay", None))
        for pattern in exempt()
    ]
    free = {
        name
        for name, parameter in module.named_parameters()
        if parameter.ndim <= 1
        or name.rpartition(".")[2] == "bias"
        or any(fnmatch(name, pattern) for pattern in patterns)
    }
    if factors is not None:
        shared: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                shared.setdefault((factors[name], name in free), []).append(parameter)
        return [
            {"params": parameters, "lr_scale": factor, "weight_decay": 0.0 if exempt else weight_decay}
            for (factor, exempt), parameters in shared.items()
        ]
    if layer_decay is not None:
        return param_groups_layer_decay(
            module, weight_decay=weight_decay, no_weight_decay_list=free, layer_decay=layer_decay
        )
    groups: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            groups[name in free].append(parameter)
    return [{"params": groups[0], "weight_decay": weight_decay}, {"params": groups[1], "weight_decay": 0.0}]


def make_optimizer(recipe: Recipe, module: nn.Module) -> torch.optim.Optimizer:
    """The recipe's optimiser over the module's trainable parameters, fused where torch can.

    Raises:
        ValueError: The module has nothing to train, or more layers than the recipe says.
    """
    factors = None
    if recipe.head is not None and (recipe.layer_decay is not None or recipe.head_lr != 1):
        factors = learning_rates(module, recipe.layer_decay, recipe.layer_decay_layers, recipe.head_lr)
    found = parameter_groups(module, recipe.weight_decay, recipe.layer_decay, factors)
    groups = [group for group in found if group["params"]]
    if not groups:
        raise ValueError("the model has no trainable parameter")
    parameters = [parameter for group in groups for parameter in group["params"]]
    # element-wise either way, so the results are repeatable; complex weights have no fused form
    fused = all(parameter.device.type in ("cpu", "cuda") and not parameter.is_complex() for parameter in parameters)
    if recipe.optimizer == "sgd":
        nesterov = recipe.momentum > 0
        return torch.optim.SGD(groups, recipe.lr, momentum=recipe.momentum, nesterov=nesterov, fused=fused)
    return torch.optim.AdamW(groups, recipe.lr, betas=recipe.betas, fused=fused)
