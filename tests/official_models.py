"""Our models with the checkpoints that the golden files describe, and what every family must show of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from tests import goldens
from tests.counts import count
from tokenmix import load_checkpoint
from tokenmix.backbones.reparameterize import reparameterize


def shapes_of(state_dict: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in state_dict.items()}


@cache
def official_model(family: ModuleType, name: str) -> nn.Module:
    """The model that the public way makes of a golden file's checkpoint, float64, eval; shared, so leave it so."""
    state_dict = goldens.state_dict(goldens.load(name))
    assert family.recognise(shapes_of(state_dict)) is not None
    return load_checkpoint(state_dict).double()


@torch.no_grad()
def run(model: nn.Module, name: str, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """The outputs for the golden's images: one of a classifier, several of a feature backbone."""
    y = model(goldens.inputs(goldens.load(name)).to(dtype))
    return y if isinstance(y, list) else [y]


@cache
def official_outputs(family: ModuleType, name: str) -> list[Tensor]:
    return run(official_model(family, name), name)


def macs(model: nn.Module, golden: Mapping[str, Any]) -> int:
    """Multiply-adds for one image of the golden's size; counted without computing."""
    return goldens.macs(copy.deepcopy(model).to("meta"), golden["input_shape"])


def assert_golden(family: ModuleType, name: str) -> None:
    """Outputs in float64, parameters and MACs, and the official keys and tensors given back unchanged."""
    golden, model = goldens.load(name), official_model(family, name)
    for y, expected in zip(official_outputs(family, name), goldens.outputs(golden), strict=True):
        goldens.assert_matches(y, expected, torch.float64)
    assert sum(p.numel() for p in model.parameters()) == golden["params"]
    assert macs(model, golden) == golden["macs"]
    official = goldens.state_dict(golden)
    back = family.KEYS.to_official(model.state_dict())
    assert set(back) == set(official)
    assert all(torch.equal(back[key].float(), tensor.float()) for key, tensor in official.items())
    count("goldens", name)


def assert_golden_float32(family: ModuleType, name: str) -> None:
    single = copy.deepcopy(official_model(family, name)).float()
    for y, expected in zip(run(single, name, torch.float32), goldens.outputs(goldens.load(name)), strict=True):
        goldens.assert_matches(y, expected, torch.float32)


def fused_model(family: ModuleType, name: str) -> nn.Module:
    """The re-parameterised model, after the checks that hold for every one."""
    model = official_model(family, name)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    fused = reparameterize(model)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    for y, expected in zip(run(fused, name), official_outputs(family, name), strict=True):
        assert float((y - expected).abs().max() / expected.abs().max()) < 1e-10
    return fused


def batch_norms(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
