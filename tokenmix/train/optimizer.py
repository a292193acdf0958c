"""Optimisers, and which parameters decay."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import Any

import torch
from torch import nn

from tokenmix.recipes.recipe import Recipe


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The trainable parameters in two groups: those that decay, then those that do not.

    Not decayed: biases, everything with at most one dimension (norms, layer scales), and what the ``no_weight_decay()``
    of the module or of any submodule names; names there are relative to it and may be patterns, as in timm.
    """
    patterns = [
        f"{prefix}.{pattern}" if prefix else pattern
        for prefix, child in module.named_modules()
        if callable(exempt := getattr(child, "no_weight_decay", None))
        for pattern in exempt()
    ]
    groups: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            leaf = name.rpartition(".")[2]
            free = parameter.ndim <= 1 or leaf == "bias" or any(fnmatch(name, pattern) for pattern in patterns)
            groups[free].append(parameter)
    return [{"params": groups[0], "weight_decay": weight_decay}, {"params": groups[1], "weight_decay": 0.0}]


def make_optimizer(recipe: Recipe, module: nn.Module) -> torch.optim.Optimizer:
    """The recipe's optimiser over the module's trainable parameters, fused where torch can.

    Raises:
        ValueError: The module has nothing to train.
    """
    groups = [group for group in parameter_groups(module, recipe.weight_decay) if group["params"]]
    if not groups:
        raise ValueError("the model has no trainable parameter")
    parameters = [parameter for group in groups for parameter in group["params"]]
    # element-wise either way, so the results are repeatable; complex weights have no fused form
    fused = all(parameter.device.type in ("cpu", "cuda") and not parameter.is_complex() for parameter in parameters)
    if recipe.optimizer == "sgd":
        nesterov = recipe.momentum > 0
        return torch.optim.SGD(groups, recipe.lr, momentum=recipe.momentum, nesterov=nesterov, fused=fused)
    return torch.optim.AdamW(groups, recipe.lr, betas=recipe.betas, fused=fused)
