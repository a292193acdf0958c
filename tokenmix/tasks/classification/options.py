"""What a recipe says of classification: its options, and its augmentation by name and in parts.

``augment`` is a name:

* ``none``: nothing; the evaluation transform alone.
* ``light``: of a photo a random crop of 50 to 100 % of the area; a glyph (digit, letter) is turned by up to 5 degrees,
  moved by up to 3 % of the size and scaled by up to 5 %.
* ``standard``: of a photo a random crop of 25 to 100 %, with brightness, contrast and saturation changed by up to 20 %;
  glyphs by 10 degrees, 6 % and 10 %.
* ``imagenet``: of a photo a random crop of 8 to 100 %; glyphs as in ``standard``.

Half of the pictures are mirrored, except where the data set says that a mirrored picture loses its class, and with
``none``. The other fields of `Augment` add to these, or change their parts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import ClassVar

import timm

from tokenmix.checked_values import FACTOR, RATE, SHARE, choice, from_files, not_negative, positive, rule
from tokenmix.tasks.options import TaskAugment
from tokenmix.tasks.picture_options import PictureOptions, too_large
from tokenmix_runtime.preprocess import INTERPOLATIONS
from tokenmix_runtime.untrusted import LEAST_CROP

AUGMENTS = ("none", "light", "standard", "imagenet")
CROP_INTERPOLATIONS = ("random", *INTERPOLATIONS)
CROP_AREA = {"light": 0.5, "standard": 0.25, "imagenet": 0.08}  # the smallest share of a photo's area
BALANCES = ("none", "weights", "sampling")
DISTILLS = ("hard", "soft")
_NUMBER = r"\d+(\.\d+)?"
_RAND_AUGMENT = re.compile(rf"rand(-(m\d+|n\d+|p{_NUMBER}|mstd{_NUMBER}|mmax\d+|inc[01]|t(weights|3a|3aw)))*")


def is_rand_augment(text: str) -> bool:
    """Whether timm reads this as RandAugment, such as ``"rand-m9-mstd0.5-inc1"``."""
    return _RAND_AUGMENT.fullmatch(text) is not None


def _too_small(share: float) -> str | None:
    return f"at least {LEAST_CROP}" if share < LEAST_CROP else None


@dataclass(frozen=True, kw_only=True)
class Options(PictureOptions):
    """How classifiers are trained.

    Args:
        multi_scale: Sides of square training images in pixels, one drawn for every step; a step with smaller images
            than ``image_size`` has more of them, never fewer than the recipe's ``batch_size``. Empty: always
            ``image_size``.
        crop_pct: Share of the shorter side that evaluation keeps, instead of what ``preprocess`` says.
        label_smoothing: Share of each label spread over all classes.
        balance: What is done where some classes have few samples: ``none``; ``weights``, their losses count for more,
            by the root of how rare they are; ``sampling``, all classes are seen equally often.
        teacher: A model that the trained one imitates: a timm name, or all that ``tokenmix.checkpoints.open_model``
            takes; None for none. Models with two classifiers learn from it with the second one.
        teacher_weights: A file with the weights of a teacher that timm names; None lets timm download them.
        distill: ``hard``, the teacher's class, or ``soft``, its probabilities.
        distill_weight: Share of the loss that the teacher decides.
        distill_temperature: Of soft probabilities.
    """

    name: ClassVar[str] = "classification"
    multi_scale: tuple[int, ...] = field(
        default=(),
        metadata=rule("all 1 or more", lambda value: all(side >= 1 for side in value))
        | {"problem": lambda value: too_large((max(value, default=1), 1))},
    )
    crop_pct: float | None = field(default=None, metadata=FACTOR | {"problem": _too_small})
    label_smoothing: float = field(default=0.0, metadata=RATE)
    balance: str = field(default="none", metadata=choice(BALANCES))
    teacher: str | None = field(default=None, metadata=from_files(timm.is_model))
    teacher_weights: str | None = field(default=None, metadata=from_files(lambda value: False))
    distill: str = field(default="hard", metadata=choice(DISTILLS))
    distill_weight: float = field(default=0.5, metadata=SHARE)
    distill_temperature: float = field(default=1.0, metadata=positive("factor"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher_weights is not None and self.teacher is None:
            raise ValueError(
                "recipe key 'task.teacher_weights' needs 'task.teacher', the timm name of the model they belong to"
            )


@dataclass(frozen=True, kw_only=True)
class Augment(TaskAugment):
    """What training does to pictures at random, with timm's and torchvision's parts.

    Args:
        name: The set to start from, see the module.
        crop_scale: The smallest and largest share of a photo's area that a crop keeps; None: as the name says. Glyphs
            are turned and shifted instead.
        flip: Whether half of the pictures are mirrored; None: as the data set says, which is yes for photos.
        crop_interpolation: Of random crops: ``"bicubic"``, ``"bilinear"`` or ``"random"``, either of the two; None: as
            in evaluation.
        rand_augment: timm's RandAugment by its string, such as ``"rand-m9-mstd0.5-inc1"``.
        color_jitter: Largest relative change of brightness, contrast and saturation; None: of photos as the name says.
        erase_rate: Share of the pictures in which a rectangle becomes noise (arXiv:1708.04896).
        mixup: Alpha of mixup (arXiv:1710.09412), 0 for none; it mixes the images that a process works through at once.
        cutmix: Alpha of cutmix (arXiv:1905.04899), 0 for none.
        mix_switch: Share of cutmix where both are on.
    """

    name: str = field(default="light", metadata=choice(AUGMENTS))
    crop_scale: tuple[float, float] | None = field(
        default=None,
        metadata=rule("in order, above 0 and at most 1", lambda value: 0 < value[0] <= value[1] <= 1),
    )
    flip: bool | None = None
    crop_interpolation: str | None = field(default=None, metadata=choice(CROP_INTERPOLATIONS))
    rand_augment: str | None = field(
        default=None, metadata=rule("a string of timm's such as 'rand-m9-mstd0.5-inc1'", is_rand_augment)
    )
    color_jitter: float | None = field(default=None, metadata=SHARE)
    erase_rate: float = field(default=0.0, metadata=SHARE)
    mixup: float = field(default=0.0, metadata=not_negative("factor"))
    cutmix: float = field(default=0.0, metadata=not_negative("factor"))
    mix_switch: float = field(default=0.5, metadata=SHARE)

    @property
    def area(self) -> tuple[float, float] | None:
        """The shares of a photo's area that a crop keeps, or None where photos are not cropped at random."""
        if self.crop_scale is not None:
            return self.crop_scale
        return (CROP_AREA[self.name], 1.0) if self.name in CROP_AREA else None
