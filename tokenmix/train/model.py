"""What training needs to know of a model: its classifier, its layers, its norms."""

from __future__ import annotations

import posixpath

import torch
from timm.models import group_parameters
from torch import nn


def classifier_of(model: nn.Module) -> list[nn.Module]:
    """The model's classifier, of a distilled one both.

    Raises:
        ValueError: It does not say where that is.
    """
    if not callable(found := getattr(model, "get_classifier", None)):
        raise ValueError("the model has no get_classifier(): set freeze_epochs=0")
    classifier = found()
    return list(classifier) if isinstance(classifier, tuple) else [classifier]


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
            "recipe key 'run.sync_batchnorm': torch synchronises batch norm on GPUs only; set sync_batchnorm=False or "
            "use device='cuda'"
        )
    known = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    for child in module.modules():
        if isinstance(child, known) and type(child) not in known:  # torch would drop what is added, such as timm's act
            raise ValueError(
                f"recipe key 'run.sync_batchnorm': torch cannot synchronise the model's {type(child).__name__}"
            )
    nn.SyncBatchNorm.convert_sync_batchnorm(module)
