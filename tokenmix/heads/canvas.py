"""A batch from images of several sizes."""

from __future__ import annotations

from typing import Any

from torchvision.models.detection.transform import GeneralizedRCNNTransform

# Torchvision's detectors normalise and resize; here the data room has done that, and only the padding is left.
PADDING_ONLY: dict[str, Any] = {
    "min_size": 1,
    "max_size": 1,
    "image_mean": [0.0, 0.0, 0.0],
    "image_std": [1.0, 1.0, 1.0],
    "_skip_resize": True,
}


def canvas(multiple: int) -> GeneralizedRCNNTransform:
    """Pads images with zeros on the right and below to their largest height and width, and those to a ``multiple``."""
    return GeneralizedRCNNTransform(**PADDING_ONLY, size_divisible=multiple)
