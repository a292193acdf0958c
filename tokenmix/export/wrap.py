"""What goes around a model in its file: preparation of the picture before it, reading of its outputs after it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tokenmix.checkpoints import LoadedModel
from tokenmix.export.detect import DETECT, Padded
from tokenmix.heads import Raw
from tokenmix.names import unknown
from tokenmix.runtime.preprocess import CROP_MODES

# What can be inside a file, and the tasks whose files can hold it; None: all.
PARTS: dict[str, tuple[str, ...] | None] = {
    "resize": ("classification",),
    "normalize": None,
    "softmax": ("classification",),
    "argmax": ("segmentation",),
    "nms": ("detection", "instances"),
}
OUTPUTS = {
    "classification": ("logits",),
    "softmax": ("probabilities",),
    "segmentation": ("logits",),
    "argmax": ("classes",),
    "detection": ("scores", "boxes"),
    "nms": ("boxes", "scores", "labels"),
    "instances": ("boxes", "scores", "labels", "masks"),
}


class Normalize(nn.Module):
    """``(B, C, H, W)`` of 0..255 -> the same, less ``mean`` and over ``std``, which are of 0..1."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        means, stds = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
        self.register_buffer("scale", 1 / (255 * stds))
        self.register_buffer("shift", -means / stds)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


class Resize(nn.Module):
    """``(B, C, h, w)``, any size -> ``(B, C, H, W)``: `tokenmix.data.resize_and_crop` as two matrix products.

    A product has an exact meaning in every runtime, which resize operators have not. Pillow, which training uses,
    rounds to whole grey levels twice on the way; this does not.

    Args:
        image_size: H and W.
        crop_pct: The part that the crop keeps.
        interpolation: ``"bicubic"`` or ``"bilinear"``, both smoothed where the picture shrinks.
        crop_mode: ``"center"`` or ``"squash"``.
    """

    def __init__(self, image_size: tuple[int, int], crop_pct: float, interpolation: str, crop_mode: str) -> None:
        super().__init__()
        self.image_size, self.crop_pct = image_size, crop_pct
        self.cubic, self.squash = interpolation == "bicubic", crop_mode == "squash"

    def forward(self, x: Tensor) -> Tensor:
        # As numbers ONNX cannot take dynamic sizes.
        height, width = (torch.full([], x.size(axis), dtype=torch.int64) for axis in (-2, -1))
        least_height, least_width = (int(side / self.crop_pct) for side in self.image_size)
        tall, wide = torch.full_like(height, least_height), torch.full_like(width, least_width)
        if not self.squash:
            flat = least_height * width >= least_width * height  # the height decides
            tall, wide = (
                torch.where(flat, tall, (least_width * height // width).clamp(min=least_height)),
                torch.where(flat, (least_height * width // height).clamp(min=least_width), wide),
            )
        rows = self._weights(x, -2, height, tall, self.image_size[0])
        columns = self._weights(x, -1, width, wide, self.image_size[1])
        # Along the rows first, and cubic overshoot cut off after each pass, as Pillow does.
        return (rows @ (x @ columns.t()).clamp(0, 255)).clamp(0, 255)

    def _weights(self, x: Tensor, axis: int, before: Tensor, resized: Tensor, kept: int) -> Tensor:
        """``(kept, size before)``: the weight of each pixel in each pixel of the crop from the resized side."""
        scale = before.to(x.dtype) / resized
        start = torch.round((resized - kept) / 2)
        centre = (torch.arange(kept, dtype=x.dtype) + start + 0.5)[:, None] * scale
        distance = (torch.arange(x.size(axis), dtype=x.dtype) + 0.5 - centre).abs() / scale.clamp(min=1)
        if self.cubic:  # Keys' kernel with Pillow's coefficient
            near = (1.5 * distance - 2.5) * distance.square() + 1
            far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
            weights = torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))
        else:
            weights = (1 - distance).clamp(min=0)
        return weights / weights.sum(1, keepdim=True)


class Argmax(nn.Module):
    """``(B, C, H, W) -> (B, H, W)`` int32: a segmenter's class of each pixel."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).argmax(1).int()


def check_inside(opened: LoadedModel, inside: Sequence[str]) -> tuple[str, ...]:
    """The parts in their order, without doubles; resizing brings normalising with it.

    Raises:
        ValueError: A part is unknown or does not fit the model.
    """
    for part in inside:
        if part not in PARTS:
            raise ValueError(unknown("part inside the file", part, PARTS))
        tasks = PARTS[part]
        if tasks is not None and opened.task not in tasks:
            fitting = [name for name, own in PARTS.items() if own is None or opened.task in own]
            raise ValueError(
                f"{part!r} cannot be inside a file for {opened.task}, only inside one for {' or '.join(tasks)}; what "
                f"can be is {', '.join(fitting)}"
            )
    if "resize" in inside and opened.crop_mode not in CROP_MODES:
        raise ValueError(f"'resize' cannot be inside: pictures for this model are prepared by {opened.crop_mode!r}")
    asked = {*inside, "normalize"} if "resize" in inside else set(inside)
    return tuple(part for part in PARTS if part in asked)


def wrap(opened: LoadedModel, image_size: tuple[int, int], inside: Sequence[str]) -> tuple[nn.Module, tuple[str, ...]]:
    """A model as its file shall compute it, sharing its weights, and the names of its outputs.

    Args:
        opened: The model, in evaluation mode.
        image_size: Height and width that it sees.
        inside: Names of `PARTS`; detectors with a second stage always have ``nms``.
    """
    model: Any = opened.model
    parts: dict[str, nn.Module] = {}
    if "resize" in inside:
        parts["resize"] = Resize(image_size, opened.crop_pct, opened.interpolation, opened.crop_mode)
    if "normalize" in inside:
        parts["normalize"] = Normalize(opened.mean, opened.std)
    kind = next((part for part in ("softmax", "argmax", "nms") if part in inside), opened.task)
    if opened.task == "instances":
        kind = "instances"
    if kind == "argmax":
        parts["model"] = Argmax(model)
    elif kind == "segmentation":
        parts["model"] = Raw(model)
    elif kind in ("nms", "instances"):
        parts["model"] = DETECT[str(opened.head)](model)
    elif kind == "detection":
        parts["model"] = Padded(Raw(model), model.transform.size_divisible)
    else:
        parts["model"] = model
    if kind == "softmax":
        parts["softmax"] = nn.Softmax(1)
    whole = nn.Sequential(OrderedDict(parts)) if len(parts) > 1 else parts["model"]
    return whole, OUTPUTS[kind]
