"""Batches are functions of (seed, epoch, index): for any number of workers, from any start, without side effects."""

from __future__ import annotations

import multiprocessing
import random

import numpy as np
import pytest
import torch
from PIL import Image

from tokenmix.data.loader import BatchLoader, named_deaths
from tokenmix.data.prepare import preprocess, preprocess_file
from tokenmix.tasks.classification.images import ArrayImages, FileImages, ImageSet
from tokenmix.tasks.classification.loader import Loader
from tokenmix.tasks.points.cloud import CloudError
from tokenmix_runtime.images import ImageError, open_image

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def glyphs(count: int = 21, size: int = 16) -> ArrayImages:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, size, size), np.uint8))
    names = [f"g/{i}" for i in range(count)]
    return ArrayImages(pixels, [i % 3 for i in range(count)], names, flip=False, glyphs=True, crop_pct=1.0)


@pytest.fixture
def photos(tmp_path) -> FileImages:
    draws = np.random.default_rng(1)
    for i in range(13):
        pixels = draws.integers(0, 256, (5, 7, 3), np.uint8)
        Image.fromarray(pixels).resize((70, 50)).save(tmp_path / f"{i}.jpg")
    return FileImages(tmp_path, [i % 2 for i in range(13)], [f"{i}.jpg" for i in range(13)])


def make(images: ImageSet, **options) -> Loader:
    defaults = {"batch_size": 4, "image_size": 16, "mean": MEAN, "std": STD, "train": True, "seed": 3}
    return Loader(images, **(defaults | options))


def same(a: list, b: list) -> bool:
    return len(a) == len(b) and all(
        x.keys() == y.keys() and all(torch.equal(x[key], y[key]) for key in x) for x, y in zip(a, b, strict=True)
    )


def test_a_batch():
    loader = make(glyphs())
    batches = list(loader.batches(0))
    assert len(batches) == len(loader) == 5  # the last image of 21 is dropped
    batch = batches[0]
    assert {key: (value.dtype, tuple(value.shape)) for key, value in batch.items()} == {
        "image": (torch.float32, (4, 3, 16, 16)),
        "label": (torch.int64, (4,)),
        "mask": (torch.bool, (4,)),
        "index": (torch.int64, (4,)),
    }
    assert batch["mask"].all()
    seen = torch.cat([batch["index"] for batch in batches]).tolist()
    assert len(set(seen)) == 20
    assert torch.cat([batch["label"] for batch in batches]).tolist() == [i % 3 for i in seen]


def test_order_depends_on_seed_and_epoch_only():
    def order(seed: int, epoch: int) -> list[int]:
        return torch.cat([batch["index"] for batch in make(glyphs(), seed=seed).batches(epoch)]).tolist()

    assert order(3, 1) == order(3, 1)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1, -5, 2**40) for epoch in (0, 1)}) == 8


def test_evaluation_keeps_order_and_every_image():
    images = glyphs()
    loader = make(images, train=False)
    batches = list(loader.batches(0))
    assert [len(batch["label"]) for batch in batches] == [4] * 5 + [1]
    assert len(loader) == 6
    assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(21))
    expected = (images.pixels / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    torch.testing.assert_close(torch.cat([batch["image"] for batch in batches]), expected)
    assert same(batches, list(loader.batches(7)))


def test_small_set_gives_one_smaller_training_batch():
    loader = make(glyphs(3))
    assert [len(batch["label"]) for batch in loader.batches(0)] == [3]


def test_evaluation_is_what_prediction_sees(tmp_path):
    pixels = np.random.default_rng(2).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).resize((640, 480), Image.Resampling.BICUBIC).save(tmp_path / "x.jpg", quality=95)
    batch = next(make(FileImages(tmp_path, [0], ["x.jpg"]), train=False, image_size=32).batches())
    file = preprocess_file(tmp_path / "x.jpg", 32, MEAN, STD)
    assert torch.equal(batch["image"][0], file)
    whole = preprocess(open_image(tmp_path / "x.jpg"), 32, MEAN, STD)
    assert not torch.equal(file, whole)  # decoded at a quarter of the size
    assert (file - whole).abs().mean() * 255 * 0.3 < 1


@pytest.mark.parametrize("augment", ["none", "light", "standard"])
@pytest.mark.parametrize("kind", ["glyphs", "photos"])
def test_an_image_does_not_depend_on_its_batch(kind, augment, photos):
    images = glyphs(13) if kind == "glyphs" else photos
    by_size = []
    for size in (1, 5, 13):
        found = {}
        for batch in make(images, batch_size=size, augment=augment).batches(2):
            found |= dict(zip(batch["index"].tolist(), batch["image"], strict=True))
        by_size.append(found)
    for found in by_size[1:]:
        assert all(torch.equal(image, by_size[0][index]) for index, image in found.items())


@pytest.mark.parametrize("kind", ["glyphs", "photos"])
def test_augmentation_changes_with_seed_and_epoch(kind, photos):
    images = glyphs(13) if kind == "glyphs" else photos

    def first(seed: int, epoch: int) -> torch.Tensor:
        batches = make(images, seed=seed, batch_size=1).batches(epoch)
        return next(batch["image"] for batch in batches if batch["index"] == 5)

    draws = [first(3, 0), first(3, 1), first(4, 0)]
    assert all(not torch.equal(a, b) for i, a in enumerate(draws) for b in draws[:i])
    assert torch.equal(first(3, 1), draws[1])


def test_resume_in_the_middle_loads_only_the_rest(photos):
    loaded = []

    class Spy(FileImages):
        def load_reduced(self, index, at_least):
            loaded.append(index)
            return super().load_reduced(index, at_least)

    spy = Spy(photos.root, photos.labels, photos.files)
    whole = list(make(photos).batches(1))
    rest = list(make(spy).batches(1, start=2))
    assert same(whole[2:], rest)
    assert loaded == rest[0]["index"].tolist()
    assert list(make(photos).batches(1, start=3)) == []
    with pytest.raises(ValueError, match="start must be within 0 and 3"):
        make(photos).batches(1, start=4)


@pytest.mark.parametrize("kind", ["glyphs", "photos"])
def test_workers_make_the_same_batches(kind, photos):
    images = glyphs(13) if kind == "glyphs" else photos
    alone, helped = make(images), make(images, workers=2)
    for epoch, start in ((0, 0), (1, 0), (1, 2)):
        assert same(list(alone.batches(epoch, start)), list(helped.batches(epoch, start)))
    next(helped.batches(2))  # given up after one batch
    assert same(list(alone.batches(3)), list(helped.batches(3)))
    older = helped.batches(4)
    next(older)
    next(helped.batches(5))
    with pytest.raises(RuntimeError, match="only one iteration"):
        next(older)


class Noisy(ImageSet):
    """Draws from all three global generators while it loads."""

    def load(self, index):
        levels = torch.rand(()).item(), float(np.random.rand()), random.random()  # noqa: NPY002
        return Image.new("RGB", (16, 16), tuple(int(255 * level) for level in levels))


@pytest.mark.parametrize("train", [True, False])
def test_global_generators_are_seeded_per_image_and_put_back(train):
    images = Noisy([0] * 6, [str(i) for i in range(6)])
    runs = []
    for disturbance in (1, 2):
        torch.manual_seed(disturbance)
        np.random.seed(disturbance)  # noqa: NPY002
        random.seed(disturbance)
        before = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
        runs.append(list(make(images, batch_size=2, train=train).batches(0)))
        assert torch.equal(before[0], torch.get_rng_state())
        after = np.random.get_state()  # noqa: NPY002
        assert all(np.array_equal(a, b) for a, b in zip(before[1], after, strict=True))
        assert before[2] == random.getstate()
    assert same(*runs)
    assert same(runs[0], list(make(images, batch_size=2, train=train, workers=1).batches(0)))
    pixels = torch.cat([batch["image"] for batch in runs[0]]).mean((2, 3))
    assert len(pixels.unique(dim=0)) == 6


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_is_gone_is_named_in_one_line(workers, photos):
    (photos.root / "5.jpg").unlink()
    with pytest.raises(ImageError, match=r"^cannot read \S+5\.jpg: No such file or directory$"):
        list(make(photos, train=False, workers=workers).batches(0))


class Unsendable(ValueError):
    """Cannot be made from its message alone, as pickle would."""

    def __init__(self, name: str, number: int) -> None:
        super().__init__(f"{name}: {number} is odd")


class Failing(torch.utils.data.Dataset):
    """Fails as tasks do whose samples are no pictures."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getitem__(self, key):
        raise self.error


def raised(loader: BatchLoader) -> Exception:
    """What comes of loading; its worker has ended then."""
    try:
        list(loader.batches(0))
    except Exception as error:
        loader._ahead._iterator._shutdown_workers()
        return error.with_traceback(None)
    raise AssertionError


@pytest.mark.parametrize(
    "error", [CloudError("room_1.txt has no points"), Unsendable("a.csv", 7), OSError(5, "Input/output error", "b.laz")]
)
def test_what_a_task_says_of_a_sample_comes_as_it_was_said(error):
    told = raised(BatchLoader(glyphs(), Failing(error), batch_size=4, train=False, workers=1))
    assert str(told) == str(error)
    assert isinstance(told, ValueError | OSError)


def test_a_mistake_of_the_program_keeps_its_traceback():
    told = raised(BatchLoader(glyphs(), Failing(TypeError("a mistake")), batch_size=4, train=False, workers=1))
    assert isinstance(told, TypeError)
    assert "Traceback" in str(told)


def test_a_dead_worker_is_named(photos):
    batches = make(photos, train=False, workers=1, batch_size=1).batches(0)
    next(batches)

    def kill_and_go_on() -> None:
        with named_deaths():  # torch's signal may come before the next batch is asked for
            for worker in multiprocessing.active_children():
                worker.kill()
            list(batches)

    with pytest.raises(ChildProcessError, match="a process that loads images has died"):
        kill_and_go_on()


def test_workers_leave_the_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(make(glyphs(), workers=1).batches(0))
    assert torch.equal(before, torch.get_rng_state())


def test_wrong_arguments():
    with pytest.raises(ValueError, match="'standart'; did you mean 'standard'"):
        make(glyphs(), augment="standart")
    with pytest.raises(ValueError, match="empty"):
        make(ImageSet([], []))
    with pytest.raises(ValueError, match="batch_size must be"):
        make(glyphs(), batch_size=0)
    with pytest.raises(ValueError, match="image_size must be"):
        make(glyphs(), image_size=0)
    with pytest.raises(ValueError, match="2 labels for 1 names"):
        ImageSet([0, 1], ["a"])
    with pytest.raises(ValueError, match="uint8, not"):
        ArrayImages(torch.zeros(1, 3, 4, 4), [0], ["a"])


def test_sizes_other_than_the_stored_one():
    batch = next(make(glyphs(), image_size=(24, 20)).batches(0))
    assert batch["image"].shape == (4, 3, 24, 20)
