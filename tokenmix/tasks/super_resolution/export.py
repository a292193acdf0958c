"""Networks that enlarge pictures as files for other runtimes."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tokenmix.tasks.example_pictures import bundled_pictures, readable
from tokenmix.tasks.file_form import FileForm, Inputs
from tokenmix.tasks.super_resolution.receptive import receptive_radii
from tokenmix_runtime.images import open_image


class EnlargingForm(FileForm):
    """``(N, 3, H, W)`` in 0..1 -> ``(N, 3, s H, s W)``, not clamped."""

    size_axes: ClassVar[Mapping[int, str]] = {2: "height", 3: "width"}

    @property
    def open_size(self) -> bool:
        return self._radius is not None  # what sees the whole picture has constants of one size

    @functools.cached_property
    def _radius(self) -> int | None:
        """How far the network looks, in pixels; None: it sees the whole picture."""
        radii = receptive_radii(self.loaded.model)
        return None if radii is None else sum(radii)

    @property
    def title(self) -> str:
        return f"{self.loaded.name} x{self.loaded.model.scale}"

    @property
    def samples(self) -> str:
        return "{} of {} x {} pixels".format(self.task.noun, *self.image_size)

    @property
    def outputs(self) -> tuple[str, ...]:
        return ("enlarged",)

    def open_axes(self, output: str, open_size: bool) -> Mapping[int, str]:
        return {2: "rows", 3: "columns"} if open_size else {}

    def inputs(self, source: Any) -> Inputs:
        """Inputs ready for the file, or the middles of picture files or of photographs that libraries bring; or noise.

        Raises:
            ValueError: There are no pictures, or none can be read.
        """
        if isinstance(source, Tensor):
            return super().inputs(source)
        if source:
            return Inputs([self._middle(open_image(path)) for path in readable(source)], "files")
        found = [self._middle(picture) for picture in bundled_pictures()]
        return Inputs(found, "photographs") if found else super().inputs(None)

    def _middle(self, picture: Image.Image) -> Tensor:
        """``(1, 3, H, W)``: the middle of a picture, or one that is too small continued by its mirror image."""
        height, width = self.image_size
        pixels = np.asarray(picture.convert("RGB"))
        top, left = (max(0, (side - wanted) // 2) for side, wanted in zip(pixels.shape, (height, width), strict=False))
        pixels = pixels[top : top + height, left : left + width]
        missing = [(0, wanted - side) for side, wanted in zip(pixels.shape, (height, width), strict=False)]
        pixels = np.pad(pixels, [*missing, (0, 0)], mode="symmetric")
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255

    def description(self) -> dict[str, Any]:
        return {
            "labels": None,
            "preprocess": {
                "image_size": list(self.image_size),
                "mean": [0.0, 0.0, 0.0],
                "std": [1.0, 1.0, 1.0],
                "crop_pct": 1.0,
                "crop_mode": "none",
                "interpolation": "bicubic",
                "inside": [],
            },
            "postprocess": {
                "kind": "enlarged",
                "inside": False,
                "multiple": 1,
                "scale": self.loaded.model.scale,
                "radius": self._radius,
            },
        }
