"""What the recipes of detectors and segmenters say: what both share, and the augmentation by name and in parts.

``augment`` is a name:

* ``none``: the scaling of evaluation.
* ``light``: half of the pictures are mirrored; for segmentation also scaled by 0.5 to 2 and cropped.
* ``standard``: as ``light``, for detection with large-scale jitter (arXiv:2012.07177: scaled by 0.1 to 2 and cropped),
  for segmentation with changed colours, and crops of which one class covers less than 75 %.
* ``multiscale``, for detection: mirrored, and the shorter side is one of 480, 512, ..., 800 (arXiv:2005.12872).
* ``detr``, for detection: as ``multiscale``, half of them cropped before (arXiv:2005.12872, sec. A.4).
* ``ssd``, for detection: colours, zooming out, crops by overlap (arXiv:1512.02325), mirrored, stretched to the size.

The other fields of `ObjectAugment` and `LabelAugment` change parts of these.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from tokenmix.checked_values import FACTOR, SHARE, Checked, choice, positive, rule
from tokenmix.tasks.options import TaskAugment
from tokenmix.tasks.picture_options import PictureOptions


@dataclass(frozen=True, kw_only=True)
class DenseOptions(PictureOptions):
    """How detectors and segmenters are trained.

    Args:
        head_lr: Factor on the learning rate of all but the backbone.
        layer_decay_layers: Into how many layers the recipe's ``layer_decay`` groups the backbone, as mmdetection does,
            see ``tokenmix.tasks.dense.learning_rates``. None: each block is a layer.
        freeze_norms: The batch norms of the backbone, those behind its levels too, normalise by their running
            statistics in training, and leave them as they are. Their weights learn.
    """

    head_lr: float = field(default=1.0, metadata=positive("factor"))
    layer_decay_layers: int | None = field(default=None, metadata=positive("depth"))
    freeze_norms: bool = False


@dataclass(frozen=True, kw_only=True)
class DenseAugment(Checked):
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

    part: ClassVar[str] = "augment"
    zoom_out: float = field(default=1.0, metadata=rule("1 or more", lambda value: value >= 1))
    iou_crop: bool = False
    stretch: bool = False
    pre_crop: bool = False
    short_sides: tuple[int, ...] = field(default=(), metadata=rule("all 1 or more", lambda v: min(v, default=1) >= 1))
    scale: tuple[float, float] = field(
        default=(1.0, 1.0), metadata=rule("in order and above 0", lambda value: 0 < value[0] <= value[1])
    )
    crop: bool = False
    crop_size: tuple[int, int] | None = field(
        default=None, metadata=rule("both 1 or more", lambda value: min(value) >= 1)
    )
    cat_max_ratio: float = field(default=1.0, metadata=FACTOR)
    flip: float = field(default=0.0, metadata=SHARE)
    photometric: bool = False


_MIRROR = DenseAugment(flip=0.5)
_CROPS = DenseAugment(scale=(0.5, 2.0), crop=True, flip=0.5)
_JITTER = DenseAugment(scale=(0.1, 2.0), crop=True, flip=0.5)
OBJECT_SETS = {
    "none": DenseAugment(),
    "light": _MIRROR,
    "standard": _JITTER,
    "multiscale": dataclasses.replace(_MIRROR, short_sides=tuple(range(480, 801, 32))),
    "detr": dataclasses.replace(_MIRROR, short_sides=tuple(range(480, 801, 32)), pre_crop=True),
    "ssd": DenseAugment(zoom_out=4.0, iou_crop=True, stretch=True, flip=0.5, photometric=True),
}
LABEL_SETS = {
    "none": DenseAugment(),
    "light": _CROPS,
    "standard": dataclasses.replace(_CROPS, cat_max_ratio=0.75, photometric=True),
}
DENSE_AUGMENTS = tuple(OBJECT_SETS)
PARTS = tuple(entry.name for entry in dataclasses.fields(DenseAugment))


@dataclass(frozen=True, kw_only=True)
class NamedAugment(TaskAugment):
    """An augmentation by its name, with some of its parts changed; those that are None are as the name says.

    Args:
        name: One of ``sets``.
        zoom_out: See `DenseAugment`, also for the others.
        iou_crop: Whether there are SSD's crops.
        stretch: Whether the shape is lost.
        pre_crop: Whether half of the pictures are scaled and cut before.
        short_sides: Lengths of the shorter side in pixels.
        scale: Smallest and largest factor.
        crop: Whether to cut at a random place.
        crop_size: (height, width) in pixels of that.
        cat_max_ratio: The largest share of one class.
        flip: Share of the pictures that are mirrored.
        photometric: Whether colours change.

    Raises:
        ValueError: There is no such name, a value is out of range, or one would change nothing.
    """

    sets: ClassVar[Mapping[str, DenseAugment]]
    name: str = "light"
    zoom_out: float | None = None
    iou_crop: bool | None = None
    stretch: bool | None = None
    pre_crop: bool | None = None
    short_sides: tuple[int, ...] | None = None
    scale: tuple[float, float] | None = None
    crop: bool | None = None
    crop_size: tuple[int, int] | None = None
    cat_max_ratio: float | None = None
    flip: float | None = None
    photometric: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        plain, parts = DenseAugment(), self.parts  # which checks the values
        for name, why in self.idle(parts).items():
            if getattr(self, name) not in (None, getattr(plain, name)):
                raise ValueError(f"recipe key {self.key(name)!r} would change nothing, since {why}: leave it out")

    def idle(self, parts: DenseAugment) -> dict[str, str]:
        """The parts that have no effect beside these, with the reason."""
        why = "stretch=true gives each picture the size itself"
        return {"short_sides": why, "scale": why} if parts.stretch else {}

    @property
    def parts(self) -> DenseAugment:
        """All parts, the changed ones and those of the name."""
        changes = {part: value for part in PARTS if (value := getattr(self, part)) is not None}
        return dataclasses.replace(self.sets[self.name], **changes)


@dataclass(frozen=True, kw_only=True)
class ObjectAugment(NamedAugment):
    """Of pictures with boxes and perhaps masks."""

    sets: ClassVar[Mapping[str, DenseAugment]] = OBJECT_SETS
    name: str = field(default="light", metadata=choice(OBJECT_SETS))

    def idle(self, parts: DenseAugment) -> dict[str, str]:
        uncut = {} if parts.crop else {"crop_size": "nothing is cut without crop=true"}
        return super().idle(parts) | {"cat_max_ratio": "it counts labelled pixels, and here are boxes"} | uncut


@dataclass(frozen=True, kw_only=True)
class LabelAugment(NamedAugment):
    """Of pictures with a class for each pixel."""

    sets: ClassVar[Mapping[str, DenseAugment]] = LABEL_SETS
    name: str = field(default="light", metadata=choice(LABEL_SETS))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop is False and not self.parts.stretch:
            raise ValueError(
                "recipe key 'augment.crop': without stretch=true pictures are always cut, since those of a batch have "
                "one size: leave it out"
            )

    def idle(self, parts: DenseAugment) -> dict[str, str]:
        why = "nothing is cut with stretch=true and without crop=true"
        uncut = {"crop_size": why, "cat_max_ratio": why} if parts.stretch and not parts.crop else {}
        return super().idle(parts) | {"iou_crop": "there are no boxes that crops could overlap with"} | uncut
