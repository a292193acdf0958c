"""The evaluation transform agrees with torchvision's, and the augmentations move what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from tokenmix.data.prepare import preprocess, to_pil
from tokenmix.data.random_numbers import hashes, permutation, stratified, uniforms
from tokenmix.tasks.classification.augment import glyph_augment, picture_augment
from tokenmix.tasks.classification.options import Augment
from tokenmix_runtime.preprocess import resize_and_crop

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width * height).integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize("size", [(80, 60), (60, 80), (64, 64), (20, 33)])
@pytest.mark.parametrize("crop_pct", [0.9, 1.0])
def test_preprocess_is_torchvisions_resize_and_centre_crop(size, crop_pct):
    theirs = v2.Compose(
        [
            v2.Resize(int(32 / crop_pct), interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
            v2.CenterCrop(32),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    ours = preprocess(picture(*size), 32, MEAN, STD, crop_pct=crop_pct)
    torch.testing.assert_close(ours, theirs(picture(*size)))


@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([0.3, 0.875, 0.9, 1.0]),
)
@settings(max_examples=40, deadline=None)
def test_any_picture_to_any_size(width, height, out_height, out_width, crop_pct):
    image = resize_and_crop(Image.new("RGB", (width, height), "red"), (out_height, out_width), crop_pct=crop_pct)
    assert image.size == (out_width, out_height)
    assert image.getextrema() == ((255, 255), (0, 0), (0, 0))


def test_very_long_pictures_stay_cheap():
    assert resize_and_crop(Image.new("RGB", (30_000, 2)), 224).size == (224, 224)


def test_to_pil_inverts_preprocess():
    image = picture(32, 32)
    assert np.array_equal(to_pil(preprocess(image, 32, MEAN, STD, crop_pct=1.0), MEAN, STD), image)


def test_wrong_options():
    with pytest.raises(ValueError, match="crop_pct"):
        resize_and_crop(picture(8, 8), 8, crop_pct=0)
    with pytest.raises(ValueError, match="unknown interpolation 'bicubik'; did you mean 'bicubic'"):
        resize_and_crop(picture(8, 8), 4, interpolation="bicubik")
    with pytest.raises(ValueError, match="image_size"):
        resize_and_crop(picture(8, 8), (1, 2, 3))


def middle(draws: int = 5) -> np.ndarray:
    return np.full((1, draws), 0.5)


def test_glyphs_in_the_middle_of_the_range_stay():
    images = torch.randint(0, 256, (1, 3, 12, 20)).to(torch.uint8)
    torch.testing.assert_close(
        glyph_augment(images, middle(), augment="standard", flip=False), images.float(), atol=1e-2, rtol=0
    )


@pytest.mark.parametrize(("column", "axis"), [(1, 2), (2, 3)])
def test_glyphs_move_by_their_share(column, axis):
    images = torch.zeros(1, 3, 50, 100)
    images[:, :, 20:30, 40:60] = 255
    draws = middle()
    draws[0, column] = 1.0  # 6 % of the size towards the start
    moved = glyph_augment(images, draws, augment="standard", flip=False)
    shift = 3 if axis == 2 else 6
    torch.testing.assert_close(moved, torch.roll(images, -shift, axis), atol=1e-2, rtol=0)


def test_glyphs_turn_about_their_centre_without_being_bent():
    y, x = torch.meshgrid(torch.arange(41.0) - 20, torch.arange(61.0) - 30, indexing="ij")
    bar = (255 * (x.abs() < 15) * (y.abs() < 2)).expand(1, 3, -1, -1)
    draws = middle()
    draws[0, 0] = 1.0
    turned = glyph_augment(bar, draws, augment="standard", flip=False)[0, 0] / 255
    angle = 0.5 * torch.atan2(2 * (turned * x * y).sum(), (turned * (x * x - y * y)).sum())
    assert abs(abs(float(angle.rad2deg())) - 10) < 0.3
    assert abs(float(turned.sum() / (bar[0, 0] / 255).sum()) - 1) < 0.03


def test_glyphs_scale_and_mirror():
    images = torch.zeros(1, 3, 40, 40)
    images[:, :, 15:25, 10:20] = 255
    draws = middle()
    draws[0, 3] = 1.0
    scaled = glyph_augment(images, draws, augment="standard", flip=False)
    assert abs(float(scaled.sum() / images.sum()) - 1.21) < 0.03
    draws = middle()
    draws[0, 4] = 0.2
    mirrored = glyph_augment(images, draws, augment="standard", flip=True)
    torch.testing.assert_close(mirrored, images.flip(3), atol=1e-2, rtol=0)


def test_photos_are_mirrored_only_where_that_keeps_the_class():
    left = Image.fromarray(np.tile(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], (64, 1, 3)))
    for flip, expected in ((True, {True, False}), (False, {True})):
        crop = picture_augment((16, 16), Augment(name="light"), crop=True, flip=flip, mean=MEAN)
        assert crop is not None
        rising = {bool(crop(left)[0, 0].float().diff().mean() > 0) for _ in range(40)}
        assert rising == expected


def test_chance_is_pinned():
    """Splits, orders and augmentations of old runs must stay what they were."""
    assert hashes(0, 1, [2, 3]).tolist() == [5706241220826143957, 14346989830370148805]
    assert permutation(8, 0, 1).tolist() == [0, 1, 6, 4, 2, 7, 3, 5]
    draws = uniforms(3, 5, np.arange(20_000))
    assert draws.min() >= 0
    assert draws.max() < 1
    assert np.abs(draws.mean(0) - 0.5).max() < 0.01
    assert np.abs(np.corrcoef(draws.T) - np.eye(3)).max() < 0.03


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_stratified_parts(labels, seed):
    parts, small = stratified(labels, (0.15, 0.25), seed)
    assert sorted(index for part in parts for index in part) == list(range(len(labels)))
    for label in set(labels):
        counts = [sum(labels[index] == label for index in part) for part in parts]
        if label in small:
            assert counts == [0, 0, labels.count(label)]
            assert labels.count(label) < 3
        else:
            assert min(counts) >= 1
            assert abs(counts[0] - 0.15 * labels.count(label)) <= 1
            assert abs(counts[1] - 0.25 * labels.count(label)) <= 1
