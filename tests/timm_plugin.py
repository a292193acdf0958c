"""A pytest plugin that makes timm's own ``tests/test_models.py`` run on our models, with scrambled weights.

It is loaded with ``-p timm_plugin`` in a process whose ``tests`` package is timm's: timm's tests ask for their models
while they are imported, so both of timm's functions must be replaced before. ``TOKENMIX_TIMM_MODELS`` names the models,
with commas between.
"""

from __future__ import annotations

import os

import timm
import timm.models
import torch
from scramble import scramble, settle  # "tests.scramble" would be looked for in timm's tests

MODULES_BEFORE = set(timm.models.list_modules())

import tokenmix  # noqa: E402, F401  registers our models

OUR_MODULES = sorted(set(timm.models.list_modules()) - MODULES_BEFORE)
MODELS = frozenset(os.environ["TOKENMIX_TIMM_MODELS"].split(","))
torch.set_num_threads(1)

timm_list_models, timm_create_model = timm.list_models, timm.create_model


def list_models(filter="", module="", *, pretrained=False, **kwargs):
    """timm's, cut down to the wanted models; pretrained ones are left out because their tests download.

    Where timm chooses by module (its tests of ``forward_intermediates`` and of pruning), our modules join.
    """
    if pretrained:
        return []
    if not isinstance(module, str):
        module = [*module, *OUR_MODULES]
    return [name for name in timm_list_models(filter, module, **kwargs) if name.split(".")[0] in MODELS]


def create_model(model_name, *args, **kwargs):
    """timm's, with weights that matter: at initialisation, a forgotten norm or a wrong mixer changes nothing."""
    model = timm_create_model(model_name, *args, **kwargs)
    if next(model.parameters()).is_meta:
        return model
    return settle(scramble(model), torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0)))


timm.list_models, timm.create_model = list_models, create_model


def pytest_collection_modifyitems(config, items):
    """Keep only the tests that run on one of the wanted models."""
    kept, dropped = [], []
    for item in items:
        name = getattr(item, "callspec", None) and item.callspec.params.get("model_name")
        (kept if isinstance(name, str) and name.split(".")[0] in MODELS else dropped).append(item)
    config.hook.pytest_deselected(items=dropped)
    items[:] = kept
