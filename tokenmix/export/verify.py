"""Does an exported file compute what the model computes? Measured in its runtime."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

TOLERANCES = {"fp32": 1e-3, "fp16": 2e-2, "int8": 0.5}
"""Relative error that is accepted by default, per precision. Float32 files of deep networks differ by about 1e-6 to
1e-4, by the order of their sums; half precision has three decimals; eight bits keep the answers, not the values."""
AGREEMENT = 95.0  # percent of the detections that file and model must share
SAME_BOX = 0.9  # overlap (intersection over union) of a detection with itself


class VerificationError(ValueError):
    """An exported file does not compute what its model computes."""


def compare(
    names: Sequence[str], found: Sequence[Sequence[np.ndarray]], expected: Sequence[Sequence[Tensor]]
) -> dict[str, float]:
    """The differences between a file's outputs and its model's.

    Args:
        names: Of the outputs; they say what is compared.
        found: Per batch, the file's outputs.
        expected: Per batch, PyTorch's.

    Returns:
        ``max_error``: largest absolute difference. ``relative_error``: the same over the largest absolute value of that
        output, the larger one of several outputs. Both are infinite where either side is not finite. And, in percent,
        ``top1_agreement`` (how often both name the same class), ``pixel_agreement`` (the same of each pixel) or
        ``detection_agreement`` (the detections that both have, of the side with more of them; the errors are theirs).

    Raises:
        VerificationError: The outputs have different numbers or shapes.
    """
    pairs = [
        [(torch.from_numpy(np.asarray(a)), b.cpu()) for a, b in zip(one, other, strict=True)]
        for one, other in zip(found, expected, strict=True)
    ]
    if "labels" in names:
        return _compare_detections(pairs)
    for batch in pairs:
        for name, (a, b) in zip(names, batch, strict=True):
            if a.shape != b.shape:
                raise VerificationError(
                    f"{name} has shape {tuple(a.shape)} in the file and {tuple(b.shape)} in PyTorch"
                )
    if "classes" in names:
        equal = (
            torch.cat([(a.long() == b.long()).flatten() for batch in pairs for a, b in batch]).double().mean().item()
        )
        return {"max_error": 1.0 - equal, "relative_error": 1.0 - equal, "pixel_agreement": 100.0 * equal}
    numbers = [_errors([batch[i] for batch in pairs]) for i in range(len(names))]
    result = {key: max(one[key] for one in numbers) for key in ("max_error", "relative_error")}
    if "boxes" not in names:
        agree = _share([a.argmax(1) == b.argmax(1) for ((a, b),) in pairs])
        result["top1_agreement" if pairs[0][0][1].ndim == 2 else "pixel_agreement"] = 100.0 * agree
    return result


def _errors(pairs: Sequence[tuple[Tensor, Tensor]]) -> dict[str, float]:
    error = max((_largest(a.double() - b.double()) for a, b in pairs), default=0.0)
    scale = max((_largest(b.double()) for _, b in pairs), default=0.0)
    relative = error / max(scale, torch.finfo(torch.float32).tiny)
    return {
        "max_error": error if math.isfinite(error) else math.inf,
        "relative_error": relative if math.isfinite(relative) else math.inf,
    }


def _share(equal: Sequence[Tensor]) -> float:
    return torch.cat([one.flatten() for one in equal]).double().mean().item()


def _largest(x: Tensor) -> float:
    return x.abs().max().item() if x.numel() else 0.0


def _compare_detections(pairs: Sequence[Sequence[tuple[Tensor, Tensor]]]) -> dict[str, float]:
    """Detections are found again by label and place, each once: their order and number hang on ties."""
    again, total, matched = 0, 0, []
    for batch in pairs:
        real = batch[1][0] > 0  # files of fixed shapes fill up with scores of zero
        mine, theirs = [a[real] for a, _ in batch], [b for _, b in batch]
        total += max(len(mine[0]), len(theirs[0]))
        rows, partners = _partners(mine, theirs)
        again += len(rows)
        matched.append([(a[partners], b[rows]) for a, b in zip(mine, theirs, strict=True)])
    numbers = [_errors([one[i] for one in matched]) for i in range(len(pairs[0]))]
    result = {key: max(one[key] for one in numbers) for key in ("max_error", "relative_error")}
    return {**result, "detections": total, "detection_agreement": 100.0 * again / total if total else 100.0}


def _partners(mine: Sequence[Tensor], theirs: Sequence[Tensor]) -> tuple[list[int], list[int]]:
    """Rows of ``theirs`` that ``mine`` has too, and where: of several at one place, the one with the nearest score."""
    # A pixel wider: a box pushed out of the picture is cut to none at its border and would overlap nothing, not itself.
    grown = [side[0].double() + torch.tensor([0, 0, 1, 1]) for side in (theirs, mine)]
    same = (box_iou(*grown) >= SAME_BOX) & (theirs[2].long()[:, None] == mine[2].long())
    apart = (theirs[1].double()[:, None] - mine[1].double()).abs().where(same, math.inf)
    rows, partners = [], []
    for row in range(len(apart)):
        if apart.shape[1] and apart[row].min() < math.inf:
            rows.append(row)
            partners.append(int(apart[row].argmin()))
            apart[:, partners[-1]] = math.inf
    return rows, partners


def check(result: Mapping[str, Any], *, tolerance: float = TOLERANCES["fp32"], name: str = "the exported file") -> None:
    """Raise unless a result of `compare` is within the tolerance.

    Args:
        result: What `compare` returned.
        tolerance: Largest relative error to accept.
        name: What was checked, for the message.

    Raises:
        VerificationError: The relative error is larger, or detections are not shared; the message names the numbers.
    """
    agreement = {key: value for key, value in result.items() if key.endswith("_agreement")}
    told = "".join(f", {key.removesuffix('_agreement')} agreement {value:.1f} %" for key, value in agreement.items())
    if not result["relative_error"] <= tolerance:
        raise VerificationError(
            f"{name} differs from the PyTorch model: relative error {result['relative_error']:.3g} is above the "
            f"tolerance {tolerance:g} (largest absolute error {result['max_error']:.3g}{told})"
        )
    if result.get("detection_agreement", 100.0) < AGREEMENT:
        raise VerificationError(f"{name} finds other objects than the PyTorch model{told}")
