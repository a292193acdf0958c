"""What the recipes of segmenters say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from tokenmix.checked_values import not_negative, rule
from tokenmix.tasks.dense.options import DenseOptions

_PIXELS = rule("both 1 or more", lambda value: min(value) >= 1)


@dataclass(frozen=True, kw_only=True)
class Options(DenseOptions):
    """How segmenters are trained, and how they look at a picture.

    Args:
        aux_weight: Of the auxiliary head's loss, where the model has such a head.
        scales: Factors on the image's sides; with several the probabilities are averaged.
        mirror: Whether to look at the mirrored image too.
        window: (height, width) in pixels of windows that overlap and whose logits are averaged, one number for a
            square; None: the whole image.
        stride: How far from window to window; None: two thirds of it, rounded up.
    """

    name: ClassVar[str] = "segmentation"
    aux_weight: float = field(default=0.4, metadata=not_negative("factor"))
    scales: tuple[float, ...] = field(
        default=(1.0,), metadata=rule("at least one, all above 0", lambda value: min(value, default=0) > 0)
    )
    mirror: bool = False
    window: tuple[int, int] | None = field(default=None, metadata=_PIXELS)
    stride: tuple[int, int] | None = field(default=None, metadata=_PIXELS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stride is not None and self.window is None:
            raise ValueError("recipe key 'task.stride' is that of a window: set 'task.window' too")
