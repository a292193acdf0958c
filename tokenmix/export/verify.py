"""Does an exported file compute what the model computes? Measured in its runtime, judged by the task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenmix.tasks.file_form import VerificationError

TOLERANCES = {"fp32": 1e-3, "fp16": 2e-2, "int8": 0.5}
"""Relative error that is accepted by default, per precision. Float32 files of deep networks differ by about 1e-6 to
1e-4, by the order of their sums; half precision has three decimals; eight bits keep the answers, not the values."""


def check(
    result: Mapping[str, Any],
    *,
    tolerance: float = TOLERANCES["fp32"],
    disagreement: str = "",
    name: str = "the exported file",
) -> None:
    """Raise unless a file's differences from its model are within the tolerance.

    Args:
        result: What `tokenmix.tasks.file_form.FileForm.compare` returned.
        tolerance: Largest relative error to accept.
        disagreement: What its ``disagreement`` says of that.
        name: What was checked, for the message.

    Raises:
        VerificationError: The relative error is larger, or there is a disagreement; the message names the numbers.
    """
    agreement = {key: value for key, value in result.items() if key.endswith("_agreement")}
    told = "".join(f", {key.removesuffix('_agreement')} agreement {value:.1f} %" for key, value in agreement.items())
    if not result["relative_error"] <= tolerance:
        raise VerificationError(
            f"{name} differs from the PyTorch model: relative error {result['relative_error']:.3g} is above the "
            f"tolerance {tolerance:g} (largest absolute error {result['max_error']:.3g}{told})"
        )
    if disagreement:
        raise VerificationError(f"{name} {disagreement}{told}")
