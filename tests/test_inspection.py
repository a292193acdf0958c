"""What `tokenmix inspect` shows is true: kernels, fields, spectra, maps and alignments against definitions."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.mixer_cases import DIM, build, closeness, image
from tests.scramble import scramble, settle
from tokenmix.inspection import dynamic_kernel
from tokenmix.inspection.activation import grad_cam, score_cam
from tokenmix.inspection.layers import blocks, chosen_mixers, mixers, passing, stages
from tokenmix.inspection.receptive import reach_of, receptive_fields, width_of
from tokenmix.inspection.similarity import alignment, alignments, rows_of
from tokenmix.inspection.slots import _DRAWN, MAPS, about, kernel_figures, slot_figures, slots_of
from tokenmix.inspection.spectra import radial_spectrum, whole_spectrum
from tokenmix.layers import RepDepthwise
from tokenmix.mixers import MIXERS, make_mixer

SMALL: dict[str, Any] = {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16), "num_classes": 3}


def small(mixer: str, **options: Any) -> nn.Module:
    """A scrambled network with one block in each stage."""
    return scramble(timm.create_model("mixernet_pico", mixers=mixer, **{**SMALL, **options})).eval()


# ---------------------------------------------------------------------------------------------------------- the kernels


def convolved(x: Tensor, kernel: Tensor) -> Tensor:
    """The circular convolution by its definition: a sum of moved copies."""
    out = torch.zeros_like(x)
    for down, right in itertools.product(range(x.shape[-2]), range(x.shape[-1])):
        out += x.roll((down, right), dims=(-2, -1)) * kernel[..., down : down + 1, right : right + 1]
    return out


@pytest.mark.parametrize("size", [(7, 5), (8, 6), (1, 4)], ids=str)
@pytest.mark.parametrize("spec", ["aff", "aff(groups=3,act='prelu')", "global_filter(size=5)"])
@torch.no_grad()
def test_convolving_with_the_dynamic_kernel_is_the_filter(spec: str, size: tuple[int, int]) -> None:
    mixer, x = build(spec), image(*size)
    kernel = dynamic_kernel(mixer, x)
    assert closeness(convolved(x, kernel.expand_as(x)), mixer(x)) < 1e-6
    other = dynamic_kernel(mixer, image(*size, seed=1))
    assert torch.equal(other, kernel) == (spec.startswith("global")), "AFFNet's is made from the input, GFNet's is not"


@torch.no_grad()
def test_the_kernel_of_a_filter_inside_a_mixer() -> None:
    mixer: Any = build("dynamic_filter(size=5)")
    x = image(7, 5)
    core = convolved(mixer.act(mixer.expand(x)), dynamic_kernel(mixer, x))
    assert closeness(mixer.proj(core), mixer(x)) < 1e-6


def test_what_filters_no_spectrum_has_no_such_kernel() -> None:
    with pytest.raises(ValueError, match="SoftmaxAttention multiplies no Fourier spectrum"):
        dynamic_kernel(build("attention"), image(4, 4))
    with pytest.raises(ValueError, match="Conv2d multiplies no Fourier spectrum"):
        dynamic_kernel(nn.Conv2d(2, 2, 1), torch.zeros(1, 2, 4, 4))


@pytest.mark.parametrize("width", [5, 6, 1])
def test_whole_spectrum(width: int) -> None:
    x = image(4, width)
    ours = whole_spectrum(torch.fft.rfft2(x), width)
    theirs = torch.fft.fftshift(torch.fft.fft2(x), dim=(-2, -1))
    assert torch.allclose(ours, theirs)


@torch.no_grad()
def test_merged_kernels_are_what_the_branches_add_up_to() -> None:
    mixer: Any = build("ffnified")
    figures = list(kernel_figures(mixer))
    assert [figure.name for figure in figures] == ["kernels-key-op", "kernels-value-op"]
    assert "7 x 7, 3 x 3" in figures[0].note
    branches: RepDepthwise = mixer.key.op
    x = image(9, 9)
    assert closeness(branches.fuse()(x), branches(x)) < 1e-12


# ----------------------------------------------------------------------------------------------------------- the fields


@pytest.mark.parametrize(("mixer", "whole"), [("aff", True), ("dsm", True), ("attention", True), ("ffnified", False)])
def test_which_fields_reach_the_whole_map_in_one_block(mixer: str, whole: bool) -> None:
    model = small(mixer).double()
    x = torch.randn(1, 3, 96, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    first = {"stages.0": stages(model)["stages.0"]}
    energy = receptive_fields(first, model, [x])["stages.0"]
    assert (reach_of(energy) == 1) == whole
    if not whole:  # two kernels of 7 tokens, each 4 pixels of a stem that sees 7
        seen = energy.nonzero()
        sides = seen.amax(0) - seen.amin(0) + 1
        assert sides.tolist() == [12 * 4 + 7] * 2
        assert width_of(energy, 1.0) == 12 * 4 + 7


def test_the_field_of_a_convolution_is_its_kernel() -> None:
    conv = nn.Conv2d(1, 1, 5, padding=2, bias=False).double()
    x = torch.randn(2, 1, 1, 11, 11, dtype=torch.float64)
    energy = receptive_fields({"conv": conv}, conv, list(x))["conv"]
    expected = conv.weight[0, 0].detach().square()
    assert torch.allclose(energy[3:8, 3:8], expected / expected.sum())
    assert width_of(energy, 1.0) == 5
    assert reach_of(energy) == 25 / 121


def test_the_field_of_a_stem_is_what_its_kernels_see() -> None:
    """Padded kernels of 3 at stride 2 lie half a pixel off the middle of what they stand for."""
    stem = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)).double()
    energy = receptive_fields({"stem": stem}, stem, [image(32, 48, batch=1, dim=1)])["stem"]
    assert width_of(energy, 1.0) == 7


def test_width_holds_its_share() -> None:
    energy = torch.zeros(9, 12, dtype=torch.float64)
    energy[4, 4], energy[4, 6] = 0.9, 0.1
    assert width_of(energy, 0.9) == 1
    assert width_of(energy, 0.95) == 3
    energy[0, 0] = 1
    assert width_of(energy, 1.0) == 7
    energy[8, 11] = 1
    assert width_of(energy, 1.0) == 12, "as long as the picture"
    assert width_of(torch.ones(5, 8), 1.0) == 8


@given(st.integers(1, 9), st.integers(1, 9), st.floats(0.05, 1.0), st.integers(0, 99))
def test_width_is_that_of_the_smallest_square_of_all(height: int, width: int, share: float, seed: int) -> None:
    energy = torch.rand(height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).pow(4)
    places = list(itertools.product(range(height), range(width)))

    def held(side: int) -> float:
        return max(float(energy[top : top + side, left : left + side].sum()) for top, left in places)

    needed = share * float(energy.sum()) * (1 - 1e-9)
    assert width_of(energy, share) == next(side for side in range(1, 10) if held(side) >= needed)


# ---------------------------------------------------------------------------------------------------------- the spectra


def test_a_wave_has_its_frequency() -> None:
    row = torch.arange(32, dtype=torch.float64)
    for cycles in (2, 8, 14):
        wave = torch.cos(2 * torch.pi * cycles * row / 32)[:, None].expand(32, 32)[None, None]
        line = np.array(radial_spectrum([wave + 1e-6 * image(32, 32, batch=1, dim=1)]))
        assert line[1:].argmax() + 1 == cycles
        assert line[0] == 0


def test_a_frequency_that_is_not_there_is_as_low_as_rounding() -> None:
    for flat in (torch.ones(1, 2, 16, 16), torch.zeros(1, 2, 16, 16)):
        line = radial_spectrum([flat])
        assert line[0] == 0
        assert -40 < min(line) <= max(line) <= 0


def test_smoothing_lowers_the_high_frequencies() -> None:
    x = image(24, 24)
    smooth = torch.nn.functional.avg_pool2d(x, 3, 1, 1)
    assert radial_spectrum([smooth])[-1] < radial_spectrum([x])[-1] - 0.5
    assert len(radial_spectrum([image(1, 1)])) == len(radial_spectrum([image(5, 3)]))


# -------------------------------------------------------------------------------------------------------- the alignment


def defined(x: np.ndarray, y: np.ndarray) -> float:
    """HSIC's U-statistic as a sum over all quadruples of different rows (Gretton et al. 2005, eq. 4, unbiased)."""
    k, l, n, total, count = x @ x.T, y @ y.T, len(x), 0.0, 0  # noqa: E741
    for i, j, q, r in itertools.permutations(range(n), 4):
        total += k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q])
        count += 1
    return total / count


def test_alignment_is_that_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 4)) + 2, rng.normal(size=(7, 5)) - 1
    expected = defined(x, y) / np.sqrt(defined(x, x) * defined(y, y))
    assert alignment(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(expected, rel=1e-9)


def test_alignment_knows_rotations_and_strangers() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 6, dtype=torch.float64, generator=generator)
    turn, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=generator))
    assert alignment(x, 3 * x @ turn + 1) == pytest.approx(1)
    stranger = torch.randn(60, 500, dtype=torch.float64, generator=generator)
    assert abs(alignment(x, stranger)) < 0.1, "the biased estimator would be near 1"
    with pytest.raises(ValueError, match="the same rows, at least 4, not 60 and 3"):
        alignment(x, x[:3])


def test_rows_are_cells_of_all_pictures() -> None:
    x = image(14, 14)
    rows = rows_of([x, x], 7)
    assert rows.shape == (2 * 2 * 49, DIM)
    assert torch.allclose(rows[0], x[0, :, :2, :2].mean((1, 2)))


@pytest.mark.parametrize("side", [2, 8, 10, 16])
def test_unrelated_maps_of_any_size_are_not_alike(side: int) -> None:
    generator = torch.Generator().manual_seed(side)
    one, other = (torch.randn(4, 512, side, side, dtype=torch.float64, generator=generator) for _ in range(2))
    grid = min(7, side)
    assert abs(alignment(rows_of([one], grid), rows_of([other], grid))) < 0.15


def test_a_few_rows_are_alike_in_no_number() -> None:
    x = {"a": image(2, 2)}
    ((value,),) = alignments({"a": rows_of([x["a"][:1]], 1)}, {"a": rows_of([x["a"][:1]], 1)})
    assert value != value


# ------------------------------------------------------------------------------------------------------------- the maps


class Linear(nn.Module):
    """Pooled channels, weighed: Grad-CAM is CAM (arXiv:1512.04150) here."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).mean((2, 3)))


def test_grad_cam_of_a_pooled_linear_classifier_is_cam() -> None:
    model, x = Linear().double(), torch.randn(1, 3, 6, 6, dtype=torch.float64)
    found = grad_cam(model.conv, lambda inputs: model(inputs)[:, 1], x)
    cam = torch.relu((model.fc.weight[1][:, None, None] * model.conv(x)[0]).sum(0))
    assert closeness(found * 36, cam) < 1e-12


def test_score_cam_prefers_what_raises_the_score() -> None:
    """Two channels that see one corner each; only one of them counts."""
    conv = nn.Identity()
    x = torch.zeros(1, 2, 8, 8)
    x[0, 0, :4, :4], x[0, 1, 4:, 4:] = 1, 1

    def score(inputs: Tensor) -> Tensor:
        return 10 * conv(inputs)[:, 0, :4, :4].mean((1, 2))

    found = score_cam(conv, score, x)
    assert found[:4, :4].mean() > 100 * found[4:, 4:].mean()


# ----------------------------------------------------------------------------------------------------------- the layers


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("affnet_et", "stages.2.blocks.0.chain.0.mixer"),
        ("ffnet_1", "stages.0.blocks.0.mixer.op"),
        ("casvit_xs", "stages.0.blocks.0.mixer.op"),
        ("dsm_ti", "stages.0.blocks.0.mixer.op"),
        ("mixernet_pico", "stages.0.blocks.0.mixer.op"),
    ],
)
def test_every_family_says_where_its_mixers_are(name: str, place: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    found = mixers(model)
    assert next(iter(found)) == place
    assert set(chosen_mixers(model, None)) <= set(found)
    assert len(chosen_mixers(model, None)) == (3 if name == "affnet_et" else 4)
    layer = place.rsplit(".mixer", 1)[0]
    assert list(chosen_mixers(model, layer)) == [place]
    assert all(any(mixer.startswith(f"{block}.") for block in blocks(model)) for mixer in found)
    with pytest.raises(ValueError, match="unknown layer with a mixer"):
        chosen_mixers(model, "stages.9")


def test_a_mixer_of_ones_own_needs_no_slots() -> None:
    def own(dim: int, *, device=None, dtype=None) -> nn.Module:
        return nn.Conv2d(dim, dim, 3, padding=1, groups=dim, device=device, dtype=dtype)

    model = small(own)  # type: ignore[arg-type]
    assert list(mixers(model)) == [f"stages.{number}.blocks.0.mixer.op" for number in range(4)]
    x = image(8, 8, dtype=torch.float32)
    slots, difference = slots_of(make_mixer(own, DIM), x, x)
    assert list(slots) == ["input", "value"]
    assert difference is None


def test_a_model_without_stages_is_told() -> None:
    with pytest.raises(ValueError, match="Linear has no stages that can be looked at"):
        stages(Linear())


@pytest.mark.parametrize("name", ["resnet10t", "densenet121"])
def test_timms_networks_are_looked_at_where_timm_takes_their_features(name: str) -> None:
    model = timm.create_model(name, num_classes=3).eval()
    infos: Any = model.feature_info
    found = stages(model)
    assert list(found) == [info["module"] for info in infos]
    assert all(any(block == stage or block.startswith(f"{stage}.") for stage in found) for block in blocks(model))
    maps = passing(found, model, torch.randn(1, 3, 64, 64))
    assert [y.size(1) for y in maps.values()] == [info["num_chs"] for info in infos]
    assert chosen_mixers(model, None) == {}


@pytest.mark.parametrize("name", MIXERS)
@torch.no_grad()
def test_every_slot_can_be_drawn(name: str) -> None:
    mixer = build(name, dtype=torch.float32)
    x = image(8, 6, batch=1, dtype=torch.float32)
    slots, difference = slots_of(mixer, mixer(x), x)
    assert difference is not None
    assert difference < 1e-4
    assert {slot.kind for slot in slots.values()} <= set(_DRAWN)
    figures = {figure.name: figure for figure in slot_figures(MAPS, mixer, slots, (x,))}
    assert set(slots) <= set(figures)
    assert ("kernel" in figures) == (name in ("aff", "global_filter", "dynamic_filter"))
    assert all(min(figure.picture.size) > 0 for figure in figures.values())
    assert about(mixer)["paper"] == MIXERS[name].paper


def test_what_passes_is_what_the_blocks_return() -> None:
    model = small("aff")
    x = torch.randn(1, 3, 64, 64)
    settle(model, x)
    passed = passing(blocks(model), model, x)
    with torch.no_grad():
        first = model.stages[0](model.stem(x))
    assert torch.allclose(passed["stages.0.blocks.0"], first)
    assert list(passed) == [f"stages.{number}.blocks.0" for number in range(4)]
