"""What training does at random to pictures together with their boxes, masks or labels, by torchvision's v2 transforms.

``augment`` is a name that a recipe can hold:

* ``none``: the scaling of evaluation.
* ``light``: half of the pictures are mirrored; for segmentation also scaled by 0.5 to 2 and cropped.
* ``standard``: as ``light``, for detection with large-scale jitter (arXiv:2012.07177: scaled by 0.1 to 2 and cropped),
  for segmentation with changed colours, and crops of which one class covers less than 75 %.
* ``multiscale``, for detection: mirrored, and the shorter side is one of 480, 512, ..., 800 (arXiv:2005.12872).
* ``detr``, for detection: as ``multiscale``, half of them cropped before (arXiv:2005.12872, sec. A.4).
* ``ssd``, for detection: colours, zooming out, crops by overlap (arXiv:1512.02325), mirrored, stretched to the size.

`DenseAugment` has their parts one by one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as VF

from tokenmix.names import unknown
from tokenmix.tasks.dense.sets import IGNORED

_TRIES = 10  # crops drawn until one has classes enough
_SMALLEST_PX = 4  # a picture with a shorter side is not cropped further
_DETR_SCALES, _DETR_CROPS, _LONG_PX = (400, 500, 600), (384, 600), 1333


@dataclass(frozen=True, kw_only=True)
class DenseAugment:
    """The random changes, in the order in which they are made.

    Args:
        zoom_out: Half of the pictures are laid on a canvas of up to this many times their sides; 1 for none.
        iou_crop: Crops that overlap with a box by a drawn share, SSD's.
        stretch: Resize to the size whatever the shape, in evaluation too; else the shape is kept.
        pre_crop: Half of the pictures are first scaled to a shorter side of 400, 500 or 600 pixels and cut at a random
            place to sides of 384 to 600.
        short_sides: Lengths in pixels, one of them drawn, to which the shorter side is scaled, unless the longer one
            would pass the size's longer side; empty: the size's shorter side.
        scale: Smallest and largest factor on that.
        crop: Cut the size at a random place; what is outside the picture is filled, labels with 255.
        crop_size: (height, width) to cut instead of the size, which then only says how large the picture is before.
        cat_max_ratio: The largest share of a crop's labelled pixels that one class may have, where ten crops find it.
        flip: Share of the pictures that are mirrored.
        photometric: Change brightness, contrast, saturation and hue.

    Raises:
        ValueError: A value out of range.
    """

    zoom_out: float = 1.0
    iou_crop: bool = False
    stretch: bool = False
    pre_crop: bool = False
    short_sides: tuple[int, ...] = ()
    scale: tuple[float, float] = (1.0, 1.0)
    crop: bool = False
    crop_size: tuple[int, int] | None = None
    cat_max_ratio: float = 1.0
    flip: float = 0.0
    photometric: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "short_sides", tuple(self.short_sides))
        object.__setattr__(self, "scale", tuple(self.scale))
        if self.crop_size is not None:
            object.__setattr__(self, "crop_size", tuple(self.crop_size))
        rules = {
            "zoom_out": self.zoom_out >= 1,
            "short_sides": all(side >= 1 for side in self.short_sides),
            "scale": len(self.scale) == 2 and 0 < self.scale[0] <= self.scale[1],
            "crop_size": self.crop_size is None or (len(self.crop_size) == 2 and min(self.crop_size) >= 1),
            "cat_max_ratio": 0 < self.cat_max_ratio <= 1,
            "flip": 0 <= self.flip <= 1,
        }
        for name, holds in rules.items():
            if not holds:
                raise ValueError(f"augmentation {name}={getattr(self, name)!r} is out of range")


_MIRROR = DenseAugment(flip=0.5)
_CROPS = DenseAugment(scale=(0.5, 2.0), crop=True, flip=0.5)
_JITTER = DenseAugment(scale=(0.1, 2.0), crop=True, flip=0.5)
_OBJECT_SETS = {
    "none": DenseAugment(),
    "light": _MIRROR,
    "standard": _JITTER,
    "multiscale": dataclasses.replace(_MIRROR, short_sides=tuple(range(480, 801, 32))),
    "detr": dataclasses.replace(_MIRROR, short_sides=tuple(range(480, 801, 32)), pre_crop=True),
    "ssd": DenseAugment(zoom_out=4.0, iou_crop=True, stretch=True, flip=0.5, photometric=True),
}
_LABEL_SETS = {
    "none": DenseAugment(),
    "light": _CROPS,
    "standard": dataclasses.replace(_CROPS, cat_max_ratio=0.75, photometric=True),
}
DENSE_AUGMENTS = tuple(_OBJECT_SETS)


def dense_augment(name: str, task: str, changes: Mapping[str, Any] | None = None) -> DenseAugment:
    """The augmentation of that name for a task, with some of its parts changed.

    Raises:
        ValueError: There is no such name or part, or a value is out of range.
    """
    sets = _LABEL_SETS if task == "segmentation" else _OBJECT_SETS
    if name not in sets:
        raise ValueError(unknown(f"augment for {task}", name, sets))
    names = [field.name for field in dataclasses.fields(DenseAugment)]
    for key in changes or {}:
        if key not in names:
            raise ValueError(unknown("part of the augmentation", key, names))
    try:
        return dataclasses.replace(sets[name], **(changes or {}))
    except TypeError as error:
        raise ValueError(f"augmentation {dict(changes or {})}: {error}") from error


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
