"""The embedded pictures that need mixing: what is in them, and that adding up what single places show says nothing."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch

from tokenmix.comparison.request import base_recipe
from tokenmix.sources import load_data
from tokenmix.tasks import find_task
from tokenmix.tasks.classification import matching_digits
from tokenmix.tasks.classification.matching_digits import CLASSES, COLOURS, SIZE_PX

pytest.importorskip("skimage")
pytest.importorskip("sklearn")


def quiet(line: str) -> None:
    """No log."""


@pytest.fixture
def few(monkeypatch) -> None:
    monkeypatch.setattr(matching_digits, "COUNTS", {"train": 64, "val": 8, "test": 16})


@pytest.mark.slow
def test_mean_and_deviation_are_those_of_the_training_pictures() -> None:
    data = load_data("matching_digits", log=quiet)
    mean, std = (getattr(data.train.pixels.double() / 255, name)((0, 2, 3)) for name in ("mean", "std"))
    assert torch.tensor(data.mean).double() == pytest.approx(mean, abs=0.01)
    assert torch.tensor(data.std).double() == pytest.approx(std, abs=0.01)


def test_both_classes_are_as_frequent(few) -> None:
    data = load_data("matching_digits", log=quiet)
    assert data.classes == list(CLASSES)
    for part in (data.train, data.val, data.test):
        assert sum(part.labels) * 2 == len(part.labels)
        assert part.pixels.shape == (len(part), 3, SIZE_PX, SIZE_PX)


def test_the_pictures_are_always_the_same(few) -> None:
    data, again = (load_data("matching_digits", seed=seed, log=quiet) for seed in (0, 1))
    assert torch.equal(again.test.pixels, data.test.pixels)
    small = load_data("matching_digits", image_size=16, log=quiet)
    assert small.test.pixels.shape[-2:] == (16, 16)
    assert small.test.labels == data.test.labels


def test_no_scan_is_in_two_parts() -> None:
    from tokenmix.tasks.dense.cutouts import SHARES

    parts = [{scan.tobytes() for scan in matching_digits._scans(share)} for share in SHARES.values()]
    assert not parts[0] & parts[1]
    assert not (parts[0] | parts[1]) & parts[2]


@pytest.mark.parametrize("same", [False, True])
def test_the_class_is_whether_the_digits_have_one_colour(monkeypatch, same) -> None:
    """The colours that are painted, in order: two digits, two coins; a digit's colour says nothing of the class."""
    painted: list[int] = []
    tinted = matching_digits._tinted
    monkeypatch.setattr(matching_digits, "_tinted", lambda grey, colour: painted.append(colour) or tinted(grey, colour))
    monkeypatch.setattr(matching_digits, "COUNTS", {"train": 600})
    with contextlib.suppress(KeyError):  # there are no other parts
        matching_digits.load_matching_digits()
    rows = np.array(painted).reshape(-1, 4)[int(same) :: 2]
    assert ((rows[:, 0] == rows[:, 1]) == same).all()
    for place in range(4):
        counts = np.bincount(rows[:, place], minlength=len(COLOURS))
        assert counts == pytest.approx(len(rows) / len(COLOURS), rel=0.25)


def test_a_place_sees_less_than_the_way_to_the_other_digit() -> None:
    """Without mixing the last map sees 11 pixels around each place; the middles of two digits are farther apart."""
    recipe = base_recipe(None, [], "matching_digits", None)
    assert recipe.model.args["depths"] == [0, 2]
    model = find_task("classification").build(recipe, {"classes": CLASSES}, mixers="identity").eval()
    picture = torch.zeros(1, 3, SIZE_PX, SIZE_PX, requires_grad=True)
    features = model.forward_features(picture)
    features[0, :, 4, 4].sum().backward()
    assert picture.grad is not None
    seen = picture.grad.abs().sum((0, 1)).nonzero()
    assert int((seen.max(0).values - seen.min(0).values).max()) + 1 <= 11
    nearest = SIZE_PX - matching_digits.DIGIT_PX - 2 * (matching_digits.SHIFT_PX - 1)
    assert nearest > 11
