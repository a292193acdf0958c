"""Augmentations beyond the named ones, batches of several sizes, and a loader per process."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from tokenmix.tasks.classification.augment import INTERPOLATIONS, picture_augment
from tokenmix.tasks.classification.images import ArrayImages, FileImages
from tokenmix.tasks.classification.loader import Loader
from tokenmix.tasks.classification.options import Augment, is_rand_augment

FULL = Augment(
    name="imagenet",
    crop_scale=(0.3, 0.9),
    crop_interpolation="random",
    rand_augment="rand-m9-mstd0.5-inc1",
    color_jitter=0.3,
    erase_rate=0.5,
)


@pytest.fixture(params=["glyphs", "photos"])
def images(request, tmp_path):
    draws = np.random.default_rng(1)
    if request.param == "glyphs":
        pixels = torch.from_numpy(draws.integers(0, 256, (13, 3, 16, 16), np.uint8))
        return ArrayImages(pixels, [0] * 13, [str(i) for i in range(13)], glyphs=True, crop_pct=1.0)
    for i in range(13):
        Image.fromarray(draws.integers(0, 256, (5, 7, 3), np.uint8)).resize((70, 50)).save(tmp_path / f"{i}.jpg")
    return FileImages(tmp_path, [0] * 13, [f"{i}.jpg" for i in range(13)])


def make(images, **options) -> Loader:
    defaults = {"batch_size": 4, "image_size": 16, "mean": (0.5,) * 3, "std": (0.2,) * 3, "train": True, "seed": 3}
    return Loader(images, **(defaults | options))


def by_index(*loaders: Loader, epoch: int = 2) -> dict[int, torch.Tensor]:
    found = {}
    for loader in loaders:
        for batch in loader.batches(epoch):
            found |= dict(zip(batch["index"].tolist(), batch["image"], strict=True))
    return found


def test_an_image_depends_on_seed_epoch_and_index_only(images):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = by_index(make(images, augment=FULL, batch_size=13))
    assert torch.equal(before, torch.get_rng_state())
    others = by_index(make(images, augment=FULL, workers=1)), by_index(make(images, augment=FULL, batch_size=1))
    for other in others:
        assert all(torch.equal(first[index], image) for index, image in other.items())
    assert not torch.equal(first[5], by_index(make(images, augment=FULL, batch_size=13), epoch=3)[5])


@pytest.mark.parametrize(
    "change", [{"rand_augment": "rand-m9-mstd0.5-inc1"}, {"color_jitter": 0.4}, {"erase_rate": 0.9}]
)
def test_each_part_changes_most_images(images, change):
    plain = by_index(make(images, augment="none", batch_size=13))
    changed = by_index(make(images, augment=Augment(name="none", **change), batch_size=13))
    assert sum(not torch.equal(plain[index], changed[index]) for index in plain) >= 7
    assert all(image.isfinite().all() for image in changed.values())


def test_rand_augment_takes_any_strength():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))
    for text in ("rand-m10-n3-p1-inc1", "rand-m0-n3-p1", "rand-m9-mstd101-inc1"):
        change = picture_augment((16, 16), Augment(name="none", rand_augment=text), crop=True, flip=False, mean=[0])
        assert change is not None
        assert all(change(picture).shape == (3, 16, 16) for _ in range(100))


def test_crops_keep_their_share_and_draw_their_interpolation():
    ramp = np.tile(np.arange(100, dtype=np.uint8)[None, :, None], (100, 1, 3))
    crop = picture_augment((10, 10), Augment(crop_scale=(0.25, 0.25), color_jitter=0), crop=True, flip=False, mean=[0])
    assert crop is not None
    for _ in range(10):
        row = crop(Image.fromarray(ramp))[0, 5].float()
        width = 10 * (row[9] - row[0]) / 9
        assert 50 * (3 / 4) ** 0.5 - 2 < width < 50 * (4 / 3) ** 0.5 + 2
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8))
    found = set()
    for kind in (*INTERPOLATIONS, *["random"] * 12):
        augment = Augment(name="none", crop_scale=(1.0, 1.0), crop_interpolation=kind)
        change = picture_augment((20, 10), augment, crop=True, flip=False, mean=[0])
        assert change is not None
        torch.manual_seed(0)
        if kind == "random":
            torch.manual_seed(len(found) + int(torch.randint(1000, ())))
        found.add(int(change(noise).sum()))
    assert len(found) >= 2


@pytest.mark.parametrize("epoch", [0, 1])
def test_several_sizes(epoch):
    pixels = torch.zeros(200, 3, 8, 8, dtype=torch.uint8)
    data = ArrayImages(pixels, [0] * 200, [str(i) for i in range(200)])
    loader = make(data, batch_size=8, image_size=16, multi_scale=(8, 12, 16, 24))
    steps = loader.steps(epoch)
    assert steps == make(data, batch_size=8, image_size=16, multi_scale=(8, 12, 16, 24)).steps(epoch)
    assert steps != loader.steps(epoch + 1)
    assert {step.shape for e in range(4) for step in loader.steps(e)} == {(8, 8), (12, 12), (16, 16), (24, 24)}
    numbers = {8: 32, 12: math.floor(8 * 16**2 / 12**2), 16: 8, 24: 8}
    assert all(step.end - step.begin == numbers[step.shape[0]] for step in steps)
    assert [step.begin for step in steps] == [0, *(step.end for step in steps[:-1])]
    assert 200 - 32 < steps[-1].end <= 200
    batches = list(loader.batches(epoch))
    assert [(len(batch["index"]), batch["image"].shape[2:]) for batch in batches] == [
        (step.end - step.begin, step.shape) for step in steps
    ]
    rest = list(loader.batches(epoch, start=2))
    assert torch.equal(rest[0]["index"], batches[2]["index"])
    assert len({int(index) for batch in batches for index in batch["index"]}) == steps[-1].end
    assert {step.shape for step in make(data, train=False, multi_scale=(8,)).steps(0)} == {(16, 16)}


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_every_batch(images, world):
    options = {"batch_size": 5, "augment": FULL}
    whole = list(make(images, **options).batches(1))
    parts = [list(make(images, rank=rank, world=world, **options).batches(1)) for rank in range(world)]
    for batch, *shares in zip(whole, *parts, strict=True):
        assert sorted(batch["index"].tolist()) == sorted(int(i) for share in shares for i in share["index"])
    together = by_index(*(make(images, rank=rank, world=world, **options) for rank in range(world)))
    alone = by_index(make(images, **options))
    assert all(torch.equal(alone[index], image) for index, image in together.items())


@pytest.mark.parametrize("world", [2, 3, 20])
def test_evaluation_is_padded_to_one_length_and_counts_every_image_once(images, world):
    parts = [list(make(images, train=False, batch_size=5, rank=rank, world=world).batches()) for rank in range(world)]
    assert len({tuple(len(batch["index"]) for batch in part) for part in parts}) == 1
    counted = [int(i) for part in parts for batch in part for i in batch["index"][batch["mask"]]]
    assert sorted(counted) == list(range(13))


def test_wrong_arguments(images):
    with pytest.raises(ValueError, match="did you mean 'imagenet'"):
        make(images, augment="imagenette")
    with pytest.raises(ValueError, match="did you mean 'bicubic'"):
        Augment(crop_interpolation="bicubik")
    with pytest.raises(ValueError, match="such as 'rand-m9"):
        Augment(rand_augment="rand-m9-x3")
    with pytest.raises(ValueError, match="crop_scale' must be"):
        Augment(crop_scale=(0.5, 1.5))
    with pytest.raises(ValueError, match="rank must be within 0 and 1"):
        make(images, rank=2, world=2)
    with pytest.raises(ValueError, match="5 processes need batches of 5 or more, not 4"):
        make(images, world=5)
    for text in ("rand", "rand-m9-mstd0.5-inc1", "rand-m9-n3-p0.7-mmax12-t3a", "rand-tweights"):
        assert is_rand_augment(text)
    for text in ("augmix-m3", "rand-", "rand-mm", "m9"):
        assert not is_rand_augment(text)
