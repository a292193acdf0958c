"""Optimiser groups of timm on our models, and that a model learns."""

from __future__ import annotations

import pytest
import timm
import timm.optim
import torch
import torch.nn.functional as F
from torch import nn

from tests.backbone_cases import TOYS, images, toy

each_toy = pytest.mark.parametrize("name", sorted(TOYS))


@each_toy
def test_weight_decay_spares_vectors(name: str) -> None:
    model = toy(name)
    groups = timm.optim.param_groups_weight_decay(model, 0.05, no_weight_decay_list=model.no_weight_decay())
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for key, parameter in model.named_parameters():
        spared = parameter.ndim <= 1 or key.endswith("bias")
        assert decays[id(parameter)] == (0.0 if spared else 0.05), key
    scales = [key for key in model.state_dict() if key.endswith(".scale")]
    assert all(model.get_parameter(key).ndim == 1 for key in scales)


@each_toy
def test_layer_decay_grows_with_depth(name: str) -> None:
    model = toy(name)
    groups = timm.optim.param_groups_layer_decay(model, weight_decay=0.05, layer_decay=0.5)
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    named = {key: scale[id(p)] for key, p in model.named_parameters()}
    assert len(named) == len(scale)
    assert {named[key] for key in named if key.startswith("head.fc")} == {1.0}
    stem = {named[key] for key in named if key.startswith("stem")}
    assert stem == {min(named.values())}
    last = 0.0
    for i, stage in enumerate(model.stages):
        for part in (f"stages.{i}.downsample", *(f"stages.{i}.blocks.{j}." for j in range(len(stage.blocks)))):
            values = {value for key, value in named.items() if key.startswith(part)}
            assert len(values) <= 1, part
            assert not values or max(values) >= last, part
            last = max([last, *values])
    final = {value for key, value in named.items() if key.startswith("final")}
    assert final <= {last}


@each_toy
@pytest.mark.parametrize("coarse", [False, True])
def test_every_parameter_is_in_one_group(name: str, coarse: bool) -> None:
    from timm.models import group_parameters

    model = toy(name)
    groups = group_parameters(model, model.group_matcher(coarse=coarse))
    names = [key for group in groups.values() for key in group]
    assert sorted(names) == sorted(key for key, _ in model.named_parameters())
    assert len(groups) >= (len(model.stages) + 1)


@each_toy
def test_training_lowers_the_loss(name: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=4, **TOYS[name]).train()
    optimizer = timm.optim.create_optimizer_v2(model, opt="adamw", lr=3e-3, weight_decay=0.05, layer_decay=0.8)
    x, y = images(32, 32, batch=8), torch.arange(8) % 4
    losses = []
    for _ in range(12):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_distilled_training_returns_both_classifiers() -> None:
    model, x = toy("casvit_xs"), images(64, 64)
    model.set_distilled_training(True)
    assert isinstance(model(x), torch.Tensor)
    for module in (model, model.head):
        module.training = True
    pair = model(x)
    assert isinstance(pair, tuple)
    model.set_distilled_training(False)
    assert torch.equal(model(x), (pair[0] + pair[1]) / 2)
    single = toy("casvit_xs", distillation=False)
    assert isinstance(single.get_classifier(), nn.Linear)
    with pytest.raises(ValueError, match="distillation=True"):
        single.set_distilled_training(True)
