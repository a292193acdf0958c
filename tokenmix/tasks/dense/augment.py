"""What training does at random to pictures together with their boxes, masks or labels, by torchvision's v2 transforms.

What is done stands in a `DenseAugment`, which a recipe's ``augment`` names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as VF

from tokenmix.tasks.dense.options import PARTS, DenseAugment, LabelAugment, ObjectAugment
from tokenmix.tasks.dense.sets import IGNORED
from tokenmix_runtime.names import unknown

_TRIES = 10  # crops drawn until one has classes enough
_SMALLEST_PX = 4  # a picture with a shorter side is not cropped further
_DETR_SCALES, _DETR_CROPS, _LONG_PX = (400, 500, 600), (384, 600), 1333


def dense_augment(name: str, task: str, changes: Mapping[str, Any] | None = None) -> DenseAugment:
    """The augmentation of that name for a task, with some of its parts changed.

    Raises:
        ValueError: There is no such name or part, or a value is out of range.
    """
    for key in changes or {}:
        if key not in PARTS:
            raise ValueError(unknown("part of the augmentation", key, PARTS))
    kind = LabelAugment if task == "segmentation" else ObjectAugment
    return kind(name=name, **(changes or {})).parts


def dense_transform(augment: DenseAugment, size: tuple[int, int], *, boxes: bool, fill: Sequence[int]) -> v2.Compose:
    """A dict of ``image`` (tv_tensors.Image), ``boxes`` and ``labels``, perhaps ``masks``, or ``label`` -> the same.

    Args:
        augment: What to do.
        size: (height, width) in pixels.
        boxes: Whether the dict has objects, and not a label for each pixel.
        fill: The colour outside of a picture.
    """
    fills = {tv_tensors.Image: list(fill), tv_tensors.Mask: 0 if boxes else IGNORED, "others": 0}
    steps: list[Any] = []
    if augment.zoom_out > 1:
        steps.append(v2.RandomZoomOut(fills, side_range=(1.0, augment.zoom_out)))
    if augment.iou_crop and boxes:
        steps += [IoUCrop(), v2.SanitizeBoundingBoxes()]
    if augment.pre_crop:
        fit = RandomScale((min(_DETR_SCALES), _LONG_PX), _DETR_SCALES)
        steps.append(v2.RandomApply([v2.Compose([fit, RangeCrop(*_DETR_CROPS)])]))
    steps.append(v2.Resize(size) if augment.stretch else RandomScale(size, augment.short_sides, augment.scale))
    if augment.crop:
        crop = v2.RandomCrop if boxes or augment.cat_max_ratio == 1 else CategoryCrop
        more = {} if crop is v2.RandomCrop else {"cat_max_ratio": augment.cat_max_ratio}
        steps.append(crop(augment.crop_size or size, pad_if_needed=True, fill=fills, **more))
    if augment.flip:
        steps.append(v2.RandomHorizontalFlip(augment.flip))
    if augment.photometric:
        steps.append(v2.RandomPhotometricDistort())
    if boxes:
        steps += [v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes(min_size=1.0)]
    return v2.Compose(steps)


class RandomScale(v2.Transform):
    """Scales a picture, keeping its shape: its short side gets a drawn length, unless the long one would be too long.

    Args:
        size: Two lengths in pixels, the shorter and the longer, in any order.
        short_sides: To draw from; empty: always the shorter one of ``size``.
        scale: The range of a further factor.
    """

    def __init__(
        self, size: tuple[int, int], short_sides: Sequence[int] = (), scale: tuple[float, float] = (1.0, 1.0)
    ) -> None:
        super().__init__()
        self.short_sides, self.long_side = tuple(short_sides) or (min(size),), max(size)
        self.scale = scale

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = VF.get_size(next(value for value in flat_inputs if isinstance(value, tv_tensors.Image)))
        short = self.short_sides[int(torch.randint(len(self.short_sides), ()))]
        low, high = self.scale
        factor = min(short / min(height, width), self.long_side / max(height, width))
        factor *= low + (high - low) * float(torch.rand(()))
        return {"size": [max(1, round(height * factor)), max(1, round(width * factor))]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return self._call_kernel(VF.resize, inpt, size=params["size"], antialias=True)


class IoUCrop(v2.RandomIoUCrop):
    """SSD's crop, which leaves a picture without boxes, or a tiny one, as it is."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        boxes = next(value for value in flat_inputs if isinstance(value, tv_tensors.BoundingBoxes))
        if not len(boxes) or min(boxes.canvas_size) < _SMALLEST_PX:
            return {}
        return super().make_params(flat_inputs)


class RangeCrop(v2.Transform):
    """A crop at a random place, whose sides are drawn; one that is longer than the picture's is as long as that.

    Args:
        shortest: Side in pixels.
        longest: Side in pixels.
    """

    def __init__(self, shortest: int, longest: int) -> None:
        super().__init__()
        self.shortest, self.longest = shortest, longest

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = VF.get_size(next(value for value in flat_inputs if isinstance(value, tv_tensors.Image)))
        rows, top = self._draw(height)
        columns, left = self._draw(width)
        return {"top": top, "left": left, "height": rows, "width": columns}

    def _draw(self, whole: int) -> tuple[int, int]:
        """A side's length and begin."""
        length = int(torch.randint(min(self.shortest, whole), min(self.longest, whole) + 1, ()))
        return length, int(torch.randint(whole - length + 1, ()))

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return self._call_kernel(VF.crop, inpt, **params)


class CategoryCrop(v2.RandomCrop):
    """A random crop, drawn again (ten times at most) while one class has too large a share of its labelled pixels."""

    def __init__(self, size: tuple[int, int], *, cat_max_ratio: float, **options: Any) -> None:
        super().__init__(size, **options)
        self.cat_max_ratio = cat_max_ratio

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        label = next(value for value in flat_inputs if isinstance(value, tv_tensors.Mask))
        for _ in range(_TRIES):
            params = super().make_params(flat_inputs)
            counts = torch.bincount(self.transform(label, params).flatten().long(), minlength=IGNORED + 1)[:IGNORED]
            if counts.max() < self.cat_max_ratio * counts.sum():
                break
        return params
