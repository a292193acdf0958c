"""int8 files: the promise holds on all calibration pictures, and what does not pay is said first."""

from __future__ import annotations

import pytest

from tokenmix.cli.export_command import warnings
from tokenmix.export.errors import ExportError
from tokenmix.export.quantize import enforce

NOISE = {"a": 1e-4, "b": 5e-4, "c": 2e-3, "d": 1e-5}


def noise(parts: list[str]) -> float:
    return sum(NOISE[part] for part in parts)


def test_the_promise_holds_on_all_pictures() -> None:
    chosen = ["a", "b", "c", "d"]
    assert enforce(chosen, noise, noise, target_db=25.0) == (chosen, pytest.approx(2.61e-3))
    kept, found = enforce(chosen, noise, lambda parts: 2 * noise(parts), target_db=25.0)
    assert kept == ["a", "b", "d"]  # the loudest goes first
    assert found <= 10**-2.5
    with pytest.raises(ExportError, match="for all calibration images"):
        enforce(chosen, noise, lambda parts: 1.0, target_db=25.0)


def test_what_does_not_pay_is_said_first() -> None:
    good = {"precision": "int8", "latency_ms": [2.0, 1.1], "errors": {"top1": [90.0, 89.5]}}
    assert warnings(good) == []
    (slow,) = warnings(good | {"latency_ms": [1.1, 2.0], "slow_because": "its layers are small"})
    assert slow.startswith(
        "int8 does not pay here: 1.10 ms in float, 2.00 ms in int8 (one thread, ONNX Runtime), since its"
    )
    assert "--to openvino" in slow
    assert "fp16" in slow
    (slow,) = warnings(good | {"latency_ms": [1.1, 2.0], "slow_because": "it is", "latency_in": "OpenVINO"})
    assert "(one thread, OpenVINO)" in slow
    assert "--to onnx" in slow
    (loss,) = warnings(good | {"errors": {"top1": [90.0, 84.0]}})
    assert loss.startswith("int8 loses 6.0 points of top-1")
    assert warnings({"precision": "fp32", "errors": {}}) == []
