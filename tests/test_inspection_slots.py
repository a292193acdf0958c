"""What fills the slots of mixers of series and of voxels is what they compute, and every piece can be drawn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.mixer_cases import closeness
from tests.scramble import scramble
from tests.test_forecasting_mixers import CASES, build, series
from tokenmix.inspection import dynamic_kernel
from tokenmix.inspection.slots import about, slot_figures, slots_of
from tokenmix.mixers import MixerInfo, make_mixer
from tokenmix.ops.sparse import Voxels
from tokenmix.tasks.forecasting import looking as series_looking
from tokenmix.tasks.forecasting.blocks import KeyValue
from tokenmix.tasks.forecasting.mixers import SERIES_MIXERS
from tokenmix.tasks.points import looking as voxel_looking
from tokenmix.tasks.points.mixers import VOXEL_MIXERS
from tokenmix.tasks.view import Figure, MixerDrawing

NAMES = ("query", "key", "act")
VOXEL_CASES = (*VOXEL_MIXERS, "ffnified(conv='depthwise',act='relu')", "attention(patch=16,head_dim=4)", "pool(size=5)")


def drawn(drawing: MixerDrawing, mixer: Any, *given: Any) -> dict[str, Figure]:
    """The figures of a mixer, once its slots are found to be right."""
    slots, difference = slots_of(mixer, mixer(*given), *given)
    assert difference is not None
    assert difference < 1e-12
    figures = {figure.name: figure for figure in slot_figures(drawing, mixer, slots, given)}
    assert set(slots) <= set(figures)
    for figure in (*figures.values(), *drawing.kernels(mixer)):
        assert min(figure.picture.size) >= 16, figure.name
        assert max(figure.picture.size) < 1000, figure.name
    return figures


def silent(info: MixerInfo) -> set[str]:
    return {slot for slot in NAMES if getattr(info, slot) == "identity"}


@pytest.mark.parametrize("spec", CASES)
@pytest.mark.parametrize("tokens", [11, 8])
@torch.no_grad()
def test_series(spec: str, tokens: int) -> None:
    mixer: Any = build(spec)
    figures = drawn(series_looking.DRAWING, mixer, series(tokens))
    name = spec.split("(")[0]
    info = SERIES_MIXERS[name]
    assert set(NAMES) - set(figures) == silent(info)
    assert ("kernel" in figures) == (name in ("aff", "global_filter"))
    assert about(mixer, series_looking.DRAWING.known)["paper"] == info.paper


@pytest.mark.parametrize("spec", ["aff", "global_filter(size=11)"])
@torch.no_grad()
def test_convolving_with_the_kernel_in_time_is_the_filter(spec: str) -> None:
    mixer, x = build(spec), series(9)
    kernel = dynamic_kernel(mixer, x).expand_as(x)
    convolved = sum((x.roll(step, -1) * kernel[..., step : step + 1] for step in range(9)), torch.zeros_like(x))
    assert closeness(convolved, mixer(x)) < 1e-12


@torch.no_grad()
def test_published_token_mixer_of_series() -> None:
    mixer = scramble(KeyValue(3, 4, 5).double()).eval()
    x = torch.randn(3, 4, 1, 12, dtype=torch.float64)
    figures = drawn(series_looking.DRAWING, mixer, x)
    assert list(figures) == ["query", "key", "act", "value"]
    assert figures["query"].note == "the map of the variables"
    kernels = list(series_looking.kernel_figures(mixer))
    assert [figure.name for figure in kernels] == ["kernels-key-as-trained", "kernels-value-as-trained"]


@torch.no_grad()
def test_kernels_in_time_are_shown_as_trained_and_merged() -> None:
    names = [
        figure.name for figure in series_looking.kernel_figures(build("ffnified(key_size=7,value_size=3,conv='rep')"))
    ]
    assert names == ["kernels-key-branch-1", "kernels-key-branch-2", "kernels-key-merged",
                     "kernels-value-branch-1", "kernels-value-merged"]  # fmt: skip


@torch.no_grad()
def test_what_each_band_of_a_series_carries_adds_up() -> None:
    mixer: Any = build("dsm(local=False)")
    x = series(12, batch=1)
    slots = mixer.slots(x)
    spectrum = slots["query"].value * slots["mask"].value
    total = spectrum.square().sum()
    assert slots["carried_by_band"].value.shape == (1, 8, 12)
    assert slots["carried_by_band"].value.square().sum() * x.shape[1] < total * (1 + 1e-9), "bands overlap, so less"


def clouds(*counts: int, seed: int = 0) -> tuple[Tensor, Voxels]:
    draw = torch.Generator().manual_seed(seed)
    cloud = torch.repeat_interleave(torch.tensor(counts))
    voxels, _ = Voxels.of(torch.randint(0, 6, (sum(counts), 3), generator=draw), cloud, len(counts))
    return torch.randn(len(voxels), 8, generator=draw, dtype=torch.float64), voxels


@pytest.mark.parametrize("spec", VOXEL_CASES)
@pytest.mark.parametrize("counts", [(60,), (50, 20)], ids=str)
@torch.no_grad()
def test_voxels(spec: str, counts: tuple[int, ...]) -> None:
    mixer = scramble(make_mixer(spec, 8, known=VOXEL_MIXERS, dtype=torch.float64)).eval()
    figures = drawn(voxel_looking.DRAWING, mixer, *clouds(*counts))
    info = VOXEL_MIXERS[spec.split("(")[0]]
    assert set(NAMES) - set(figures) == silent(info)
    assert about(mixer, VOXEL_MIXERS)["paper"] == info.paper


@torch.no_grad()
def test_a_patch_takes_all_that_its_voxels_give() -> None:
    """Each voxel gives weights that add up to 1, in every head; a patch that is not full gives no more."""
    mixer: Any = scramble(make_mixer("attention(patch=16,head_dim=4)", 8, known=VOXEL_MIXERS, dtype=torch.float64))
    x, voxels = clouds(40)
    taken = mixer.slots(x, voxels)["act"].value
    assert taken.shape == (len(x), 2)
    assert torch.allclose(taken.sum(0), torch.full((2,), float(len(x)), dtype=torch.float64))
