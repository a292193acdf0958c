"""What the recipes of super-resolution say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from tokenmix.checked_values import not_negative, positive, rule
from tokenmix.tasks.options import TaskAugment, TaskOptions
from tokenmix.tasks.super_resolution.loss import SPECTRUM_WEIGHT


@dataclass(frozen=True, kw_only=True)
class Options(TaskOptions):
    """What a network learns from, and how it is judged. The scale is the model's: ``model.args.scale=3``.

    Args:
        image_size: (height, width) in pixels of the small patches that a network learns from, both the same; those of
            the large ones are ``scale`` times as long. One number means a square, None the data set's own.
        patches: Patches that an epoch takes from each picture.
        spectrum_weight: Of the difference between the spectra in the loss; 0 for pixels alone.
        rounded_luma: Whether the luma is rounded to whole numbers before PSNR and SSIM are taken, as MATLAB does it;
            BasicSR does not. The published numbers of FFNet-SR are BasicSR's.
        border: Pixels at each side that are not judged; None: as many as the scale.
    """

    name: ClassVar[str] = "super_resolution"
    image_size: tuple[int, int] | None = field(
        default=None, metadata=rule("both the same and 8 or more", lambda value: value[0] == value[1] >= 8)
    )
    patches: int = field(default=16, metadata=positive("steps"))
    spectrum_weight: float = field(default=SPECTRUM_WEIGHT, metadata=not_negative("factor"))
    rounded_luma: bool = True
    border: int | None = field(default=None, metadata=not_negative("side"))


@dataclass(frozen=True, kw_only=True)
class Augment(TaskAugment):
    """What happens to a patch at random.

    Args:
        flip: Half of the patches are mirrored from left to right, and half upside down.
        rotate: Half of them have rows and columns exchanged: with the flips, all eight positions.
    """

    flip: bool = True
    rotate: bool = True
