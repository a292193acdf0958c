"""The objects of a data set as pictures with a class each: what a detector's backbone learns from first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tokenmix.tasks.classification.images import ClassData, ImageSet
from tokenmix.tasks.dense.sets import IGNORED, DenseData, DenseSet, ObjectSet

CROP_PX = 64  # the side at which they are seen
LEAST_PX = 8  # the shorter side of an object that is cut out
KEPT_PX, MOST_KEPT = 2 * CROP_PX, 4_000  # the shorter side of cut-outs that are kept in memory, and how many are
MARGIN = 0.15  # of an object's sides, that is cut out with it on each side
LEAST_SHARE = 0.005  # of a picture's pixels that a class must cover, where it is labelled by pixels
BACKGROUND = "background"  # a class that is no thing
MOST_PICTURES = 2_000  # whose objects are taken


@dataclass(frozen=True)
class Crop:
    """An object: the picture it is on, its class from 0 on, and left, top, right, bottom with the margin in pixels."""

    picture: int
    label: int
    box: tuple[int, int, int, int]


class CropSet(ImageSet):
    """Cut-outs of the pictures of a dense set."""

    def __init__(self, pictures: DenseSet, crops: list[Crop]) -> None:
        names = [f"{pictures.names[crop.picture]}#{number}" for number, crop in enumerate(crops)]
        super().__init__([crop.label for crop in crops], names, crop_pct=1.0)
        self.pictures, self.crops = pictures, crops
        self.kept: dict[int, Image.Image] = {}

    def load(self, index: int) -> Image.Image:
        """The cut-out, no larger than training could use; it is kept, since a whole picture is decoded for it."""
        if index in self.kept:
            return self.kept[index].copy()
        crop = self.crops[index]
        picture = self.pictures.load(crop.picture).crop(crop.box)
        factor = KEPT_PX / min(picture.size)
        if factor < 1:
            picture = picture.resize((round(picture.width * factor), round(picture.height * factor)))
        if len(self.kept) < MOST_KEPT:
            self.kept[index] = picture
        return picture.copy()


def count_objects(data: DenseData) -> tuple[int, int]:
    """How many cut-outs the training pictures give, and of how many classes."""
    labels = [crop.label for crop in _crops(data.train, data.classes)]
    return len(labels), len(set(labels))


def object_crops(data: DenseData) -> ClassData:
    """Cut-outs of the training pictures to learn from, and of the validation pictures to choose by.

    The test pictures are not touched: the validation's stand in their place.
    """
    train, val = (CropSet(part, list(_crops(part, data.classes))) for part in (data.train, data.val))
    kept = sorted(set(train.labels))
    for one in (train, val):
        one.crops = [crop for crop in one.crops if crop.label in kept]
        one.names = [f"{one.pictures.names[crop.picture]}#{number}" for number, crop in enumerate(one.crops)]
        one.labels = [kept.index(crop.label) for crop in one.crops]
    judged = val if len(val) else train
    return ClassData(
        f"{data.name}: cut-outs",
        train,
        judged,
        judged,
        CROP_PX,
        [data.classes[label] for label in kept],
        mean=data.mean,
        std=data.std,
    )


def _crops(part: DenseSet, classes: list[str]) -> Iterator[Crop]:
    """The objects of a set that are large enough, or of each picture the place of each class that its pixels name."""
    for index in range(min(len(part), MOST_PICTURES)):
        if part.per_pixel:
            yield from _of_pixels(index, part.target(index)["label"].numpy(), classes)
        else:
            height, width = _size(part, index)
            for box, label, crowd in zip(*_objects(part, index), strict=True):
                if not crowd and min(box[2] - box[0], box[3] - box[1]) >= LEAST_PX:
                    yield Crop(index, label - 1, _with_margin(box, height, width))


def _objects(part: DenseSet, index: int) -> tuple[list[list[float]], list[int], list[bool]]:
    """The boxes and labels of a picture's objects, and which are crowds; no mask is drawn for them."""
    if isinstance(part, ObjectSet):
        found = part.objects[index]
        return found.boxes.astype(np.float32).tolist(), found.labels.tolist(), found.crowd.tolist()
    target = part.target(index)
    return target["boxes"].tolist(), target["labels"].tolist(), target["iscrowd"].bool().tolist()


def _of_pixels(index: int, label: np.ndarray, classes: list[str]) -> Iterator[Crop]:
    height, width = label.shape
    for number in np.unique(label).tolist():
        if number == IGNORED or number >= len(classes) or classes[number].lower() == BACKGROUND:
            continue
        rows, columns = np.nonzero(label == number)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        if len(rows) >= LEAST_SHARE * label.size and min(box[2] - box[0], box[3] - box[1]) >= LEAST_PX:
            yield Crop(index, number, _with_margin([float(side) for side in box], height, width))


def _size(part: DenseSet, index: int) -> tuple[int, int]:
    sizes = getattr(part, "sizes", None)
    if sizes:
        return tuple(sizes[index])
    picture = part.load(index)
    return picture.height, picture.width


def _with_margin(box: list[float], height: int, width: int) -> tuple[int, int, int, int]:
    left, top, right, bottom = box
    across, down = MARGIN * (right - left), MARGIN * (bottom - top)
    return (
        max(0, round(left - across)),
        max(0, round(top - down)),
        min(width, round(right + across)),
        min(height, round(bottom + down)),
    )
