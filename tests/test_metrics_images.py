"""Found, missed and false objects of each image, against matching by hand."""

from __future__ import annotations

import itertools

import pytest
import torch
from torchvision.ops import box_iou

from tests.test_metrics_dense import CLASSES, batch_of, scene
from tokenmix.metrics import CocoAP


def metric(scenes) -> CocoAP:
    made = CocoAP(CLASSES)
    for start, one in enumerate(scenes):
        made.update([one[0]], batch_of([one], start))
    return made


def matched(found, target, threshold: float) -> tuple[int, int, int]:
    """The surest first, each takes the object with the highest IoU that is left: hits, missed, false."""
    free = set(range(len(target["boxes"])))
    hits = false = 0
    for row in found["scores"].argsort(descending=True, stable=True).tolist():
        if found["scores"][row] < threshold:
            continue
        overlaps = {
            place: float(box_iou(found["boxes"][row][None], target["boxes"][place][None]))
            for place in free
            if target["labels"][place] == found["labels"][row]
        }
        best = max(overlaps, key=lambda place: overlaps[place], default=None)
        if best is not None and overlaps[best] >= 0.5:
            free.remove(best)
            hits += 1
        else:
            false += 1
    return hits, len(free), false


@pytest.mark.parametrize("begin", [0, 50, 300])
def test_objects_of_each_image(begin) -> None:
    scenes = [scene(seed, crowd=False) for seed in range(begin, begin + 12)]
    threshold, rows = metric(scenes).by_image()

    def f1(at: float) -> float:
        hits, missed, false = (sum(column) for column in zip(*(matched(*one, at) for one in scenes), strict=True))
        return 2 * hits / (2 * hits + missed + false)

    scores = sorted({score for found, _ in scenes for score in found["scores"].tolist()})
    assert f1(threshold) == max(f1(score) for score in scores)
    assert [row["index"] for row in rows] == list(range(12))
    for row, one in zip(rows, scenes, strict=True):
        hits, missed, false = matched(*one, threshold)
        assert (row["hits"], row["missed"], row["false"]) == (hits, missed, false)
        whole = 2 * hits + missed + false
        assert row["F1"] == pytest.approx(200 * hits / whole if whole else 100)
    assert len({row["F1"] for row in rows}) > 4


def test_nothing_found_nothing_there_and_crowds() -> None:
    scenes = [scene(1, truths=2, finds=0, crowd=False), scene(2, truths=0, finds=0), scene(3, truths=3, crowd=True)]
    threshold, rows = metric(scenes[:2]).by_image()
    assert threshold == 0.5
    assert [(row["missed"], row["F1"]) for row in rows] == [(2, 0.0), (0, 100.0)]
    (row,) = metric(scenes[2:]).by_image()[1]
    assert row["hits"] == row["missed"] == 0


def test_more_batches_change_the_answers() -> None:
    """What is remembered of an evaluation is forgotten when more is seen."""
    scenes = [scene(seed, crowd=False) for seed in range(6)]
    made = metric(scenes[:3])
    before = made.compute()
    for place, one in zip(itertools.count(3), scenes[3:], strict=False):
        made.update([one[0]], batch_of([one], place))
    assert made.compute() == metric(scenes).compute() != before
    assert torch.tensor(sorted(made.everything())).tolist() == list(range(6))
