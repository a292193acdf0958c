"""What a model says about a picture: plain arrays, with all that somebody who draws them needs."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tokenmix_runtime.files import whole_file
from tokenmix_runtime.maps import paste


class Result(ABC):
    """An answer."""

    @abstractmethod
    def as_dict(self, top: int = 5) -> dict[str, Any]:
        """For JSON; ``top``: how many classes are told, where an answer is a list of them."""

    @abstractmethod
    def lines(self, top: int, score: float) -> list[str]:
        """For people; objects above a ``score``."""

    @abstractmethod
    def rows(self, top: int, score: float) -> list[dict[str, Any]]:
        """For a table: a row for each of the ``top`` classes or of the objects above a ``score``, with equal names."""


@dataclass(frozen=True, eq=False)
class Classification(Result):
    """Probabilities of classes.

    Attributes:
        probabilities: (K,) float32, 0 to 1.
        labels: The K names.

    Examples:
        >>> import numpy as np
        >>> answer = Classification(np.array([0.25, 0.75], np.float32), ("cat", "dog"))
        >>> answer.label, answer.top(1)
        ('dog', [('dog', 0.75)])
    """

    probabilities: NDArray[np.float32]
    labels: tuple[str, ...]

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The most likely classes with their probabilities, best first."""
        best = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.labels[i], float(self.probabilities[i])) for i in best]

    @property
    def label(self) -> str:
        """The most likely class."""
        return self.top(1)[0][0]

    def as_dict(self, top: int = 5) -> dict[str, Any]:
        """For JSON: the most likely classes."""
        return {"top": [[name, share] for name, share in self.top(top)]}

    def lines(self, top: int, score: float) -> list[str]:
        """The most likely classes."""
        return [f"{100 * share:5.1f} %  {name}" for name, share in self.top(top)]

    def rows(self, top: int, score: float) -> list[dict[str, Any]]:
        """``rank``, from 1 on, ``class`` and ``probability``."""
        best = enumerate(self.top(top), start=1)
        return [{"rank": rank, "class": name, "probability": share} for rank, (name, share) in best]


@dataclass(frozen=True, eq=False)
class Detections(Result):
    """The N objects that were found, best first.

    Attributes:
        boxes: (N, 4) float32, left, top, right, bottom in pixels of the picture.
        scores: (N,) float32, 0 to 1.
        labels: (N,) int64, the class from 1 on.
        names: The N names of the classes.
        size: (height, width) of the picture.
        patches: (N, 28, 28) float32, the probabilities inside each box that a pixel is the object's; or None.

    Examples:
        >>> from tokenmix_runtime import Predictor
        >>> found = Predictor("detector.onnx")("street.jpg").above(0.5)  # doctest: +SKIP
        >>> list(zip(found.names, found.boxes.tolist()))  # doctest: +SKIP
        [('car', [12.0, 40.5, 310.0, 220.5])]
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    size: tuple[int, int]
    patches: NDArray[np.float32] | None = None

    def mask(self, index: int) -> NDArray[np.bool_]:
        """(H, W): the pixels of one object, where its model finds masks.

        Raises:
            ValueError: It does not.
        """
        if self.patches is None:
            raise ValueError("this model finds boxes, not masks")
        return paste(self.patches[index], self.boxes[index], self.size)

    @cached_property
    def masks(self) -> NDArray[np.bool_] | None:
        """(N, H, W), all of `mask`; None where the model finds no masks."""
        if self.patches is None:
            return None
        return (
            np.stack([self.mask(i) for i in range(len(self.boxes))])
            if len(self.boxes)
            else np.zeros((0, *self.size), bool)
        )

    def above(self, score: float) -> Detections:
        """Those with a higher score."""
        kept = self.scores > score
        names = tuple(name for name, keep in zip(self.names, kept, strict=True) if keep)
        patches = None if self.patches is None else self.patches[kept]
        return Detections(self.boxes[kept], self.scores[kept], self.labels[kept], names, self.size, patches)

    def lines(self, top: int, score: float) -> list[str]:
        """An object in each line, its box in brackets."""
        shown = self.above(score)
        rows = zip(shown.scores.tolist(), shown.boxes.tolist(), shown.names, strict=True)
        found = [f"{100 * s:5.1f} %  ({', '.join(f'{value:.0f}' for value in box)})  {name}" for s, box, name in rows]
        return found or [f"nothing above a score of {score:g}"]

    def rows(self, top: int, score: float) -> list[dict[str, Any]]:
        """``class``, ``score``, and the box: ``left``, ``top``, ``right``, ``bottom``, in pixels."""
        shown = self.above(score)
        return [
            {"class": name, "score": s, **dict(zip(("left", "top", "right", "bottom"), box, strict=True))}
            for s, box, name in zip(shown.scores.tolist(), shown.boxes.tolist(), shown.names, strict=True)
        ]

    def as_dict(self, top: int = 5) -> dict[str, Any]:
        """For JSON, all objects; of masks the number of their pixels."""
        rows = zip(self.names, self.labels.tolist(), self.scores.tolist(), self.boxes.tolist(), strict=True)
        found = [{"name": n, "label": label, "score": score, "box": box} for n, label, score, box in rows]
        if self.patches is not None:
            for i, entry in enumerate(found):
                entry["mask_pixels"] = int(self.mask(i).sum())
        return {"size": list(self.size), "objects": found}


@dataclass(frozen=True, eq=False)
class SegmentMap(Result):
    """A class for each pixel.

    Attributes:
        classes: (H, W) uint8 (int32 above 256 classes), of the picture's size.
        labels: The names of all classes.

    Examples:
        >>> import numpy as np
        >>> SegmentMap(np.array([[0, 0], [0, 1]], np.uint8), ("road", "sky")).shares()
        {'road': 0.75, 'sky': 0.25}
    """

    classes: NDArray[Any]
    labels: tuple[str, ...]

    def shares(self) -> dict[str, float]:
        """Of each class that is there its share of the pixels, the largest first."""
        counts = np.bincount(self.classes.ravel(), minlength=len(self.labels)) / self.classes.size
        order = np.argsort(-counts, kind="stable")
        return {self.labels[i]: float(counts[i]) for i in order if counts[i]}

    def as_dict(self, top: int = 5) -> dict[str, Any]:
        """For JSON: shares, not pixels."""
        return {"size": list(self.classes.shape), "shares": self.shares()}

    def lines(self, top: int, score: float) -> list[str]:
        """The share of each class."""
        return [f"{100 * share:5.1f} %  {name}" for name, share in self.shares().items()]

    def rows(self, top: int, score: float) -> list[dict[str, Any]]:
        """``class`` and ``share``, of 1."""
        return [{"class": name, "share": share} for name, share in self.shares().items()]


@dataclass(frozen=True, eq=False)
class Enlarged(Result):
    """The picture, made larger.

    Attributes:
        picture: RGB.
        scale: How many times larger each side is.

    Examples:
        >>> from tokenmix_runtime import Predictor
        >>> Predictor("upscaler.onnx")("holiday.jpg").save("large.png")  # doctest: +SKIP
    """

    picture: Image.Image
    scale: int

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a PNG file, under another name until it is whole; missing folders are made.

        Raises:
            OSError: It cannot be written.
        """
        with whole_file(path) as temporary:
            self.picture.save(temporary, "PNG")

    def as_dict(self, top: int = 5) -> dict[str, Any]:
        """For JSON: the size, not pixels."""
        return {"size": [self.picture.height, self.picture.width]}

    def lines(self, top: int, score: float) -> list[str]:
        """The size."""
        return [f"{self.picture.width} x {self.picture.height} pixels"]

    def rows(self, top: int, score: float) -> list[dict[str, Any]]:
        """``width`` and ``height``, in pixels."""
        return [{"width": self.picture.width, "height": self.picture.height}]
