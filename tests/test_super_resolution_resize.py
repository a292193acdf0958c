"""Bicubic resizing, luma, PSNR, SSIM and the loss, against definitions and implementations that are not ours."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.metrics import structural_similarity

from tokenmix.tasks.super_resolution.loss import reconstruction_loss, spectral_l1
from tokenmix.tasks.super_resolution.metrics import PictureQuality, compare_pictures, luma, psnr, quantised, ssim
from tokenmix.tasks.super_resolution.resize import Bicubic, cubic, resize, resized_strips

SET5 = next((one / "shared/data/set5" for one in Path(__file__).parents if (one / "shared/data/set5").is_dir()), None)
PUBLISHED = {2: (33.66, 0.9299), 3: (30.39, 0.8682), 4: (28.42, 0.8104)}  # bicubic on Set5, any paper's first row


def naive(line: np.ndarray, length: int, scale: float) -> np.ndarray:
    """One line by the definition: every new pixel is a weighted mean of the mirrored old ones."""
    shrink = min(scale, 1.0)
    mirrored = np.concatenate((line, line[::-1]))
    result = []
    for place in range(length):
        centre = (place + 0.5) / scale - 0.5
        near = range(math.floor(centre - 2 / shrink) - 1, math.ceil(centre + 2 / shrink) + 2)
        weights = [float(cubic(np.array((centre - one) * shrink))) for one in near]
        values = [mirrored[one % len(mirrored)] for one in near]
        result.append(np.dot(weights, values) / sum(weights))
    return np.array(result)


@settings(max_examples=40, deadline=None)
@given(
    sides=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    scales=st.tuples(st.floats(0.1, 4.5), st.floats(0.1, 4.5)),
    seed=st.integers(0, 9),
)
def test_resizes_as_defined(sides: tuple[int, int], scales: tuple[float, float], seed: int) -> None:
    picture = np.random.default_rng(seed).random((*sides, 2))
    ours = resize(picture, scales)
    height, width = ours.shape[:2]
    rows = np.stack([[naive(picture[:, x, c], height, scales[0]) for x in range(sides[1])] for c in range(2)])
    expected = np.stack([[naive(rows[c, :, y], width, scales[1]) for y in range(height)] for c in range(2)])
    assert np.abs(ours - expected.transpose(1, 2, 0)).max() < 1e-12


@pytest.mark.parametrize("size", [(20, 27), (30, 41), (61, 200), (122, 166)])
def test_equals_torch_away_from_the_borders(size: tuple[int, int]) -> None:
    """With antialiasing torch has the same kernel, and other borders."""
    picture = np.random.default_rng(0).random((61, 83, 3))
    other = F.interpolate(
        torch.from_numpy(picture).permute(2, 0, 1)[None], size, mode="bicubic", antialias=True
    )[0].permute(1, 2, 0)  # fmt: skip
    inner = tuple(slice(side // 6, -(side // 6)) for side in size)
    assert np.abs(resize(picture, size=size)[inner] - other.numpy()[inner]).max() < 1e-13


def test_known_values() -> None:
    line = np.array([[0.0, 0, 0, 1, 0, 0, 0, 0]])
    halves = resize(line, (1, 0.5))[0]  # the kernel at odd eighths: (-29, 111, 235, 235, 111, -29) ... over 1024
    weights = cubic((np.arange(8) - 3.5) / 2) / 2
    assert np.allclose(weights.sum(), 1)
    assert np.allclose(halves[1], weights[4])
    doubled = resize(np.array([[0.0, 64, 128, 192]]), (1, 2))[0]
    assert np.allclose(doubled[3:5], [80, 112])  # a slope stays one
    assert np.allclose(resize(np.full((5, 7), 3.25), 1.7), 3.25)


def test_kinds_and_sizes() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (9, 10, 3), np.uint8)
    small = resize(picture, 1 / 3)
    assert (small.dtype, small.shape) == (np.uint8, (3, 4, 3))
    assert np.array_equal(small, np.rint(resize(picture.astype(float), 1 / 3)).clip(0, 255).astype(np.uint8))
    assert resize(picture.astype(np.float32), 2).dtype == np.float32
    assert resize(picture.astype(np.uint16) * 257, size=(4, 5)).dtype == np.uint16
    assert np.array_equal(resize(picture, 1), picture)
    tall = np.random.default_rng(0).random((1100, 1030))
    assert len(list(resized_strips(tall, 2))) > 1
    part = resize(tall, (2, 1))[1000:1010]
    assert np.allclose(part, resize(tall[490:515], (2, 1))[20:30])
    for wrong in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="a scale must be a number above 0"):
            resize(picture, wrong)
    with pytest.raises(ValueError, match="needs a scale or a size"):
        resize(picture)
    with pytest.raises(ValueError, match="has the shape"):
        resize(np.zeros((0, 3)), 2)


def test_bicubic_is_a_model() -> None:
    x = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    y = Bicubic(3)(x)
    assert (y.shape, y.dtype) == ((2, 3, 18, 15), torch.float32)
    assert np.allclose(y[1].permute(1, 2, 0), resize(x[1].permute(1, 2, 0).double().numpy(), 3), atol=1e-6)


@pytest.mark.skipif(SET5 is None, reason="Set5 is not here")
@pytest.mark.parametrize("scale", PUBLISHED)
def test_published_row_of_bicubic_on_set5(scale: int) -> None:
    assert SET5 is not None
    metric = PictureQuality(scale)
    for path in sorted(SET5.glob("*.bmp")):
        high = np.array(Image.open(path).convert("RGB"))
        high = high[: high.shape[0] // scale * scale, : high.shape[1] // scale * scale]
        again = resize(resize(high, 1 / scale), scale)
        target, picture = (torch.from_numpy(one).permute(2, 0, 1).double() / 255 for one in (high, again))
        metric.update([picture], {"target": [target]})
    found, (decibels, likeness) = metric.compute(), PUBLISHED[scale]
    assert abs(found["psnr"] - decibels) < 0.02
    assert abs(found["ssim"] - likeness) < 0.0005


def pictures(height: int = 24, width: int = 31, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    one = torch.rand(3, height, width, generator=generator, dtype=torch.float64)
    return one, (one + 0.05 * torch.randn(one.shape, generator=generator, dtype=torch.float64)).clamp(0, 1)


def test_ssim_is_scikit_images() -> None:
    one, other = (luma(quantised(part)) for part in pictures())
    expected = structural_similarity(
        one.numpy(), other.numpy(), data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert math.isclose(ssim(one, other), expected, abs_tol=1e-12)
    assert math.isclose(ssim(one, one), 1.0)
    with pytest.raises(ValueError, match="SSIM needs 11 x 11 pixels at least, and 31 x 10 are left"):
        ssim(one[:10], other[:10])


def test_luma_and_psnr() -> None:
    white, black, red = torch.full((3, 1, 1), 255.0).double(), torch.zeros(3, 1, 1), torch.tensor([255.0, 0, 0])
    assert luma(white).item() == pytest.approx(235)
    assert luma(black).item() == 16
    assert luma(red.view(3, 1, 1)).item() == pytest.approx(81.481)
    assert luma(torch.full((1, 1, 1), 255.0)).item() == pytest.approx(235)
    with pytest.raises(ValueError, match="2 channels has no luma"):
        luma(torch.zeros(2, 4, 4))
    assert psnr(torch.zeros(4, 4), torch.full((4, 4), 5.1)) == pytest.approx(20 * math.log10(50))
    assert psnr(black, black) == math.inf


def test_borders_and_both_habits() -> None:
    one, other = pictures()
    changed = other.clone()
    changed[:, :2], changed[:, :, -2:] = 0, 1
    assert compare_pictures(one, other, 2) == compare_pictures(one, changed, 2)
    assert compare_pictures(one, other, 0) != compare_pictures(one, changed, 0)
    rounded, exact = (compare_pictures(one, other, 2, rounded=habit)[0] for habit in (True, False))
    assert 0 < abs(rounded - exact) < 0.05
    with pytest.raises(ValueError, match="31 x 24 pixels and 3 channels cannot be compared with one of 30 x 24"):
        compare_pictures(one, other[..., :-1], 0)


def test_metric_is_the_mean_over_pictures_without_the_masked() -> None:
    one, other = pictures()
    third, fourth = pictures(20, 20, 1)
    metric = PictureQuality(2)
    metric.update([one, third, one], {"target": [other, fourth, one], "mask": torch.tensor([True, True, False])})
    first, second = compare_pictures(one, other, 2), compare_pictures(third, fourth, 2)
    found = metric.compute()
    assert found["psnr"] == pytest.approx((first[0] + second[0]) / 2)
    assert found["ssim"] == pytest.approx((first[1] + second[1]) / 2)
    same = PictureQuality(0)
    same.update([one], {"target": [one]})
    assert same.compute() == {"psnr": 100.0, "ssim": pytest.approx(1.0)}
    with pytest.raises(ValueError, match="nothing was evaluated"):
        PictureQuality(2).compute()


def test_loss_is_the_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.rand(2, 3, 6, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    one.requires_grad_()
    loss, parts = reconstruction_loss(one, other)
    spectra = [np.fft.rfft2(part.detach().numpy()) for part in (one, other)]
    gap = spectra[0] - spectra[1]
    expected = np.mean([np.abs(gap.real), np.abs(gap.imag)])
    assert parts["spectrum"].item() == pytest.approx(expected)
    assert loss.item() == pytest.approx((one - other).abs().mean().item() + 0.02 * expected)
    assert torch.autograd.gradcheck(lambda x: reconstruction_loss(x, other)[0], one)
    assert list(reconstruction_loss(one, other, 0.0)[1]) == ["pixels"]
    halves = reconstruction_loss(one.detach().half(), other.half())[0]
    assert halves.dtype == torch.float32
    assert halves.item() == pytest.approx(loss.item(), rel=1e-2)


def test_spectral_loss_adds_up_over_parts_of_a_batch() -> None:
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    parts = [spectral_l1(part).item() for part in x.split(2)]
    assert spectral_l1(x).item() == pytest.approx(sum(parts) / 2, rel=1e-5)
