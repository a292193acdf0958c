"""The feature levels of a backbone: which maps, behind which norms."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from tests.scramble import scramble
from tokenmix.backbones.base import Backbone
from tokenmix.heads.levels import NORMS, Levels
from tokenmix.layers import LayerNorm2d

KINDS = {"batch": nn.BatchNorm2d, "layer": LayerNorm2d, "none": nn.Identity}


def backbone() -> Backbone:
    model = timm.create_model("mixernet_pico", mixers="pool", dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), num_classes=3)
    return scramble(model).double().eval()


@pytest.mark.parametrize("norm", sorted(NORMS))
@pytest.mark.parametrize("indices", [None, 2, (1, 3), (-1, 0), (2,)])
@torch.no_grad()
def test_maps_are_the_stages_outputs_behind_norms(norm: str, indices) -> None:
    reference, x = backbone(), torch.randn(2, 3, 64, 96, dtype=torch.float64)
    levels = scramble(Levels(backbone(), indices, norm, dtype=torch.float64)).eval()
    levels.load_state_dict({k: v for k, v in reference.state_dict().items() if k in levels.state_dict()}, strict=False)
    stages = {None: [0, 1, 2, 3], 2: [2, 3], (1, 3): [1, 3], (-1, 0): [0, 3], (2,): [2]}[indices]
    assert levels.indices == stages
    assert levels.num_chs == [(8, 16, 24, 32)[i] for i in stages]
    assert levels.reductions == [(4, 8, 16, 32)[i] for i in stages]
    maps = levels(x)
    expected = reference.forward_intermediates(x, stages, intermediates_only=True)
    assert [list(y.shape) for y in maps] == [
        [2, c, 64 // r, 96 // r] for c, r in zip(levels.num_chs, levels.reductions, strict=True)
    ]
    for stage, y, plain in zip(stages, maps, expected, strict=True):
        assert isinstance(levels.norms[stage], KINDS[norm])
        assert torch.equal(y, levels.norms[stage](plain))
    assert len(levels.stages) == stages[-1] + 1


def test_what_the_levels_do_not_need_is_gone() -> None:
    levels = Levels(backbone(), (0, 1))
    assert {key.split(".")[0] for key in levels.state_dict()} == {"stem", "stages"}
    assert not any(key.startswith("stages.2") for key in levels.state_dict())


def test_norm_keys_carry_the_number_of_the_stage() -> None:
    levels = Levels(backbone(), (1, 3), "layer")
    assert [key for key in levels.state_dict() if "norms" in key] == [
        "norms.1.weight", "norms.1.bias", "norms.3.weight", "norms.3.bias"
    ]  # fmt: skip


def test_norms_of_single_levels() -> None:
    levels = Levels(backbone(), (0, 1, 3), ("none", "batch", "layer"))
    assert [type(norm) for norm in levels.norms] == [nn.Identity, nn.BatchNorm2d, nn.Identity, LayerNorm2d]
    with pytest.raises(ValueError, match="there are 3 levels; give one norm"):
        Levels(backbone(), (0, 1, 3), ("none", "batch"))


def test_every_parameter_gets_a_gradient_and_scripting_works() -> None:
    levels = Levels(backbone(), None, "batch", dtype=torch.float64).train()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    sum(y.square().mean() for y in levels(x)).backward()
    assert all(parameter.grad is not None for parameter in levels.parameters())
    scripted = torch.jit.script(levels.eval())
    with torch.no_grad():
        assert all(torch.allclose(one, other) for one, other in zip(scripted(x), levels(x), strict=True))


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="did you mean 'batch'"):
        Levels(backbone(), None, "bach")
    with pytest.raises(ValueError, match="the model has 4 stages"):
        Levels(backbone(), (4,))
