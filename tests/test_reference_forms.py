"""The papers' forms that speeds are compared with compute what our forms compute."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import tokenmix
from benchmarks.reference_forms import FORMS, reference_form
from tests.backbone_cases import distance, images, toy
from tests.scramble import scramble
from tokenmix.layers import ConvAct, ConvNorm, fused
from tokenmix.mixers import make_mixer
from tokenmix.ops.dispatch import is_channels_last


@pytest.mark.parametrize(("mixer", "dim"), [("aff", 24), ("aff(act='prelu')", 16), ("additive", 12), ("ffnified", 8)])
@pytest.mark.parametrize("size", [(7, 7), (14, 9), (16, 17)])
def test_mixers_in_both_forms(mixer: str, dim: int, size: tuple[int, int]) -> None:
    ours = scramble(make_mixer(mixer, dim)).double().eval()
    reference = reference_form(ours)
    assert type(ours) not in FORMS or type(reference) is not type(ours)
    x = torch.randn(2, dim, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    last = x.contiguous(memory_format=torch.channels_last)
    wanted = reference(x)
    for form in (ours, fused(scramble(make_mixer(mixer, dim)).double().eval())):
        assert distance(form(x), wanted) < 1e-12
        assert distance(form(last), wanted) < 1e-12


@pytest.mark.parametrize("name", ["affnet_et", "casvit_xs", "ffnet_1"])
def test_whole_models(name: str) -> None:
    model = toy(name)
    reference = reference_form(model)
    fast = tokenmix.reparameterize(model)
    x = images(64, 64)
    with torch.no_grad():  # the forms of inference, which autograd does not take
        assert distance(fast(x), reference(x)) < 2e-5
        assert distance(fast(torch.cat([x, x])), reference(torch.cat([x, x]))) < 2e-5
    assert not any(type(module) in FORMS for module in reference.modules())
    assert any(isinstance(module, ConvNorm) for module in reference.modules())


@pytest.mark.parametrize("act", [nn.GELU, nn.SiLU, nn.ReLU, nn.Tanh])
@pytest.mark.parametrize(("kernel", "side", "batch"), [(1, 50, 1), (1, 8, 1), (1, 8, 3), (3, 9, 1)])
def test_convolution_and_activation_at_once(act: type[nn.Module], kernel: int, side: int, batch: int) -> None:
    layer = scramble(ConvNorm(6, 10, kernel, act=act)).eval()
    fast = fused(layer).to(memory_format=torch.channels_last)
    assert any(isinstance(module, ConvAct) for module in fast.modules()) == (act is not nn.Tanh)
    x = torch.randn(batch, 6, side, side, generator=torch.Generator().manual_seed(0))
    for inputs in (x, x.contiguous(memory_format=torch.channels_last)):
        with torch.no_grad():
            out = fast(inputs)
        assert distance(out, layer(x)) < 1e-5
        assert is_channels_last(out)
        assert distance(fast(inputs), layer(x)) < 1e-5  # with gradients: no one-call form
