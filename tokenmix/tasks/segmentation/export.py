"""Segmenters as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from tokenmix.tasks.dense.export import DenseForm
from tokenmix.tasks.file_form import Outputs, agreement, differences


class Argmax(nn.Module):
    """``(N, C, H, W) -> (N, H, W)`` int32: a segmenter's class of each pixel."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).argmax(1).int()


class SegmenterForm(DenseForm):
    """``(N, C, H, W)`` -> logits ``(N, K, h, w)`` of the head's own size, or with ``"argmax"`` inside classes."""

    @property
    def read_inside(self) -> bool:
        return "argmax" in self.inside

    @property
    def outputs(self) -> tuple[str, ...]:
        return ("classes",) if self.read_inside else self.head.outputs

    def layers(self, fixed_shapes: bool) -> dict[str, nn.Module]:
        return {"model": Argmax(self.loaded.model)} if self.read_inside else super().layers(fixed_shapes)

    def open_axes(self, output: str, open_size: bool) -> Mapping[int, str]:
        if not open_size:
            return {}
        return {1: "height", 2: "width"} if self.read_inside else {2: "rows", 3: "columns"}

    def compare(self, found: Sequence[Outputs], expected: Sequence[Outputs]) -> dict[str, float]:
        """As `FileForm.compare`; classes differ by the share of the pixels that do."""
        numbers = differences(self.outputs, found, expected)
        classes = [[one if self.read_inside else one.argmax(1) for (one,) in outputs] for outputs in (found, expected)]
        equal = agreement(*classes)
        if self.read_inside:
            numbers = dict.fromkeys(("max_error", "relative_error"), 1.0 - equal / 100)
        return {**numbers, "pixel_agreement": equal}
