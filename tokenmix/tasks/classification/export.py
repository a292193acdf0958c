"""Classifiers as files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from tokenmix.tasks.example_pictures import labels_of
from tokenmix.tasks.file_form import Outputs, agreement
from tokenmix.tasks.picture_form import PictureForm


class ClassForm(PictureForm):
    """``(N, C, H, W)`` -> logits ``(N, K)``, or with ``"softmax"`` inside probabilities."""

    @property
    def outputs(self) -> tuple[str, ...]:
        return ("probabilities",) if "softmax" in self.inside else ("logits",)

    def layers(self, fixed_shapes: bool) -> dict[str, nn.Module]:
        return super().layers(fixed_shapes) | ({"softmax": nn.Softmax(1)} if "softmax" in self.inside else {})

    def reading(self) -> dict[str, Any]:
        return {"kind": "softmax", "multiple": 1, "inside": "softmax" in self.inside}

    def truth_of(self, files: Sequence[Any]) -> list[Any] | None:
        return labels_of(files, self.loaded.classes)

    def compare(self, found: Sequence[Outputs], expected: Sequence[Outputs]) -> dict[str, float]:
        numbers = super().compare(found, expected)
        classes = [[one.argmax(1) for (one,) in outputs] for outputs in (found, expected)]
        return {**numbers, "top1_agreement": agreement(*classes)}

    def scores(self, outputs: Sequence[Outputs], truth: Sequence[Any]) -> dict[str, float]:
        answers = torch.cat([one.argmax(1) for (one,) in outputs])
        return {"top1": 100.0 * float((answers == torch.tensor(truth)).double().mean())}
