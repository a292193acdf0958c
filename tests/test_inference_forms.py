"""Forms that only inference on a CPU takes compute what the papers' forms compute."""

from __future__ import annotations

import copy

import pytest
import torch

import tokenmix
from benchmarks.reference_forms import reference_form
from tests.backbone_cases import distance, toy
from tests.scramble import scramble
from tokenmix.backbones import base
from tokenmix.layers import fused
from tokenmix.mixers import make_mixer
from tokenmix.ops import rows
from tokenmix.ops.derived import _kept, derived


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
        "tokenmix.mixers.frequency_forms.filter_rows",
        lambda x, *rest: sizes.append(x.size(2)) or rows.filter_rows(x, *rest),
    )
    mixer = fused(make_mixer("aff", 8).eval())
    for side in (8, rows.MOST_ROWS, rows.MOST_ROWS + 1):
        mixer(maps(1, 8, side, side))  # with gradients
        with torch.no_grad():
            mixer(maps(1, 8, side, side).contiguous())
            mixer(maps(1, 8, side, side))
    assert sizes == [8, rows.MOST_ROWS]


def test_large_batches_pass_in_parts_once_re_parameterised(monkeypatch: pytest.MonkeyPatch) -> None:
    model = toy("casvit_xs")
    x = torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = model(x)
        monkeypatch.setattr(base, "AT_ONCE", 2 * model.stem(x)[0].numel())
        for network, expected in ((model, {5}), (tokenmix.reparameterize(model), {1, 2, 5})):
            seen: list[int] = []
            for stage in network.stages:
                stage.blocks[0].register_forward_hook(lambda module, args, output, seen=seen: seen.append(len(output)))
            assert distance(network(x), wanted) < 2e-6
            assert set(seen) == expected  # later stages have smaller maps


def test_what_follows_from_a_weight_follows_it_and_goes_with_it() -> None:
    made: list[int] = []

    def build(weight: torch.Tensor, groups: int) -> torch.Tensor:
        made.append(groups)
        return weight + 1

    weight = torch.nn.Parameter(torch.ones(4, 1, 3, 3))
    for groups in (1, 1, 2, 1):
        assert derived(build, weight, groups).max() == 2
    with torch.no_grad():
        weight.add_(1)
    assert derived(build, weight, 1).max() == 3
    assert made == [1, 2, 1]
    for other in (4.0, 0.5):
        weight.data.fill_(other)  # which autograd does not count
        assert derived(build, weight, 1).equal(weight + 1)
    key = id(weight)
    assert key in _kept
    del weight
    assert key not in _kept
    with torch.inference_mode():
        unversioned = torch.ones(3)
        for value in (1, 2):
            unversioned.fill_(value)
            assert derived(build, unversioned, 1).max() == value + 1
