"""Resizing and pasting without PyTorch against PyTorch and torchvision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torchvision.models.detection.roi_heads import paste_masks_in_image

from tokenmix_runtime import maps

side = st.integers(1, 23)


@given(old=st.tuples(side, side), new=st.tuples(side, side), align_corners=st.booleans(), seed=st.integers(0, 999))
@settings(max_examples=80, deadline=None)
def test_bilinear_is_pytorchs(old, new, align_corners: bool, seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal((3, *old))
    wanted = F.interpolate(torch.from_numpy(values)[None], new, mode="bilinear", align_corners=align_corners)[0].numpy()
    assert np.abs(maps.bilinear(values, new, align_corners=align_corners) - wanted).max() < 1e-12
    rows = slice(new[0] // 3, new[0] // 3 + 2)
    part = maps.bilinear(values, new, align_corners=align_corners, rows=rows)
    assert np.abs(part - wanted[:, rows]).max() < 1e-12


@pytest.mark.parametrize("strip", [1, 2**24])
def test_classes_are_those_of_the_enlarged_logits(monkeypatch, strip: int) -> None:
    monkeypatch.setattr(maps, "_STRIP", strip)
    logits = np.random.default_rng(0).standard_normal((5, 7, 9))
    wanted = F.interpolate(torch.from_numpy(logits)[None], (31, 22), mode="bilinear")[0].argmax(0).numpy()
    found = maps.classes_of(logits, (31, 22))
    assert found.dtype == np.uint8
    assert np.array_equal(found, wanted)
    assert maps.classes_of(np.zeros((300, 2, 2)), (3, 3)).dtype == np.int32


@given(old=st.tuples(side, side), new=st.tuples(side, side))
@example(old=(2, 14), new=(41, 23))  # centres that lie on the border of two pixels
@settings(max_examples=40, deadline=None)
def test_nearest_is_pytorchs(old, new) -> None:
    classes = np.arange(old[0] * old[1]).reshape(old)
    wanted = F.interpolate(torch.from_numpy(classes).float()[None, None], new, mode="nearest-exact")[0, 0].numpy()
    assert np.array_equal(maps.nearest(classes, new), wanted)


@given(
    box=st.tuples(*[st.floats(0, 1, width=32)] * 4),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    seed=st.integers(0, 999),
)
@settings(max_examples=80, deadline=None)
def test_masks_are_pasted_as_torchvision_does(box, size, seed: int) -> None:
    height, width = size
    left, right = sorted((box[0] * width, box[2] * width))
    top, bottom = sorted((box[1] * height, box[3] * height))
    corners = np.array([left, top, right, bottom], np.float32)
    patch = np.random.default_rng(seed).random((28, 28), dtype=np.float32)
    wanted = paste_masks_in_image(torch.from_numpy(patch)[None, None], torch.from_numpy(corners)[None], size)[0, 0]
    near = (wanted - 0.5).abs() < 1e-5  # where rounding decides
    found = torch.from_numpy(maps.paste(patch, corners, size))
    assert torch.equal(found | near, (wanted > 0.5) | near)


def test_a_mask_outside_of_the_picture_is_empty() -> None:
    far = np.array([50, 50, 60, 60], np.float32)
    assert not maps.paste(np.ones((28, 28), np.float32), far, (20, 20)).any()
