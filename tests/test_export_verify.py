"""When a file's detections are the model's: found by place and label, and what no broken detector gets past."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.backbone_cases import images
from tests.export_cases import opened_dense
from tokenmix.export.verify import VerificationError, check
from tokenmix.heads import in_graph
from tokenmix.tasks.detection.export import compare_detections, other_objects

NAMES = ("boxes", "scores", "labels")
SIZE = (75, 93)
BORDER = [93.0, 20.0, 93.0, 60.0]  # what is left of a box outside the picture


def found(*boxes: list[float], scores: list[float] | None = None, labels: list[int] | None = None) -> list[Tensor]:
    n = len(boxes)
    return [
        torch.tensor(boxes).reshape(n, 4),
        torch.tensor(scores or [0.9 - 0.1 * i for i in range(n)]),
        torch.tensor(labels or [1] * n),
    ]


def compared(mine: Sequence[Tensor], theirs: Sequence[Tensor]) -> dict[str, float]:
    return compare_detections(NAMES, [mine], [theirs])


def judged(numbers: dict[str, float]) -> None:
    check(numbers, disagreement=other_objects(numbers))


def test_boxes_without_an_area_are_found_again() -> None:
    theirs = found([10.0, 10.0, 40.0, 50.0], BORDER, BORDER, [93.0, 75.0, 93.0, 75.0])
    order = [3, 2, 1, 0]
    result = compared([one[order] for one in theirs], theirs)
    assert (result["detection_agreement"], result["max_error"]) == (100.0, 0.0)


def test_nothing_agrees_with_nothing_only() -> None:
    assert compared(found(), found())["detection_agreement"] == 100.0
    for mine, theirs in ((found(), found(BORDER)), (found(BORDER), found())):
        assert compared(mine, theirs)["detection_agreement"] == 0.0


@pytest.mark.parametrize(
    ("mine", "agreement"),
    [
        (found(BORDER, [93.0, 25.0, 93.0, 65.0]), 50.0),  # elsewhere on the border
        (found(BORDER, [93.0, 61.0, 93.0, 75.0], labels=[1, 2]), 50.0),
        (found(BORDER, BORDER), 50.0),  # one of them twice
        (found(BORDER, [93.0, 61.0, 93.0, 75.0], [0.0, 0.0, 9.0, 9.0], [0.0, 9.0, 9.0, 9.0]), 50.0),  # too many
        (found(BORDER, [float("nan")] * 4), 50.0),
    ],
)
def test_others_are_not(mine: list[Tensor], agreement: float) -> None:
    assert compared(mine, found(BORDER, [93.0, 61.0, 93.0, 75.0]))["detection_agreement"] == agreement


def test_the_errors_are_those_of_the_partners() -> None:
    theirs = found([10.0, 10.0, 40.0, 50.0], [60.0, 10.0, 90.0, 50.0])
    mine = found([60.0, 10.0, 90.0, 50.5], [10.0, 10.0, 40.0, 50.0], scores=[0.8, 0.4])
    result = compared(mine, theirs)
    assert result["detection_agreement"] == 100.0
    assert result["max_error"] == 0.5
    assert result["relative_error"] == pytest.approx(0.5 / 0.9)


def retinanet(inside: bool) -> Any:
    """With random weights: their scores lie close together, and most of the boxes outside the picture."""
    model: Any = opened_dense("retinanet", "casvit_xs", SIZE).model
    if inside:
        model.head.regression_head.bbox_reg.weight.data *= 0.1
    return in_graph.DetectRetinaNet(model)


def _set(**values: Any) -> Callable[[Any], None]:
    return lambda detector: vars(detector.model).update(values)


def _moved(detector: Any) -> None:
    generator = detector.model.anchor_generator
    generator.cell_anchors = [cells + 4 for cells in generator.cell_anchors]


def _small(detector: Any) -> None:
    detector.model.box_coder.bbox_xform_clip = -1.0


@torch.no_grad()
@pytest.mark.parametrize("inside", [False, True])
def test_other_orders_of_the_sums_are_not_refused(inside: bool) -> None:
    detector, x = retinanet(inside), images(*SIZE, batch=1)
    nearly = x * (1 + 1e-6 * images(*SIZE, batch=1, seed=1))
    judged(compared(detector(nearly), detector(x)))


@torch.no_grad()
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(_set(nms_thresh=1.0), id="nothing suppressed"),
        pytest.param(_set(nms_thresh=0.3), id="too much suppressed"),
        pytest.param(_set(topk_candidates=20), id="few candidates of a level"),
        pytest.param(_set(detections_per_img=90), id="few detections"),
        pytest.param(_moved, id="anchors moved"),
        pytest.param(_small, id="sizes cut"),
    ],
)
def test_broken_detectors_are_refused(damage: Callable[[Any], None], inside: bool) -> None:
    detector, x = retinanet(inside), images(*SIZE, batch=1)
    expected = detector(x)
    damage(detector)
    with pytest.raises(VerificationError):
        judged(compared(detector(x), expected))


@torch.no_grad()
def test_classes_that_suppress_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    detector, x = retinanet(True), images(*SIZE, batch=1)
    expected, suppress = detector(x), in_graph._suppress
    monkeypatch.setattr(
        in_graph, "_suppress", lambda boxes, scores, labels, *rest: suppress(boxes, scores, 0 * labels, *rest)
    )
    with pytest.raises(VerificationError, match="finds other objects than the PyTorch model"):
        judged(compared(detector(x), expected))
