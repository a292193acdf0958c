"""Optimisers, and which parameters decay."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatch
from typing import Any

import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from tokenmix.recipes.recipe import Recipe


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


def make_optimizer(
    recipe: Recipe, module: nn.Module, factors: Mapping[str, float] | None = None
) -> torch.optim.Optimizer:
    """The recipe's optimiser over the module's trainable parameters, fused where torch can.

    Args:
        recipe: What it says of optimiser, weight decay and layers.
        module: What is trained.
        factors: On the learning rate by parameter, instead of the recipe's by layer.

    Raises:
        ValueError: The module has nothing to train, or more layers than the recipe says.
    """
    options = recipe.optimizer
    found = parameter_groups(module, options.weight_decay, options.layer_decay, factors)
    groups = [group for group in found if group["params"]]
    if not groups:
        raise ValueError("the model has no trainable parameter")
    parameters = [parameter for group in groups for parameter in group["params"]]
    # element-wise either way, so the results are repeatable; complex weights have no fused form
    fused = all(parameter.device.type in ("cpu", "cuda") and not parameter.is_complex() for parameter in parameters)
    if options.name == "sgd":
        nesterov = options.momentum > 0
        return torch.optim.SGD(groups, options.lr, momentum=options.momentum, nesterov=nesterov, fused=fused)
    return torch.optim.AdamW(groups, options.lr, betas=options.betas, fused=fused)
