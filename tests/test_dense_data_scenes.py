"""The embedded scenes: exact, always the same, and with nothing of the training set in the others."""

from __future__ import annotations

import sys
from itertools import pairwise

import numpy as np
import pytest
import torch

from tokenmix.sources import load_data
from tokenmix.tasks.dense import scenes as scenes_module
from tokenmix.tasks.dense.cutouts import CLASSES, SHARES, backgrounds, cutouts

SMALL = {"train": 24, "val": 4, "test": 4}


@pytest.fixture(scope="module")
def small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes_module, "COUNTS", SMALL)
        lines: list[str] = []
        tasks = ("detection", "instances", "segmentation")
        yield {task: load_data("scenes", task=task, log=lines.append) for task in tasks} | {"lines": lines}


def test_the_same_pictures_for_every_task(small) -> None:
    detection, instances, labels = (small[task] for task in ("detection", "instances", "segmentation"))
    assert detection.classes == instances.classes == list(CLASSES)
    assert labels.classes == ["background", *CLASSES]
    assert "scenes: 24 training, 4 validation and 4 test images of 5 classes" in small["lines"]
    assert len({detection.train.load(index).tobytes() for index in range(24)}) == 24
    for split in ("train", "val", "test"):
        boxes, masks, pixels = (getattr(small[task], split) for task in ("detection", "instances", "segmentation"))
        for index in range(len(boxes)):
            assert boxes.load(index).tobytes() == masks.load(index).tobytes() == pixels.load(index).tobytes()
            target, exact, label = boxes.target(index), masks.target(index), pixels.target(index)["label"]
            assert "masks" not in target
            assert torch.equal(target["boxes"], exact["boxes"])
            drawn = torch.zeros_like(label)
            for mask, box, number, area in zip(*(exact[k] for k in ("masks", "boxes", "labels", "area")), strict=True):
                rows, columns = mask.nonzero(as_tuple=True)
                assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert area == mask.sum() > 60
                assert not drawn[mask > 0].any()  # objects hide what is under them
                drawn[mask > 0] = number
            assert torch.equal(drawn, label)
            assert label.shape == (scenes_module.HEIGHT, scenes_module.WIDTH)


def test_scenes_have_every_class_and_are_always_the_same(small) -> None:
    seen = torch.cat([small["detection"].train.target(index)["labels"] for index in range(24)])
    assert set(seen.tolist()) == {1, 2, 3, 4, 5}
    again = scenes_module.load_scenes("detection")
    for one, other in zip(again.val.scenes, small["detection"].val.scenes, strict=True):
        assert np.array_equal(one.pixels, other.pixels)
        assert np.array_equal(one.owner, other.owner)


def test_splits_share_no_coin_face_digit_or_background() -> None:
    for number in range(3):
        pieces = [{piece.tobytes() for piece in cutouts(split)[number]} for split in SHARES]
        assert all(pieces)
        assert not pieces[0] & pieces[1]
        assert not pieces[0] & pieces[2]
        assert not pieces[1] & pieces[2]
    ends = list(SHARES.values())
    assert all(one[1] == other[0] for one, other in pairwise(ends))
    assert all(photo.width >= 70 for split in SHARES for photo in backgrounds(split))


@pytest.mark.parametrize(("package", "words"), [("skimage", "scikit-image"), ("sklearn", "scikit-learn")])
def test_missing_packages_are_named(monkeypatch, package, words) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"{words}.*pip install 'tokenmix\[demo\]'"):
        load_data("scenes", task="detection", log=lambda line: None)
