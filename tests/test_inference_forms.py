"""Forms that only inference on a CPU takes compute what the papers' forms compute."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import tokenmix
from benchmarks.reference_forms import reference_form
from tests.backbone_cases import distance, toy
from tests.scramble import scramble
from tokenmix.backbones import base
from tokenmix.layers import ConvAct, fused
from tokenmix.mixers import make_mixer
from tokenmix.ops import inference, rows


def maps(batch: int, dim: int, height: int, width: int) -> torch.Tensor:
    """Noise in channels_last memory."""
    x = torch.randn(batch, dim, height, width, generator=torch.Generator().manual_seed(0))
    return x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("mixer", "dim"), [("aff", 24), ("aff(groups=1)", 6), ("additive", 12)])
@pytest.mark.parametrize("size", [(7, 7), (2, 5), (16, 9), (33, 48), (50, 8)])
def test_mixers_on_rows_of_channels(mixer: str, dim: int, size: tuple[int, int]) -> None:
    source = scramble(make_mixer(mixer, dim)).eval()
    x = maps(3, dim, *size)
    before = x.clone()
    with torch.no_grad():
        assert distance(fused(copy.deepcopy(source))(x), reference_form(source)(x)) < 1e-5
    assert torch.equal(x, before)


def test_the_filter_takes_rows_where_they_are_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    monkeypatch.setattr(
        "tokenmix.mixers.frequency.filter_rows", lambda x, *rest: sizes.append(x.size(2)) or rows.filter_rows(x, *rest)
    )
    mixer = fused(make_mixer("aff", 8).eval())
    for side in (8, rows.MOST_ROWS, rows.MOST_ROWS + 1):
        mixer(maps(1, 8, side, side))  # with gradients
        with torch.no_grad():
            mixer(maps(1, 8, side, side).contiguous())
            mixer(maps(1, 8, side, side))
    assert sizes == [8, rows.MOST_ROWS]


@pytest.mark.parametrize("act", ["", "gelu", "silu", "relu"])
@pytest.mark.parametrize(("kernel", "stride", "groups"), [(1, 1, 1), (1, 2, 1), (1, 1, 2), (3, 1, 8), (3, 2, 1)])
@pytest.mark.parametrize("side", [9, 40])
def test_convolutions_follow_their_weights(act: str, kernel: int, stride: int, groups: int, side: int) -> None:
    conv = nn.Conv2d(8, 16, kernel, stride, kernel // 2, groups=groups)
    fast = ConvAct(conv, act)
    x = maps(1, 8, side, side)
    with torch.no_grad():
        for _ in range(2):
            assert distance(fast(x), inference.activate(conv(x.contiguous()), act)) < 1e-5
            conv.weight.mul_(-0.5)  # what was kept of it is built anew
    assert distance(fast(x), inference.activate(conv(x.contiguous()), act)) < 1e-5


def test_what_is_kept_of_a_weight_follows_it_and_goes_with_it() -> None:
    built = []

    def build(weight: torch.Tensor, by: int) -> torch.Tensor:
        built.append(by)
        return weight + by

    weight = nn.Parameter(torch.ones(3))
    for by in (1, 1, 2, 1):
        assert inference.kept(build, weight, by).tolist() == [1 + by] * 3
    with torch.no_grad():
        weight.add_(1)
    assert inference.kept(build, weight, 1).tolist() == [3, 3, 3]
    assert built == [1, 2, 1]
    key = id(weight)
    assert key in inference._kept
    del weight
    assert key not in inference._kept
    with torch.inference_mode():
        unversioned = torch.ones(3)
        for value in (1, 2):
            unversioned.fill_(value)
            assert inference.kept(build, unversioned, 1).tolist() == [value + 1] * 3


def test_large_batches_pass_in_parts_unless_a_hook_sees_them(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tokenmix.reparameterize(toy("casvit_xs"))
    x = torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = model(x)
        monkeypatch.setattr(base, "AT_ONCE", 2 * model.stem(x)[0].numel())
        sizes = []
        monkeypatch.setattr(
            "tokenmix.mixers.additive.plain_inference", lambda x: sizes.append(len(x)) or inference.plain_inference(x)
        )
        assert distance(model(x), wanted) < 1e-6
        assert set(sizes) == {1, 2, 5}  # later stages have smaller maps
        seen = []
        for stage in model.stages:
            stage.blocks[0].register_forward_hook(lambda module, args, output: seen.append(len(output)))
        assert distance(model(x), wanted) < 1e-6
    assert set(seen) == {5}
