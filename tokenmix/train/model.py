"""The model that a recipe names, where its weights come from, and how its images are prepared."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from inspect import signature
from typing import Any

import timm
import torch
from timm.models import group_parameters
from torch import nn

from tokenmix.checkpoints import our_models
from tokenmix.data import Augment, DataSet
from tokenmix.data.dense import dense_augment
from tokenmix.heads import make_dense
from tokenmix.heads.levels import levels_of
from tokenmix.names import unknown
from tokenmix.recipes.recipe import Recipe
from tokenmix.tasks import TASKS, Task


def build_model(name: str, num_classes: int, *, head: str | None = None, **arguments: Any) -> nn.Module:
    """A model of timm's registry, which includes ours, with fresh weights; arguments that are None are left out.

    With the ``head`` of a dense task it is the backbone of that.

    Raises:
        ValueError: There is no such model or head.
    """
    if not timm.is_model(name) and ":" not in name:  # "hf-hub:owner/name" is timm's way to name one on the hub
        raise ValueError(unknown("model", name, our_models()))
    if head is not None:
        return make_dense(
            head, name, num_classes, **{key: value for key, value in arguments.items() if value is not None}
        )
    return timm.create_model(name, num_classes=num_classes, **arguments)


def make_task(recipe: Recipe, model: nn.Module, num_classes: int) -> Task:
    """The recipe's task of a model, with what the recipe says of it.

    Raises:
        ValueError: ``task_args`` holds something that the task has not, or a value that it refuses.
    """
    kind: Callable[..., Task] = TASKS[recipe.task]
    settings = {name: getattr(recipe, name) for name in TASKS[recipe.task].recipe_keys}
    allowed = [name for name in signature(kind).parameters if name not in ("model", "num_classes", *settings)]
    for name in recipe.task_args:
        if name not in allowed:
            raise ValueError(unknown(f"argument in task_args of {recipe.task}", name, allowed))
    task = kind(model, num_classes=num_classes, **settings, **recipe.task_args)
    task.metric()  # a package that it lacks is told now, not after an epoch
    return task


def classifier_of(model: nn.Module) -> list[nn.Module]:
    """The model's classifier, of a distilled one both.

    Raises:
        ValueError: It does not say where that is.
    """
    if not callable(found := getattr(model, "get_classifier", None)):
        raise ValueError("the model has no get_classifier(): set freeze_epochs=0")
    classifier = found()
    return list(classifier) if isinstance(classifier, tuple) else [classifier]


def make_augment(recipe: Recipe) -> Augment:
    """What the recipe does to classification's training images."""
    return Augment(
        name=recipe.augment,
        crop_scale=recipe.crop_scale,
        crop_interpolation=recipe.crop_interpolation,
        rand_augment=recipe.rand_augment,
        color_jitter=recipe.color_jitter,
        erase_rate=recipe.erase_rate,
    )


def preparation(recipe: Recipe, data: DataSet, model: nn.Module) -> dict[str, Any]:
    """``mean``, ``std``, ``crop_pct``, ``interpolation`` and ``crop_mode``, as the recipe's ``preprocess`` says.

    Raises:
        ValueError: They should be the model's and it has no such configuration.
    """
    found: dict[str, Any] = {
        "mean": tuple(data.mean),
        "std": tuple(data.std),
        "crop_pct": data.crop_pct,
        "interpolation": "bicubic",
        "crop_mode": "center",
    }
    if recipe.preprocess == "model":
        holder = model if recipe.head is None else levels_of(model)[1]
        cfg = getattr(holder, "pretrained_cfg", None)
        if not cfg:
            raise ValueError("recipe key 'preprocess' is 'model', but the model has no timm configuration: set 'data'")
        found |= {name: cfg[name] for name in found if cfg.get(name)}
        found |= {name: tuple(found[name]) for name in ("mean", "std")}
    if recipe.crop_pct is not None:
        found["crop_pct"] = recipe.crop_pct
    if recipe.task != "classification":
        stretch = dense_augment(recipe.augment, recipe.task, recipe.augment_args).stretch
        found |= {"crop_pct": 1.0, "interpolation": "bilinear", "crop_mode": "squash" if stretch else "fit"}
    return found


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The submodules that hold one layer each in the grouping of timm's ``group_matcher``, the innermost ones first.

    A layer whose parameters have no module of their own is left out; a model that does not group its layers has none.
    """
    if not callable(matcher := getattr(model, "group_matcher", None)):
        return []
    groups = group_parameters(model, matcher(coarse=False)).values()
    inside = ([name.rpartition(".")[0].replace(".", "/") for name in names] for names in groups)
    paths = {posixpath.commonpath(found) for found in inside} - {""}
    found = [
        model.get_submodule(path.replace("/", ".")) for path in sorted(paths, key=lambda path: (-path.count("/"), path))
    ]
    return [layer for layer in found if not isinstance(layer, nn.ModuleList | nn.ModuleDict)]  # those have no forward


def synchronise(module: nn.Module, device: torch.device) -> None:
    """Let the batch norms in the module, in place, take their statistics over the images of all processes.

    Raises:
        ValueError: torch cannot do that on this device, or a norm does more than normalise.
    """
    if device.type == "cpu":
        raise ValueError(
            "recipe key 'sync_batchnorm': torch synchronises batch norm on GPUs only; set sync_batchnorm=False or use "
            "device='cuda'"
        )
    known = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    for child in module.modules():
        if isinstance(child, known) and type(child) not in known:  # torch would drop what is added, such as timm's act
            raise ValueError(
                f"recipe key 'sync_batchnorm': torch cannot synchronise the model's {type(child).__name__}"
            )
    nn.SyncBatchNorm.convert_sync_batchnorm(module)
