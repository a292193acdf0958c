"""A batch from images of several sizes."""

from __future__ import annotations

from torch import Tensor
from torchvision.models.detection.transform import GeneralizedRCNNTransform


class Canvas(GeneralizedRCNNTransform):
    """Torchvision's entrance to a detector without normalising and resizing, which the data room has done: padding.

    Images get zeros on the right and below up to their largest height and width, rounded up.

    Args:
        multiple: Of which both are then multiples.
    """

    def __init__(self, multiple: int) -> None:
        super().__init__(1, 1, [], [], size_divisible=multiple)

    def normalize(self, image: Tensor) -> Tensor:
        return image

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        return image, target
