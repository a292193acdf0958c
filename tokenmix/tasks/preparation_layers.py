"""The preparation of a picture as layers, for files that do it themselves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


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
