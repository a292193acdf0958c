"""Models of pictures as files, which may prepare the pictures themselves."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from tokenmix.data.prepare import normalise
from tokenmix.tasks.example_pictures import bundled_pictures, readable
from tokenmix.tasks.file_form import FileForm, Inputs
from tokenmix.tasks.preparation_layers import Normalize, Resize
from tokenmix_runtime.images import open_image
from tokenmix_runtime.preprocess import CROP_MODES, resize_and_crop


class PictureForm(FileForm):
    """A model of pictures (N, C, H, W) as a file.

    ``"resize"`` inside takes pictures of any size, and brings ``"normalize"``, which takes values of 0..255.
    """

    size_axes: ClassVar[Mapping[int, str]] = {2: "height", 3: "width"}

    def __init__(
        self, task: Any, loaded: Any, image_size: tuple[int, int] | None = None, inside: Sequence[str] = ()
    ) -> None:
        if "resize" in inside:
            if loaded.crop_mode not in CROP_MODES:
                raise ValueError(
                    f"'resize' cannot be inside: pictures for this model are prepared by {loaded.crop_mode!r}"
                )
            inside = [part for part in task.file_parts if part in {*inside, "normalize"}]
        super().__init__(task, loaded, image_size, inside)

    @property
    def samples(self) -> str:
        return "{} of {} x {} pixels".format(self.task.noun, *self.image_size)

    @property
    def any_size(self) -> bool:
        return "resize" in self.inside

    def layers(self, fixed_shapes: bool) -> dict[str, nn.Module]:
        """The network, and what reads its outputs if that is inside: one after the other, by names of their own."""
        return {"model": self.task.raw_form(self.loaded.model)}

    def module(self, *, fixed_shapes: bool = False) -> nn.Module:
        loaded, parts = self.loaded, OrderedDict[str, nn.Module]()
        if "resize" in self.inside:
            parts["resize"] = Resize(self.image_size, loaded.crop_pct, loaded.interpolation, loaded.crop_mode)
        if "normalize" in self.inside:
            parts["normalize"] = Normalize(loaded.mean, loaded.std)
        parts |= self.layers(fixed_shapes)
        return nn.Sequential(parts) if len(parts) > 1 else next(iter(parts.values()))

    def example(self, count: int) -> Tensor:
        height, width = (2 * side + 1 for side in self.image_size) if self.any_size else self.image_size
        return self.task.example_inputs(self.loaded, count, (height, width))

    def inputs(self, source: Any) -> Inputs:
        """Inputs ready for the file, picture files, folders of them; None: photographs that libraries bring, or noise.

        Files that cannot be read are left out with a warning.

        Raises:
            ValueError: There are no pictures, or none can be read.
        """
        if isinstance(source, Tensor):
            if source.ndim != 4 or not len(source):
                raise ValueError(f"images must be pictures (N, C, H, W), not of shape {tuple(source.shape)}")
            return Inputs(list(source.detach().cpu().float().split(1)), "tensor")
        if source:
            files = readable(source)
            return Inputs([self.prepared(open_image(path)) for path in files], "files", self.truth_of(files))
        if found := [self.prepared(image) for image in bundled_pictures()]:
            return Inputs(found, "photographs")
        noise = 255 * torch.rand(4, len(self.loaded.mean), *self.image_size, generator=torch.Generator().manual_seed(0))
        return Inputs(list(self._normalised(noise).split(1)), "noise")

    def truth_of(self, files: Sequence[Any]) -> list[Any] | None:
        """What a model should say of each of these picture files; None where nobody knows."""
        return None

    def prepared(self, image: Image.Image) -> Tensor:
        """``(1, 3, H, W)``: a picture as the file takes it, squeezed into the size where its shape would be kept."""
        image = image.convert("RGB")
        if "resize" not in self.inside:
            mode = self.loaded.crop_mode if self.loaded.crop_mode in CROP_MODES else "squash"
            kind: dict[str, Any] = {"crop_pct": self.loaded.crop_pct, "interpolation": self.loaded.interpolation}
            image = resize_and_crop(image, self.image_size, crop_mode=mode, **kind)
        return self._normalised(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None])

    def _normalised(self, pixels: Tensor) -> Tensor:
        if "normalize" in self.inside:
            return pixels.float()
        return normalise(pixels, self.loaded.mean, self.loaded.std)

    def reading(self) -> dict[str, Any]:
        """How the outputs are read, see `FileForm.description`; ``multiple``: of how many pixels sides are made."""
        raise NotImplementedError

    def description(self) -> dict[str, Any]:
        loaded = self.loaded
        return {
            "labels": None if loaded.classes is None else list(loaded.classes),
            "preprocess": {
                "image_size": list(self.image_size),
                "mean": list(loaded.mean),
                "std": list(loaded.std),
                "crop_pct": loaded.crop_pct,
                "crop_mode": loaded.crop_mode,
                "interpolation": loaded.interpolation,
                "inside": [part for part in self.inside if part in ("resize", "normalize")],
            },
            "postprocess": self.reading(),
        }
