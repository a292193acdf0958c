"""Decoding without PyTorch against the models' own detections and torchvision's suppression."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import batched_nms

from tests.dense_cases import dense, pictures
from tokenmix.heads import HEADS, make_dense
from tokenmix_runtime import boxes


def set_threshold(model: Any, value: float) -> None:
    setattr(model, "score_thresh" if hasattr(model, "score_thresh") else "score_threshold", value)


@pytest.mark.parametrize(
    ("head", "threshold"), [("ssdlite", 0.0), ("ssdlite", 0.3), ("retinanet", 0.0), ("retinanet", 0.7)]
)
@torch.no_grad()
def test_detections_are_the_models(head: str, threshold: float) -> None:
    model = dense(head, "mixernet_pico")
    set_threshold(model, threshold)
    rules = HEADS[head].decoding(model)
    decode = getattr(boxes, head)
    for image in pictures():
        (wanted,) = model([image])
        seen = tuple(image.shape[1:])
        padded, _ = model.transform([image])
        scores, offsets = (value[0].numpy() for value in model.raw(padded.tensors))
        found = decode(scores, offsets, seen, seen, rules)
        assert 0 < len(found.boxes) <= rules["max_detections"]
        assert found.labels.tolist() == wanted["labels"].tolist()
        assert np.abs(found.boxes - wanted["boxes"].numpy()).max() < 1e-3
        assert np.abs(found.scores - wanted["scores"].numpy()).max() < 1e-6
        single = decode(scores.astype(np.float32), offsets.astype(np.float32), seen, seen, rules)
        assert single.boxes.dtype == np.float32


@pytest.mark.parametrize("head", ["ssdlite", "retinanet"])
def test_nothing_above_the_threshold(head: str) -> None:
    model = dense(head, "mixernet_pico")
    set_threshold(model, 1.0)
    rules = HEADS[head].decoding(model)
    rows = sum(len(level["anchors"]) for level in rules["levels"])  # one cell for each level
    if head == "retinanet":
        rows = sum(9 * (128 // level["stride"]) ** 2 for level in rules["levels"])
    found = getattr(boxes, head)(np.zeros((rows, 4)), np.zeros((rows, 4)), (16, 16), (16, 16), rules)
    assert [value.shape for value in found] == [(0, 4), (0,), (0,)]
    with pytest.raises(ValueError, match=f"{rows - 1} scores and {rows - 1} boxes for {rows} anchors"):
        getattr(boxes, head)(np.zeros((rows - 1, 4)), np.zeros((rows - 1, 4)), (16, 16), (16, 16), rules)


def test_huge_logits_do_not_overflow() -> None:
    model = dense("retinanet", "mixernet_pico")
    rules = HEADS["retinanet"].decoding(model)
    rows = sum(9 * (128 // level["stride"]) ** 2 for level in rules["levels"])
    scores, offsets = np.full((rows, 3), -1e4, np.float32), np.full((rows, 4), 50, np.float32)
    scores[5] = 1e4
    found = boxes.retinanet(scores, offsets, (100, 120), (128, 128), rules)
    assert found.scores[:3].tolist() == [1, 1, 1]
    assert bool((found.boxes >= 0).all() and (found.boxes <= [120, 100, 120, 100]).all())


@given(
    count=st.integers(0, 40),
    classes=st.integers(1, 4),
    threshold=st.sampled_from([0.0, 0.3, 0.5, 0.9]),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=80, deadline=None)
def test_suppression_is_torchvisions(count: int, classes: int, threshold: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 60, (count, 2))
    sides = rng.uniform(0, 40, (count, 2)) * (rng.random((count, 1)) > 0.1)  # some have no area
    array = np.concatenate([corners, corners + sides], 1)
    scores, labels = rng.permutation(count) / max(count, 1), rng.integers(0, classes, count)
    wanted = batched_nms(*(torch.from_numpy(value) for value in (array, scores, labels)), threshold)
    assert boxes.suppress(array, scores, labels, threshold).tolist() == wanted.tolist()


@pytest.mark.parametrize(("head", "kind"), [("deeplabv3", "argmax"), ("upernet", "argmax"), ("mask_rcnn", "rcnn")])
def test_other_heads_say_how_their_outputs_are_read(head: str, kind: str) -> None:
    options = {"output_stride": 32} if head == "deeplabv3" else {}
    rules = HEADS[head].decoding(make_dense(head, "mixernet_pico", 3, **options))
    assert rules["kind"] == kind
    if kind == "argmax":
        assert rules["align_corners"] is (head == "deeplabv3")
