"""Batches of objects and labels: changed together with their pictures, and a function of (seed, epoch, index) alone."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from tests.dense_toys import HEIGHT, WIDTH, labels, rectangles, write_coco, write_plain
from tokenmix.sources import load_data
from tokenmix.tasks.dense.augment import dense_augment, dense_transform
from tokenmix.tasks.dense.loader import DenseLoader
from tokenmix.tasks.dense.options import DENSE_AUGMENTS, DenseAugment, LabelAugment, ObjectAugment

TASKS = ("instances", "segmentation")
UNIT = {"mean": (0.0,) * 3, "std": (1.0,) * 3}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dense")
    write_coco(folder / "instances", count=9)
    write_plain(folder / "segmentation", count=9)
    quiet = {"log": lambda line: None}
    return {task: load_data(folder / task, task=task, **quiet) for task in TASKS}


def loader(data, task, augment="standard", train=True, size=(32, 40), changes=None, **options):
    part = data[task].train if train else data[task].val
    options = {"batch_size": 4, "seed": 5, **UNIT} | options
    return DenseLoader(part, image_size=size, train=train, augment=dense_augment(augment, task, changes), **options)


def same(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return type(one) is type(other) is torch.Tensor and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return len(one) == len(other) and all(map(same, one, other))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("train", [True, False])
def test_workers_processes_and_restarts_change_nothing(data, task, train) -> None:
    whole = list(loader(data, task, train=train).batches(1))
    assert len(whole) == (2 if train else 3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    ahead = loader(data, task, train=train, workers=2)
    assert same(whole, list(ahead.batches(1)))
    assert same(whole[1:], list(ahead.batches(1, 1)))
    assert same(whole[1:], list(loader(data, task, train=train).batches(1, 1)))
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002
    assert before[2] == random.getstate()
    parts = [list(loader(data, task, train=train, rank=rank, world=2).batches(1)) for rank in range(2)]
    for batch, *halves in zip(whole, *parts, strict=True):
        rows = [
            {name: values[row] for name, values in half.items()}
            for row in range(len(halves[0]["image"]))
            for half in halves
        ]
        counted = [row for row in rows if row["mask"]]
        assert same(
            counted, [{name: values[row] for name, values in batch.items()} for row in range(len(batch["mask"]))]
        )
        assert train == (len(counted) == len(rows)) or len(rows) % 2 == 0
    if train:
        assert not same(whole, list(loader(data, task).batches(2)))
        assert not same(whole, list(loader(data, task, seed=6).batches(1)))
    else:
        assert same(whole, list(loader(data, task, train=False).batches(7)))
        assert [int(part[-1]["mask"].sum()) for part in parts] == [1, 0]


@pytest.mark.parametrize("augment", DENSE_AUGMENTS)
def test_objects_move_with_their_pictures(data, augment) -> None:
    """Every object is bright in its colour, so that its box and mask can be read off the picture."""
    changes = {"photometric": False}
    found = 0
    for epoch in range(6):
        for batch in loader(data, "instances", augment, changes=changes, size=(64, 96)).batches(epoch):
            for image, target in zip(batch["image"], batch["target"], strict=True):
                count = len(target["boxes"])
                assert target["labels"].shape == target["area"].shape == target["iscrowd"].shape == (count,)
                assert target["masks"].shape == (count, *image.shape[1:])
                assert (target["boxes"][:, 2:] > target["boxes"][:, :2]).all()
                limits = torch.tensor([image.shape[2], image.shape[1]] * 2)
                assert ((target["boxes"] >= 0) & (target["boxes"] <= limits)).all()
                for box, label, mask in zip(target["boxes"], target["labels"], target["masks"], strict=True):
                    left, top, right, bottom = (round(value) for value in box.tolist())
                    if right - left < 12 or bottom - top < 12:
                        continue
                    found += 1
                    assert image[label - 1, top + 3 : bottom - 3, left + 3 : right - 3].mean() > 0.8
                    rows, columns = mask.nonzero(as_tuple=True)
                    edges = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
                    assert (edges - box).abs().max() < 2.5
    assert found > 10


@pytest.mark.parametrize("augment", ["light", "standard"])
def test_labels_move_with_their_pictures(data, augment) -> None:
    seen = 0
    for epoch in range(4):
        for batch in loader(data, "segmentation", augment, changes={"photometric": False}).batches(epoch):
            assert batch["image"].shape == (4, 3, 32, 40)
            assert batch["label"].shape == (4, 32, 40)
            assert batch["label"].dtype == torch.int64
            assert set(batch["label"].unique().tolist()) <= {0, 1, 2, 255}
            for label in (1, 2):
                pixels = batch["image"][:, label - 1][batch["label"] == label]
                seen += len(pixels)
                assert pixels.mean() > 0.7
    assert seen > 500


def test_evaluation_leaves_answers_alone(data) -> None:
    for batch in loader(data, "instances", train=False, size=(16, 48)).batches():
        for image, target, size, index in zip(
            batch["image"], batch["target"], batch["size"], batch["index"], strict=True
        ):
            assert image.shape == (3, 16, 24)
            assert size.tolist() == [HEIGHT, WIDTH]
            assert target["boxes"].tolist() == [list(map(float, box)) for box in rectangles(100 + int(index))]
            assert target["image_id"] == index
    (batch, *_) = loader(data, "segmentation", train=False, size=(64, 72)).batches()
    assert batch["image"][0].shape == (3, 48, 72)
    assert np.array_equal(batch["label"][0].numpy(), labels(100))
    (batch, *_) = loader(data, "instances", "ssd", train=False, size=(20, 20)).batches()
    assert batch["image"][0].shape == (3, 20, 20)


def test_normalisation(data) -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    (plain, *_) = loader(data, "instances", train=False).batches()
    (batch, *_) = loader(data, "instances", train=False, mean=mean, std=std).batches()
    expected = (plain["image"][0] - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(batch["image"][0], expected)


def test_crowds_are_not_learned(tmp_path) -> None:
    crowd = {"id": 99, "image_id": 500, "category_id": 7, "bbox": [1, 1, 5, 5], "iscrowd": 1}
    found = load_data(write_coco(tmp_path, more={"annotations": [crowd]}), task="detection", log=lambda line: None)
    options = {"batch_size": 6, "image_size": 32, "augment": DenseAugment(), **UNIT}
    (learned,) = DenseLoader(found.train, train=True, **options).batches()
    (judged,) = DenseLoader(found.train, train=False, **options).batches()
    assert sum(len(target["boxes"]) for target in learned["target"]) == 12
    assert [target["iscrowd"].sum().item() for target in judged["target"]] == [1, 0, 0, 0, 0, 0]


def shares(batches) -> list[float]:
    found = []
    for batch in batches:
        for label in batch["label"]:
            counts = torch.bincount(label[label < 255], minlength=3)
            found.append(float(counts.max() / counts.sum()))
    return found


def test_no_class_fills_a_crop(data) -> None:
    """Half of a toy picture is sometimes background but for a little, and sometimes not."""
    part = {"short_sides": (32,), "scale": (1.0, 1.0), "photometric": False}
    share_of = {}
    for ratio in (1.0, 0.75):
        drawn = loader(data, "segmentation", changes={**part, "cat_max_ratio": ratio}, size=(16, 48))
        share_of[ratio] = np.array(shares(batch for epoch in range(5) for batch in drawn.batches(epoch)))
    assert (share_of[0.75] >= 0.75).mean() < (share_of[1.0] >= 0.75).mean() / 2


def test_large_scale_jitter_and_multi_scale_have_their_sizes(data) -> None:
    sides = set()
    for epoch in range(4):
        for batch in loader(data, "instances", "multiscale", size=(800, 1333)).batches(epoch):
            sides |= {min(image.shape[1:]) for image in batch["image"]}
            assert all(image.shape[2] == round(image.shape[1] * WIDTH / HEIGHT) for image in batch["image"])
    assert sides <= set(range(480, 801, 32))
    assert len(sides) > 5
    for batch in loader(data, "instances", "standard", size=(24, 40)).batches():
        assert all(image.shape == (3, 24, 40) for image in batch["image"])


def test_mistakes() -> None:
    with pytest.raises(ValueError, match=r"'augment\.name': 'ssd'"):
        dense_augment("ssd", "segmentation")
    with pytest.raises(ValueError, match=r"unknown part of the augmentation 'flips'.*flip"):
        dense_augment("light", "detection", {"flips": 1})
    for name, value in {"zoom_out": 0.5, "scale": (2, 1), "flip": 2, "cat_max_ratio": 0, "short_sides": (0,)}.items():
        with pytest.raises(ValueError, match=f"'augment.{name}' must be"):
            dense_augment("light", "detection", {name: value})
    with pytest.raises(ValueError, match=r"'augment\.scale' must be"):
        dense_augment("light", "detection", {"scale": 3})


@pytest.mark.parametrize(
    ("kind", "name", "part", "changes"),
    [
        (LabelAugment, "light", "iou_crop", {"iou_crop": True}),
        (LabelAugment, "light", "crop", {"crop": False}),
        (LabelAugment, "none", "cat_max_ratio", {"stretch": True, "cat_max_ratio": 0.5}),
        (LabelAugment, "none", "scale", {"stretch": True, "scale": (0.5, 2)}),
        (ObjectAugment, "standard", "cat_max_ratio", {"cat_max_ratio": 0.5}),
        (ObjectAugment, "light", "crop_size", {"crop_size": (8, 8)}),
        (ObjectAugment, "ssd", "short_sides", {"short_sides": (8,)}),
    ],
)
def test_parts_that_would_change_nothing_are_refused(kind, name, part, changes) -> None:
    with pytest.raises(ValueError, match=rf"'augment\.{part}'.*leave it out"):
        kind(name=name, **changes)
    assert kind(name=name, **(changes | {part: None}))


def test_crops_of_another_size_than_the_pictures(data) -> None:
    """The shorter side is scaled to that of the size, not to that of the crop."""
    changes = {"crop_size": [24, 20], "scale": [1.0, 1.0]}
    whole = loader(data, "segmentation", "light", size=(2 * HEIGHT, 4 * WIDTH), changes=changes)
    for batch in whole.batches(0):
        assert batch["image"].shape[-2:] == batch["label"].shape[-2:] == (24, 20)
    enlarged = torch.cat([batch["label"].flatten() for epoch in range(8) for batch in whole.batches(epoch)])
    plain = loader(data, "segmentation", "light", size=(HEIGHT, 4 * WIDTH), changes=changes)
    original = torch.cat([batch["label"].flatten() for epoch in range(8) for batch in plain.batches(epoch)])
    for pixels in (enlarged, original):  # no pixel is outside of the picture, and the classes keep their shares
        assert not (pixels == 255).any()
    shares = [torch.bincount(pixels, minlength=3) / len(pixels) for pixels in (enlarged, original)]
    torch.testing.assert_close(*shares, rtol=0, atol=0.15)
    (shape,) = {tuple(image.shape[-2:]) for batch in loader(
        data, "segmentation", train=False, size=(2 * HEIGHT, 4 * WIDTH), changes=changes
    ).batches(0) for image in batch["image"]}  # fmt: skip
    assert shape == (2 * HEIGHT, 2 * WIDTH)


def test_detrs_crops_keep_objects_and_pictures_together() -> None:
    """Half of the pictures show a part: from 384 pixels on, of one that had a shorter side of 400 to 600."""
    torch.manual_seed(0)
    change = dense_transform(dense_augment("detr", "instances"), (800, 1333), boxes=True, fill=(0, 0, 0))
    shares = []
    for _ in range(24):
        image, masks = torch.zeros(3, 300, 500, dtype=torch.uint8), torch.zeros(1, 300, 500, dtype=torch.uint8)
        image[:, 90:210, 150:350] = masks[:, 90:210, 150:350] = 255
        found = change(
            {
                "image": tv_tensors.Image(image),
                "boxes": tv_tensors.BoundingBoxes([[150, 90, 350, 210]], format="XYXY", canvas_size=(300, 500)),
                "labels": torch.ones(1, dtype=torch.int64),
                "masks": tv_tensors.Mask(masks),
            }
        )
        height, width = found["image"].shape[-2:]
        assert min(height, width) in range(480, 801, 32) or max(height, width) == 1333
        shares.append(width / height)
        for box, mask in zip(found["boxes"].tolist(), found["masks"], strict=True):
            assert ((mask > 127) == (found["image"][0] > 127)).float().mean() > 0.99
            rows, columns = (mask > 127).any(1).nonzero(), (mask > 127).any(0).nonzero()
            drawn = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert box == pytest.approx([float(value) for value in drawn], abs=3)
    whole = sum(abs(share - 5 / 3) < 0.02 for share in shares)
    assert 6 <= whole <= 18


@pytest.mark.parametrize("wrong", [{"crop_size": [0, 5]}, {"crop_size": [5]}])
def test_wrong_crop_sizes_are_named(wrong) -> None:
    with pytest.raises(ValueError, match="crop_size"):
        dense_augment("light", "segmentation", wrong)
