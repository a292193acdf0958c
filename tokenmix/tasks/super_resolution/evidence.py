"""Which pictures a network enlarges worst, beside bicubic interpolation, as plain data for pages and tables."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch.distributed as dist
from PIL import Image
from torch import Tensor

from tokenmix.metrics import Metric
from tokenmix.tasks.super_resolution.data import Photographs, Pixels
from tokenmix.tasks.super_resolution.metrics import compare_pictures, quantised
from tokenmix.tasks.super_resolution.resize import resize

PICTURES = 12  # that are kept, the worst
MOST = 200  # that are named with their numbers
CROP_PX = 128  # the side of what is shown of each


class PictureScores:
    """PSNR, SSIM and the gain over bicubic interpolation of every picture of an evaluation.

    Args:
        border: Pixels at each side that are not judged; None: as many as the scale.
        rounded: See `PictureQuality`.
        crops: Of how many pictures, those with the smallest gains, the worst part is kept.
    """

    def __init__(self, border: int | None = None, *, rounded: bool = True, crops: int = 0) -> None:
        self.border, self.rounded, self.crops = border, rounded, crops
        self.rows: list[dict[str, Any]] = []
        self.known: dict[int, tuple[float, float]] = {}  # bicubic's, which no training changes

    def update(self, prediction: Sequence[Tensor], batch: Mapping[str, Any]) -> None:
        """See a batch of pictures (3, H, W), its ``image``, ``target``, ``name``, ``index`` and ``mask``."""
        rows = zip(batch["index"].tolist(), batch["mask"].tolist(), batch["name"], strict=True)
        for (index, counts, name), picture, small, truth in zip(
            rows, prediction, batch["image"], batch["target"], strict=True
        ):
            if not counts:
                continue
            scale = truth.shape[-1] // small.shape[-1]
            if index not in self.known:
                self.known[index] = self._compared(_bicubic(small, scale), truth, scale)
            decibels, likeness = self._compared(picture, truth, scale)
            row = {"index": index, "name": name, "scale": scale, "psnr": decibels, "ssim": likeness}
            before, similar = self.known[index]
            row |= {"bicubic_psnr": before, "bicubic_ssim": similar, "gain": decibels - before}
            self.rows.append(row)
            if self.crops:
                row["crop"] = _worst_part(picture, truth)
                row["found"] = _encoded(_pixels(picture), row["crop"])
                for other in sorted(self.rows, key=_order)[self.crops :]:
                    other.pop("found", None)

    def _compared(self, picture: Tensor, truth: Tensor, scale: int) -> tuple[float, float]:
        border = scale if self.border is None else self.border
        decibels, likeness = compare_pictures(picture, truth, border, rounded=self.rounded)
        return min(decibels, 100.0), likeness

    def gather(self) -> list[dict[str, Any]]:
        """The rows of all processes by their ``index``; every process must call this, and the list is emptied."""
        rows, self.rows = self.rows, []
        if dist.is_available() and dist.is_initialized():
            parts: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(parts, rows)
            rows = [row for part in parts for row in part]
        return sorted(rows, key=lambda row: row["index"])


def _order(row: Mapping[str, Any]) -> tuple[float, int]:
    return row["gain"], row["index"]


def _bicubic(small: Tensor, scale: int) -> Tensor:
    """A picture (3, h, w) in 0..1 enlarged by bicubic interpolation of its 8-bit pixels."""
    return Tensor(resize(_pixels(small), scale).astype(np.float64) / 255).permute(2, 0, 1).to(small.device)


def _pixels(picture: Tensor) -> Pixels:
    return quantised(picture).permute(1, 2, 0).cpu().numpy().astype(np.uint8)


def _worst_part(picture: Tensor, truth: Tensor) -> list[int]:
    """Top, left, height and width, in pixels, of the square in which the picture differs most from the truth."""
    error = (picture - truth).double().square().sum(0).cpu().numpy()
    height, width = error.shape
    side = [min(CROP_PX, height), min(CROP_PX, width)]
    total = np.pad(error.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sums = total[side[0] :, side[1] :] - total[: -side[0], side[1] :] - total[side[0] :, : -side[1]]
    sums = sums + total[: -side[0], : -side[1]]
    top, left = np.unravel_index(int(sums.argmax()), sums.shape)
    return [int(top), int(left), *side]


def _encoded(pixels: Pixels, crop: Sequence[int]) -> str:
    """A part of a picture as a PNG file in base64."""
    top, left, height, width = crop
    file = io.BytesIO()
    Image.fromarray(pixels[top : top + height, left : left + width]).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


class PictureEvidence:
    """What a run's page shows: the pictures with the smallest gains over bicubic interpolation.

    Args:
        photographs: Those that are validated by.
        border: See `PictureScores`.
        rounded: See `PictureQuality`.
    """

    def __init__(self, photographs: Photographs, border: int | None = None, *, rounded: bool = True) -> None:
        self.photographs = photographs
        self.scores = PictureScores(border, rounded=rounded, crops=PICTURES)
        self.witnesses = (self.scores,)

    def gather(self, metric: Metric) -> dict[str, Any]:
        rows = sorted(self.scores.gather(), key=_order)
        mistakes = [row for row in rows if "found" in row][:PICTURES]
        numbers = ("name", "gain", "psnr", "ssim", "bicubic_psnr")
        pictures = [{name: row[name] for name in numbers} for row in rows[:MOST]]
        return {"kind": "pictures", "images": len(rows), "mistakes": mistakes, "pictures": pictures}

    def picture(self, entry: Mapping[str, Any]) -> tuple[bytes, bytes, bytes]:
        """PNG files of the same part: of bicubic interpolation, of the network, of the true picture."""
        low, high = self.photographs.at(entry["scale"]).picture(entry["index"])
        bicubic = _encoded(resize(np.asarray(low), entry["scale"]), entry["crop"])
        parts = (bicubic, entry["found"], _encoded(np.asarray(high), entry["crop"]))
        first, second, third = (base64.b64decode(part) for part in parts)
        return first, second, third
