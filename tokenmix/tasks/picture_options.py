"""What the recipes of all tasks on pictures say."""

from __future__ import annotations

from dataclasses import dataclass, field

from tokenmix.checked_values import choice, rule
from tokenmix.tasks.options import TaskOptions
from tokenmix_runtime.untrusted import LIMITS, image_problem

PREPROCESSES = ("data", "model")


def too_large(size: tuple[int, int]) -> str | None:
    """What pictures must be that this size has too many pixels for; None if it has not."""
    return (
        f"of at most {LIMITS['side']:,} pixels a side, {LIMITS['pixels']:,} together" if image_problem(size) else None
    )


@dataclass(frozen=True, kw_only=True)
class PictureOptions(TaskOptions):
    """How pictures come to a network.

    Args:
        image_size: (height, width) of the images in pixels, in training and evaluation; one number means a square, None
            the data set's own.
        preprocess: Whose mean, standard deviation, crop share and interpolation: the ``data`` set's, or those of the
            ``model``'s timm configuration, with which its published weights were trained.
    """

    image_size: tuple[int, int] | None = field(
        default=None, metadata=rule("both 1 or more", lambda value: min(value) >= 1) | {"problem": too_large}
    )
    preprocess: str = field(default="data", metadata=choice(PREPROCESSES))
