"""Data sets of tar shards: which pictures they have, in which order, and how that is shared."""

from __future__ import annotations

import json
import shutil

import braceexpand
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.shard_files import pixels, write_shards
from tokenmix.data.tars import read_contents
from tokenmix.sources import load_data
from tokenmix.tasks.classification.images import ClassData
from tokenmix.tasks.classification.loader import Loader
from tokenmix.tasks.classification.shard_sets import expand
from tokenmix.tasks.classification.shards import LANES, Shard, ShardImages


def silent(line: str) -> None:
    pass


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TOKENMIX_DATA", str(folder))
    return folder


def numbers(images) -> list[int]:
    return sorted(int(name.rpartition("/")[2].partition(".")[0]) for name in images.names)


def all_numbers(data: ClassData) -> list[int]:
    return sorted(numbers(data.train) + numbers(data.val) + numbers(data.test))


def fake(sizes: list[int]) -> ShardImages:
    """Shards that nobody reads."""
    count = sum(sizes)
    shards = [Shard(str(i), f"{i}.tar") for i in range(len(sizes))]
    nothing = np.zeros(count, np.int64)
    names = list(map(str, range(count)))
    return ShardImages(shards, np.repeat(np.arange(len(sizes)), sizes), nothing, nothing, [0] * count, names)


def test_pictures_are_those_that_webdataset_wrote(tmp_path):
    folder = tmp_path / "set"
    write_shards(folder, "train", [4, 1, 3])
    write_shards(folder, "val", [2], first=8)
    write_shards(folder, "test", [3], first=10)
    lines: list[str] = []
    data = load_data(folder, log=lines.append)
    assert [numbers(images) for images in (data.train, data.val, data.test)] == [
        list(range(8)),
        [8, 9],
        [10, 11, 12],
    ]
    assert lines == ["set: 8 training, 2 validation and 3 test images of 3 classes"]
    assert data.classes == ["0", "1", "2"]
    assert (data.image_size, data.skipped) == (224, [])
    for images in (data.train, data.val, data.test):
        for index, name in enumerate(images.names):
            number = int(name[-10:-4])
            assert np.array_equal(images.load(index), pixels(number))
            assert images.load_reduced(index, 1).size == (16, 12)
            assert images.labels[index] == number % 3
    assert data.val.names == ["val-000000.tar/000008.png", "val-000000.tar/000009.png"]


def test_ways_to_name_the_same_shards(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "set"
    write_shards(folder, "train", [4, 9])
    write_shards(folder, "val", [3], first=13)
    write_shards(tmp_path / "apart" / "train", "a", [4, 9])
    write_shards(tmp_path / "apart" / "Validation", "a", [3], first=13)
    for spec in (
        "set",
        "wds:set",
        "set/train-{000000..000001}.tar::set/val-000000.tar",
        f"wds:{folder}/{{train-000001,val-000000,train-000000}}.tar",
        "apart",
        f"pipe:cat '{folder}'/train-{{000000..000001}}.tar::pipe:cat {folder}/val-000000.tar",
        f"file://{folder}/train-{{000000..000001}}.tar::{folder}/val-000000.tar",
    ):
        data = load_data(spec, log=silent)
        assert all_numbers(data) == list(range(16)), spec
        assert numbers(data.val) == [13, 14, 15]
    alone = load_data("set/train-000001.tar", log=silent)
    assert all_numbers(alone) == list(range(4, 13))
    assert alone.name == "set"
    assert load_data("apart/train/a-000001.tar", log=silent).name == "a"


def test_an_image_folder_with_its_archive_beside_it_stays_one(tmp_path):
    for label in "ab":
        (tmp_path / label).mkdir()
        for i in range(4):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / label / f"{i}.png")
    write_shards(tmp_path, "train", [9])
    assert load_data(tmp_path, log=silent).classes == ["a", "b"]
    assert load_data(f"wds:{tmp_path}", log=silent).classes == ["0", "1", "2"]


@pytest.mark.parametrize(
    "pattern", ["a", "a{0..3}b", "{08..11}", "{0..10}", "{1..010}", "{3..1}", "{x,y}-{1..2}", "{x}{}", "{a,}", "{5..5}"]
)
def test_braces_expand_as_webdatasets_do(pattern):
    assert list(expand(pattern)) == list(braceexpand.braceexpand(pattern))


def test_names_of_classes(tmp_path):
    paths = write_shards(tmp_path / "set", "train", [20])
    for text, classes in (
        ('["ant", "bee", "cat"]', ["ant", "bee", "cat"]),
        ('{"0": "ant", "2": "cat", "1": "bee", "3": "dog"}', ["ant", "bee", "cat", "dog"]),
    ):
        (tmp_path / "set" / "classes.json").write_text(text)
        assert load_data(paths[0], log=silent).classes == classes
    (tmp_path / "set" / "classes.json").write_text('["ant"]')
    with pytest.raises(ValueError, match="a label is 2, but the list beside the shards has 1 classes"):
        load_data(paths[0], log=silent)
    (tmp_path / "set" / "classes.json").write_text('{"ant": 0}')
    with pytest.raises(ValueError, match="must be a list of names"):
        load_data(paths[0], log=silent)
    (tmp_path / "set" / "classes.txt").write_text("a\nb\nc\n")  # wins
    assert load_data(paths[0], log=silent).classes == ["a", "b", "c"]


def write_words(path, labels: list[str]) -> None:
    import webdataset

    path.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(path)) as writer:
        for i, label in enumerate(labels):
            writer.write({"__key__": f"{i:06d}", "png": pixels(i), "json": {"label": label}})


def test_labels_that_are_words(tmp_path):
    write_words(tmp_path / "x.tar", ["cat10", "cat2"] * 5)
    data = load_data(tmp_path / "x.tar", log=silent)
    assert data.classes == ["cat2", "cat10"]
    for images in (data.train, data.val, data.test):
        assert images.labels == [1 - number % 2 for number in (int(name[-10:-4]) for name in images.names)]
    (tmp_path / "classes.txt").write_text("cat2 \ncat10\n\n")
    assert load_data(tmp_path / "x.tar", log=silent).classes == ["cat2", "cat10"]
    (tmp_path / "classes.txt").write_text("cat2\ncat10\ncat2\n")
    with pytest.raises(ValueError, match="names 'cat2' twice"):
        load_data(tmp_path / "x.tar", log=silent)
    (tmp_path / "classes.txt").write_text("dog\ncat10\n")
    with pytest.raises(ValueError, match="the label 'cat2' is not in the list"):
        load_data(tmp_path / "x.tar", log=silent)


def test_missing_splits_come_from_train(tmp_path):
    write_shards(tmp_path, "train", [20, 20])
    lines: list[str] = []
    data = load_data(tmp_path, seed=1, log=lines.append)
    assert [len(images) for images in (data.train, data.val, data.test)] == [28, 6, 6]
    assert all_numbers(data) == list(range(40))
    assert "split off from the training images by seed 1: 6 as val and 6 as test" in lines[0]
    assert numbers(load_data(tmp_path, seed=1, log=silent).val) == numbers(data.val)
    assert numbers(load_data(tmp_path, seed=2, log=silent).val) != numbers(data.val)


def test_unusable_samples_are_named_and_looked_for_once(tmp_path, monkeypatch):
    import webdataset

    with webdataset.TarWriter(str(tmp_path / "x.tar")) as writer:
        for i in range(12):
            writer.write({"__key__": f"{i:06d}", "png": pixels(i), "cls": i % 2})
        writer.write({"__key__": "broken", "jpg": b"no picture", "cls": 1})
        writer.write({"__key__": "unlabelled", "png": pixels(1)})
    lines: list[str] = []
    data = load_data(tmp_path / "x.tar", log=lines.append)
    assert [(skipped.name, skipped.reason) for skipped in data.skipped] == [
        ("x.tar/unlabelled", "no label: neither .cls nor .json"),
        ("x.tar/broken.jpg", "not a picture of a known format (JPEG, PNG, WebP, TIFF, ...)"),
    ]
    assert lines[0] == "skipped 2 of 14 images that cannot be read:"
    assert all_numbers(data) == list(range(12))
    monkeypatch.setattr(Shard, "read", None)  # nothing is decoded again
    assert load_data(tmp_path / "x.tar", log=silent).skipped == data.skipped
    assert len(load_data(tmp_path / "x.tar", check=False, log=silent).skipped) == 1


def test_a_changed_file_is_read_anew(tmp_path):
    write_shards(tmp_path, "train", [10])
    load_data(tmp_path, log=silent)
    write_shards(tmp_path, "train", [12])
    assert all_numbers(load_data(tmp_path, log=silent)) == list(range(12))


def test_remembered_contents_that_are_broken_are_read_anew(tmp_path, cache):
    write_shards(tmp_path, "train", [10])
    load_data(tmp_path, log=silent)
    (remembered,) = (cache / "shards" / "contents").iterdir()
    content = json.loads(remembered.read_text())
    for text in ("{", "[]", json.dumps(content | {"version": 0}), json.dumps(content | {"samples": [[1]]})):
        remembered.write_text(text)
        assert all_numbers(load_data(tmp_path, log=silent)) == list(range(10))


def test_a_damaged_shard_is_named_and_the_rest_is_used(tmp_path):
    paths = write_shards(tmp_path, "train", [10, 10])
    end = read_contents(paths[0]).samples[4].offset + 88
    paths[0].write_bytes(paths[0].read_bytes()[:end])
    lines: list[str] = []
    data = load_data(tmp_path, log=lines.append)
    assert all_numbers(data) == [*range(4), *range(10, 20)]
    expected = f"it ends after {end:,} bytes, within 000004.png: what follows 000003.png is lost"
    assert f"damaged shard {paths[0]}: {expected}" in lines
    assert [(s.name, s.reason, s.damaged) for s in data.skipped] == [
        ("train-000000.tar/000004", "no picture, only .cls", False),
        ("train-000000.tar", expected, True),
    ]


def test_shards_that_cannot_be_used(tmp_path, monkeypatch):
    def error(spec, match: str) -> None:
        with pytest.raises(ValueError, match=match):
            load_data(spec, log=silent)

    error(f"wds:{tmp_path}", "no .tar file in this folder")
    paths = write_shards(tmp_path, "train", [4])
    error(f"{tmp_path}/train-{{000000..000003}}.tar", "3 of 4 files are missing, first .*train-000001.tar")
    error(f"{paths[0]}::{paths[0]}", "stands twice")
    shutil.copy(paths[0], tmp_path / "other.tar")
    error(tmp_path, "other.tar has no split in its name")
    (tmp_path / "other.tar").unlink()
    paths[0].rename(tmp_path / "val-0.tar")
    error(tmp_path, "has shards of val, but none of train")
    (tmp_path / "val-0.tar").write_bytes(b"no tar")
    error(tmp_path / "val-0.tar", "has shards of val")
    (tmp_path / "val-0.tar").rename(tmp_path / "x.tar")
    error(tmp_path, r"no usable image in 1 shards \(first: x.tar: it is no whole tar file")
    write_words(tmp_path / "x.tar", ["a", "b", 1])
    error(tmp_path, "some labels are numbers and others words, such as 'a'")
    write_words(tmp_path / "x.tar", ["a", "a"])
    error(tmp_path, "only one class, 'a'")
    write_words(tmp_path / "x.tar", [10**9])
    error(tmp_path, "a label is 1000000000, which is no number of a class")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TOKENMIX_DATA", str(tmp_path / "file"))
    error(tmp_path, "cannot write to .*set TOKENMIX_DATA")


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=150),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 100),
)
def test_order_has_every_picture_once_and_few_shards_at_a_time(sizes, seed, epoch):
    images = fake(sizes)
    order = images.order(seed, epoch)
    assert sorted(order.tolist()) == list(range(len(images)))
    assert np.array_equal(order, images.order(seed, epoch))
    lanes = 1 << (min(LANES, len(sizes)).bit_length() - 1)
    for lane in range(lanes):  # a lane has done with a shard before it begins the next
        shards = images.shard_of[order[lane::lanes]]
        assert np.count_nonzero(np.diff(shards)) == max(0, len(set(shards.tolist())) - 1)


def test_order_changes_with_seed_and_epoch_and_mixes_shards():
    images = fake([50] * 16)
    orders = {tuple(images.order(seed, epoch).tolist()) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4
    order = images.order(0, 0)
    assert len(set(images.shard_of[order[:16]].tolist())) == 16
    assert not np.array_equal(np.sort(order[::16]), order[::16])


def test_a_subset_keeps_the_shards_of_its_rows():
    images = fake([5, 5, 5])
    part = images.subset([14, 1, 7])
    assert part.names == ["14", "1", "7"]
    assert part.shard_of.tolist() == [2, 0, 1]
    assert sorted(part.order(0, 0).tolist()) == [0, 1, 2]


@pytest.mark.parametrize("world", [2, 4, 8])
def test_processes_share_only_shards_at_the_end_of_a_lane(world):
    images = fake([40] * 128)
    order = images.order(3, 1)
    read = [set(images.shard_of[order[rank::world]].tolist()) for rank in range(world)]
    assert sum(map(len, read)) <= 128 + LANES  # alone, each would read nearly all 128
    assert max(map(len, read)) <= (128 + LANES) // world + 1


@pytest.fixture
def sharded(tmp_path) -> ShardImages:
    write_shards(tmp_path / "set", "train", [7, 12, 3, 9, 6])
    write_shards(tmp_path / "set", "val", [3], first=37)
    write_shards(tmp_path / "set", "test", [3], first=40)
    return load_data(tmp_path / "set", log=silent).train


def loader(images, **options) -> Loader:
    defaults = {"batch_size": 12, "image_size": 16, "mean": (0.5,) * 3, "std": (0.5,) * 3, "train": True, "seed": 3}
    return Loader(images, **(defaults | options))


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_ranks_together_are_one_process(sharded, world, train):
    whole = list(loader(sharded, train=train).batches(1))
    parts = [list(loader(sharded, train=train, rank=rank, world=world).batches(1)) for rank in range(world)]
    seen = []
    for step, batch in enumerate(whole):
        together = {}
        for rank in range(world):
            part = parts[rank][step]
            kept = part["mask"]
            indices = part["index"][kept].tolist()
            assert not together.keys() & set(indices)
            together |= dict(zip(indices, part["image"][kept], strict=True))
        assert together.keys() == set(batch["index"].tolist())
        for index, image in zip(batch["index"].tolist(), batch["image"], strict=True):
            assert torch.equal(together[index], image)
        seen += list(together)
    assert len(seen) == len(set(seen)) == (36 if train else 37)


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_at_any_step(sharded, workers):
    whole = list(loader(sharded).batches(2))
    again = loader(sharded, workers=workers)
    for start in range(len(whole) + 1):
        rest = list(again.batches(2, start))
        assert len(rest) == len(whole) - start
        for a, b in zip(whole[start:], rest, strict=True):
            assert all(torch.equal(a[key], b[key]) for key in a)
