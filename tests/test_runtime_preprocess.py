"""The run-time's pictures are those that training evaluates, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional as VF

from tests.dense_toys import write_coco
from tokenmix.data.prepare import preprocess
from tokenmix.tasks.dense.augment import RandomScale, dense_augment
from tokenmix.tasks.dense.loader import DenseLoader
from tokenmix.tasks.dense.sources import load_dense
from tokenmix_runtime.preprocess import fit, height_width, normalised, resize_and_crop

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    crop_mode=st.sampled_from(["center", "squash"]),
)
@settings(max_examples=40, deadline=None)
def test_a_classifiers_input_is_the_same(width: int, height: int, size, crop_mode: str) -> None:
    image, kind = noise(width, height), {"crop_pct": 0.9, "crop_mode": crop_mode}
    wanted = preprocess(image, size, MEAN, STD, **kind).numpy()
    found = normalised(resize_and_crop(image, size, **kind), MEAN, STD)
    assert found.dtype == np.float32
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize(("augment", "size"), [("none", (20, 40)), ("none", (64, 64)), ("ssd", (24, 40))])
def test_a_dense_models_input_is_the_same(tmp_path, augment: str, size: tuple[int, int]) -> None:
    data = load_dense(write_coco(tmp_path), "detection")
    options = {"batch_size": 3, "image_size": size, "mean": MEAN, "std": STD, "train": False}
    for batch in DenseLoader(data.val, **options, augment=dense_augment(augment, "detection")).batches():
        for index, wanted in zip(batch["index"].tolist(), batch["image"], strict=True):
            image = data.val.load(index)
            if augment == "ssd":
                seen = resize_and_crop(image, size, crop_pct=1.0, interpolation="bilinear", crop_mode="squash")
            else:
                seen = fit(image, size)
            assert np.array_equal(normalised(seen, MEAN, STD), wanted.numpy())


@given(width=st.integers(1, 90), height=st.integers(1, 90), size=st.tuples(st.integers(1, 60), st.integers(1, 60)))
@example(width=60, height=60, size=(54, 54))
@settings(max_examples=40, deadline=None)
def test_the_scaling_of_training_differs_by_a_grey_level_at_most(width: int, height: int, size) -> None:
    image = noise(width, height)
    sides = RandomScale(size).make_params([VF.to_image(image)])["size"]
    theirs = VF.resize(VF.to_image(image), sides, antialias=True)
    ours = VF.pil_to_tensor(fit(image, size))
    assert ours.shape == theirs.shape
    difference = (ours.int() - theirs.int()).abs()
    # Both round after each axis, from weights of 15 and of 22 bits: one value of millions is two levels apart.
    assert int(difference.max()) <= 2
    assert int((difference > 1).sum()) <= 1


@given(width=st.integers(1, 90), height=st.integers(1, 90))
@settings(max_examples=40, deadline=None)
def test_within_a_fixed_size_every_shape_fits(width: int, height: int) -> None:
    found = fit(noise(width, height), (20, 50), within=(20, 50))
    assert found.height <= 20
    assert found.width <= 50
    assert found.height == 20 or found.width == 50


def test_a_size_may_be_numpys() -> None:
    assert height_width(np.int64(8)) == height_width(np.array([8, 8])) == (8, 8)
