"""Semantic segmentation: a class for each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.metrics import SegmentationOverlap
from tokenmix.tasks.dense.sets import IGNORED
from tokenmix.tasks.objective import Batch, Objective

_MOST_SCORES = 2**24  # numbers of a whole image that are enlarged at once: 64 megabytes
_STRIP_SCORES = 2**22  # of a strip of a larger one: room for it is left where the network has computed


class SegmentationObjective(Objective):
    """image (B, 3, H, W), label (B, H, W) int64, 255 ignored -> cross-entropy, of an auxiliary head too.

    The loss is the sum over the labelled pixels over the number of all pixels, so that the parts of a batch, on several
    processes or after one another, add up to the whole; mmsegmentation's default divides so too.

    Prediction: each image by itself, whole or, with ``window``, by windows that overlap and whose logits are averaged;
    the logits are resized to the size of the stored image. With several ``scales``, or ``mirror``, the probabilities of
    the variants are averaged.

    Args:
        model: (B, 3, H, W) -> (B, K, H, W) logits, or a dict of such: ``out``, and ``aux`` in training.
        num_classes: K.
        aux_weight: Of the auxiliary head's loss.
        scales: Factors on the image's sides.
        mirror: Whether to look at the mirrored image too.
        window: (height, width) in pixels, or one number; None: the whole image.
        stride: How far from window to window; None: two thirds of it, rounded up.

    Raises:
        ValueError: An argument out of range; in use, if the model's logits do not have K channels.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        num_classes: int,
        aux_weight: float = 0.4,
        scales: Sequence[float] = (1.0,),
        mirror: bool = False,
        window: int | Sequence[int] | None = None,
        stride: int | Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if not scales or min(scales) <= 0:
            raise ValueError(f"scales must be numbers above 0, not {scales!r}")
        if stride is not None and window is None:
            raise ValueError("stride is that of a window: set window too")
        self.model = model
        self.num_classes = num_classes
        self.aux_weight, self.scales, self.mirror = aux_weight, tuple(scales), mirror
        self.window = None if window is None else _pair("window", window)
        self.stride = None
        if self.window is not None:
            height, width = self.window
            self.stride = _pair("stride", stride or (-(-height * 2 // 3), -(-width * 2 // 3)))
            if self.stride[0] > height or self.stride[1] > width:
                raise ValueError(f"stride {self.stride} leaves gaps between windows of {self.window}: make it smaller")

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """``loss``, and its parts where there is an auxiliary head."""
        output: Any = self.model(batch["image"])
        if not isinstance(output, dict):
            return {"loss": self._loss(output, batch["label"])}
        loss = self._loss(output["out"], batch["label"])
        if "aux" not in output:
            return {"loss": loss}
        aux = self._loss(output["aux"], batch["label"])
        return {"loss": loss + self.aux_weight * aux, "out_loss": loss.detach(), "aux_loss": aux.detach()}

    def _loss(self, logits: Tensor, label: Tensor) -> Tensor:
        logits = self._checked(logits)
        return F.cross_entropy(logits, label, ignore_index=IGNORED, reduction="sum") / label.numel()

    def _checked(self, logits: Tensor) -> Tensor:
        """The logits in float32 at least."""
        if logits.ndim != 4 or logits.shape[1] != self.num_classes:
            raise ValueError(
                f"the model returns {tuple(logits.shape)}, but the data has {self.num_classes} classes: "
                f"build it with num_classes={self.num_classes}"
            )
        return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits

    def predict(self, batch: Batch) -> list[Tensor]:
        """Of each image the classes of its pixels, (H, W) int64, at the batch's ``size`` if it has one."""
        sizes = batch["size"].tolist() if "size" in batch else [image.shape[-2:] for image in batch["image"]]
        return [self._classes(image, size) for image, size in zip(batch["image"], sizes, strict=True)]

    def scores(self, image: Tensor, size: Sequence[int]) -> Tensor:
        """An image (3, h, w) -> (K, H, W), of ``size``: the logits, or the mean probabilities of several variants."""
        enlarged = [
            logits.flip(2) if mirrored else logits
            for small, mirrored in self._variants(image)
            for logits in F.interpolate(small, list(size), mode="bilinear")
        ]
        return enlarged[0] if len(enlarged) == 1 else _mean_probabilities(enlarged)

    def _classes(self, image: Tensor, size: Sequence[int]) -> Tensor:
        """An image (3, h, w) -> (H, W) int64; of a large one in strips, so that scores never fill the memory."""
        height, width = size
        if height * width * self.num_classes <= _MOST_SCORES:
            return self.scores(image, size).argmax(0)
        variants, step = self._variants(image), max(1, _STRIP_SCORES // (width * self.num_classes))
        classes = torch.empty(height, width, dtype=torch.int64, device=image.device)
        for top in range(0, height, step):
            rows = range(top, min(top + step, height))
            found = [_strip(logits, size, rows, mirrored) for logits, mirrored in variants]
            classes[rows.start : rows.stop] = (found[0] if len(found) == 1 else _mean_probabilities(found)).argmax(0)
        return classes

    def _variants(self, image: Tensor) -> list[tuple[Tensor, bool]]:
        """Of each variant the logits (1, K, h, w) in its own size, and whether it is mirrored."""
        variants = []
        for scale in self.scales:
            scaled = image[None]
            if scale != 1:
                sides = [max(1, round(side * scale)) for side in image.shape[-2:]]
                scaled = F.interpolate(scaled, sides, mode="bilinear", antialias=True)
            sides_seen = (False, True) if self.mirror else (False,)
            variants += [(self._logits(scaled.flip(3) if mirrored else scaled), mirrored) for mirrored in sides_seen]
        return variants

    def _logits(self, image: Tensor) -> Tensor:
        """(1, 3, H, W) -> (1, K, H, W)"""
        if self.window is None or self.stride is None:
            return self._whole(image)
        height, width = image.shape[-2:]
        total, count = image.new_zeros(1, self.num_classes, height, width), image.new_zeros(1, 1, height, width)
        for top in _places(height, self.window[0], self.stride[0]):
            for left in _places(width, self.window[1], self.stride[1]):
                rows, columns = slice(top, top + self.window[0]), slice(left, left + self.window[1])
                total[..., rows, columns] += self._whole(image[..., rows, columns])
                count[..., rows, columns] += 1
        return total / count

    def _whole(self, image: Tensor) -> Tensor:
        output: Any = self.model(image)
        return self._checked(output["out"] if isinstance(output, dict) else output)

    def metric(self) -> SegmentationOverlap:
        """mIoU, mAcc and aAcc in percent."""
        return SegmentationOverlap(self.num_classes)


def _mean_probabilities(logits: Sequence[Tensor]) -> Tensor:
    """(K, H, W) each -> (K, H, W)"""
    return torch.stack([each.softmax(0) for each in logits]).mean(0)


def _strip(logits: Tensor, size: Sequence[int], rows: range, mirrored: bool) -> Tensor:
    """(1, K, h, w) -> (K, rows, W): these rows of the logits resized to ``size``, as `F.interpolate` has them."""
    old = logits.shape[2]
    place = ((torch.arange(rows.start, rows.stop, device=logits.device) + 0.5) * (old / size[0]) - 0.5).clamp(min=0)
    first = place.long().clamp(max=old - 1)
    share = (place - first)[:, None].to(logits.dtype)
    strip = logits[:, :, first] * (1 - share) + logits[:, :, (first + 1).clamp(max=old - 1)] * share
    wide = F.interpolate(strip, [len(rows), size[1]], mode="bilinear")[0]
    return wide.flip(2) if mirrored else wide


def _places(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin so that they cover the length; the last one ends with it."""
    last = max(length - window, 0)
    return [*range(0, last, stride), last]


def _pair(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f"{name} must be a positive number of pixels or (height, width), not {value!r}")
    return int(pair[0]), int(pair[1])
