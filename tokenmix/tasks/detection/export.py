"""Detectors as files: raw outputs, or what they find."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from tokenmix.heads.in_graph import Padded
from tokenmix.tasks.dense.export import DenseForm
from tokenmix.tasks.file_form import Outputs, differences

AGREEMENT = 95.0  # percent of the detections that file and model must share
SAME_BOX = 0.9  # overlap (intersection over union) of a detection with itself
FOUND = ("boxes", "scores", "labels")


class DetectorForm(DenseForm):
    """``(N, C, H, W)`` -> scores and boxes of all anchors, or with ``"nms"`` inside what is found on one picture.

    Raw outputs are the default: decoding and suppression in the graph hold a file to one picture of one size at a time,
    stay in float where the rest is int8, and only ONNX Runtime and OpenVINO have the operator.
    """

    @property
    def read_inside(self) -> bool:
        return "nms" in self.inside

    @property
    def outputs(self) -> tuple[str, ...]:
        return FOUND if self.read_inside else self.head.outputs

    @property
    def single(self) -> str:
        return "with box decoding inside" if self.read_inside else ""

    def layers(self, fixed_shapes: bool) -> dict[str, nn.Module]:
        if not self.read_inside:
            multiple: Any = self.loaded.model.transform.size_divisible
            return {"model": Padded(self.task.raw_form(self.loaded.model), multiple)}
        make = (self.head.fixed_shapes if fixed_shapes else None) or self.head.in_graph
        assert make is not None
        return {"model": make(self.loaded.model)}

    def open_axes(self, output: str, open_size: bool) -> Mapping[int, str]:
        if self.read_inside:
            return {0: "detections"}
        return {1: "anchors"} if open_size else {}

    def compare(self, found: Sequence[Outputs], expected: Sequence[Outputs]) -> dict[str, float]:
        """As `FileForm.compare`; detections are found again first, and the errors are those that both sides have.

        Then there are ``detections``, those of the side that has more of them, and ``detection_agreement``, the percent
        of them that both have.
        """
        if not self.read_inside:
            return super().compare(found, expected)
        return compare_detections(self.outputs, found, expected)

    def disagreement(self, numbers: Mapping[str, float]) -> str:
        return other_objects(numbers)


class InstancesForm(DetectorForm):
    """``(1, C, H, W)`` -> what is found, with masks: two stages are one graph, which decodes itself."""

    @property
    def read_inside(self) -> bool:
        return True

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.head.outputs


def compare_detections(names: Sequence[str], found: Sequence[Outputs], expected: Sequence[Outputs]) -> dict[str, float]:
    """Detections are found again by label and place, each once: their order and number hang on ties."""
    again, total = 0, 0
    mine_again, theirs_again = [], []
    for one, theirs in zip(found, expected, strict=True):
        real = one[1] > 0  # files of fixed shapes fill up with scores of zero
        mine = [value[real] for value in one]
        total += max(len(mine[0]), len(theirs[0]))
        rows, partners = _partners(mine, theirs)
        again += len(rows)
        mine_again.append([value[partners] for value in mine])
        theirs_again.append([value[rows] for value in theirs])
    numbers = differences(names, mine_again, theirs_again)
    return {**numbers, "detections": total, "detection_agreement": 100.0 * again / total if total else 100.0}


def other_objects(numbers: Mapping[str, float]) -> str:
    """What is wrong where too few detections are shared."""
    few = numbers.get("detection_agreement", 100.0) < AGREEMENT
    return "finds other objects than the PyTorch model" if few else ""


def _partners(mine: Sequence[Tensor], theirs: Sequence[Tensor]) -> tuple[list[int], list[int]]:
    """Rows of ``theirs`` that ``mine`` has too, and where: of several at one place, the one with the nearest score."""
    # A pixel wider: a box pushed out of the picture is cut to none at its border and would overlap nothing, not itself.
    grown = [side[0].double() + torch.tensor([0, 0, 1, 1]) for side in (theirs, mine)]
    same = (box_iou(*grown) >= SAME_BOX) & (theirs[2].long()[:, None] == mine[2].long())
    apart = (theirs[1].double()[:, None] - mine[1].double()).abs().where(same, math.inf)
    rows, partners = [], []
    for row in range(len(apart)):
        if apart.shape[1] and apart[row].min() < math.inf:
            rows.append(row)
            partners.append(int(apart[row].argmin()))
            apart[:, partners[-1]] = math.inf
    return rows, partners
