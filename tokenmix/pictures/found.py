"""What a dense model found on one picture: as a drawing, as numbers, and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tokenmix.pictures.drawing import draw_labels, draw_objects, name_of, shares_of
from tokenmix.pictures.fonts import numbered


class FoundObjects:
    """Objects on a picture, the surest first.

    Args:
        found: torchvision's dict: ``boxes`` (N, 4), ``labels`` (N,) from 1 on, ``scores`` (N,), perhaps ``masks``
            (N, 1, H, W) probabilities, all in the picture's pixels.
        classes: The names, or None if nobody knows them.
    """

    def __init__(self, found: Mapping[str, Tensor], classes: Sequence[str] | None) -> None:
        values = {name: value.detach().cpu().numpy() for name, value in found.items()}
        order = np.argsort(-values["scores"], kind="stable")
        self.boxes, self.labels, self.scores = (values[name][order] for name in ("boxes", "labels", "scores"))
        self.masks = values["masks"][order, 0] > 0.5 if "masks" in values else None
        self.classes = list(classes or ())

    @property
    def kind(self) -> str:
        """What a drawing shows."""
        return "boxes" if self.masks is None else "masks"

    def drawn(self, picture: Image.Image) -> Image.Image:
        """The picture with them."""
        return draw_objects(picture, self.boxes, self.labels, self.classes, scores=self.scores, masks=self.masks)

    def numbers(self) -> dict[int, str]:
        """What the numbers in the drawing stand for, where no font has a class's name."""
        seen = {int(label) - 1 for label in self.labels}
        return {number: name for number, name in numbered(self.classes).items() if number in seen}

    def told(self) -> dict[str, Any]:
        """``objects``: each with ``class``, ``score``, ``box`` in pixels and perhaps ``mask``, COCO's run-lengths."""
        objects = []
        for row, (label, score, box) in enumerate(zip(self.labels, self.scores, self.boxes, strict=True)):
            one = {"class": name_of(self.classes, int(label) - 1), "score": float(score), "box": box.tolist()}
            if self.masks is not None:
                one["mask"] = run_lengths(self.masks[row])
            objects.append(one)
        return {"objects": objects}


class FoundLabels:
    """The class of each pixel of a picture.

    Args:
        label: (H, W) int64, of the picture's size or smaller.
        classes: The names, or None if nobody knows them.
        count: How many there are.
    """

    kind = "segments"

    def __init__(self, label: Tensor, classes: Sequence[str] | None, count: int) -> None:
        self.label = label.cpu().numpy()
        self.classes = list(classes or (f"class {number}" for number in range(count)))

    def drawn(self, picture: Image.Image) -> Image.Image:
        """The picture under it, with its legend."""
        return draw_labels(picture, self.label, self.classes)

    def numbers(self) -> dict[int, str]:
        """What the numbers in the drawing stand for, where no font has a class's name."""
        seen = {number for number, *_ in shares_of(self.label, self.classes)}
        return {number: name for number, name in numbered(self.classes).items() if number in seen}

    def told(self) -> dict[str, Any]:
        """``classes``: of each that was seen ``class`` and ``share``, of 1, of the pixels; the largest first."""
        return {"classes": [{"class": name, "share": share} for _, name, share in shares_of(self.label, self.classes)]}


def run_lengths(mask: NDArray[np.bool_]) -> dict[str, list[int]]:
    """(H, W) -> COCO's uncompressed code: ``size``, and ``counts`` of 0s and 1s in turn, column by column."""
    flat = np.concatenate(([False], mask.reshape(-1, order="F")))
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return {"size": list(mask.shape), "counts": np.diff([0, *changes, mask.size]).tolist()}
