"""Detection and instance segmentation: boxes, and perhaps masks, with a class and a score."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.metrics import CocoAP
from tokenmix.tasks.objective import Batch, Objective

_MOST_PIXELS = 2**24  # of masks that are enlarged at once: 64 megabytes


class DetectionObjective(Objective):
    """image: list of (3, h, w); target: list of torchvision's dicts -> the sum of the detector's losses.

    Args:
        model: As torchvision's detectors: (images, targets) -> a dict of scalar losses in training; images -> a list of
            dicts of ``boxes`` (N, 4) left, top, right, bottom in the image's pixels, ``labels`` (N,) from 1 on and
            ``scores`` (N,) in evaluation. The images are normalised already and have their size.
        num_classes: K, without the background.

    Raises:
        ValueError: In use, if the model returns something else.
    """

    masks = False

    def __init__(self, model: nn.Module, *, num_classes: int) -> None:
        super().__init__()
        self.model = model
        self.num_classes = num_classes

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """``loss`` and each of its parts."""
        losses = self.model(list(batch["image"]), list(batch["target"]))
        if not isinstance(losses, dict) or not losses:
            raise ValueError("in training a detector must return a dict of losses, as torchvision's do")
        parts = {name: value.detach() for name, value in losses.items()}
        return {"loss": torch.stack(list(losses.values())).sum(), **parts}

    def predict(self, batch: Batch) -> list[dict[str, Tensor]]:
        """Of each image what was found, in the pixels of the stored image where the batch says its ``size``.

        ``masks`` (N, 1, H, W) are probabilities, or booleans where they were enlarged to that size. The model sees each
        image by itself: padded to the size of others it would find other things, and which others, depends on the
        number of processes.
        """
        images, found = list(batch["image"]), []
        for image in images:
            told = self.model([image])
            if not isinstance(told, list) or len(told) != 1:
                raise ValueError(
                    "in evaluation a detector must return a list of dicts, one per image, as torchvision's do"
                )
            found += told
        if "size" not in batch:
            return found
        return [
            enlarged(one, image.shape[-2:], size)
            for one, image, size in zip(found, images, batch["size"].tolist(), strict=True)
        ]

    def metric(self) -> CocoAP:
        """COCO's average precision in percent."""
        return CocoAP(self.num_classes, masks=self.masks)


class InstancesObjective(DetectionObjective):
    """The same with masks: targets have ``masks`` (N, h, w), predictions (N, 1, h, w) probabilities."""

    masks = True


def enlarged(found: dict[str, Tensor], seen: torch.Size, size: list[int]) -> dict[str, Tensor]:
    """Detections in an image of the size ``seen`` -> those in the image of ``size``, (height, width).

    Masks become booleans, a few at a time: a hundred probabilities of 24 megapixels would take ten gigabytes.
    """
    if list(seen) == size:
        return found
    down, right = size[0] / seen[0], size[1] / seen[1]
    changed = {**found, "boxes": found["boxes"] * found["boxes"].new_tensor([right, down, right, down])}
    if "masks" in found:
        changed["masks"] = found["masks"].new_zeros(len(found["masks"]), 1, *size, dtype=torch.bool)
        count = max(1, _MOST_PIXELS // (size[0] * size[1]))
        for masks, large in zip(found["masks"].split(count), changed["masks"].split(count), strict=True):
            if len(masks):
                large.copy_(F.interpolate(masks.float(), size, mode="bilinear") > 0.5)
    return changed
