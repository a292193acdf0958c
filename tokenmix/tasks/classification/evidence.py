"""What a page shows of a classifier: which classes are confused, and the wrong answers that it was surest of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenmix.metrics import Answers, Metric
from tokenmix.pictures.files import picture_file
from tokenmix.tasks.classification.images import ClassData

MISTAKES = 16  # that are kept, the worst
PICTURE_PX = 128


class ClassEvidence:
    """Which classes are confused, and the wrong answers that the model was surest of."""

    def __init__(self, data: ClassData) -> None:
        self.images, self.answers = data.val, Answers()
        self.witnesses = (self.answers,)

    def gather(self, metric: Metric) -> dict[str, Any]:
        found = self.answers.gather()
        mistakes = [
            {
                "index": int(found.index[row]),
                "name": self.images.names[int(found.index[row])],
                "truth": int(found.label[row]),
                "prediction": int(found.prediction[row]),
                "confidence": float(found.confidence[row]),
                "truth_confidence": float(found.truth[row]),
            }
            for row in found.worst(MISTAKES)
        ]
        return {"images": len(found.index), "cells": [list(cell) for cell in found.confusion()], "mistakes": mistakes}

    def picture(self, entry: Mapping[str, Any]) -> bytes:
        picture = self.images.load_reduced(entry["index"], PICTURE_PX)
        picture.thumbnail((PICTURE_PX, PICTURE_PX))
        return picture_file(picture, "PNG")
