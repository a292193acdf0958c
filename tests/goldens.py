"""Golden outputs of the three official implementations, and the seeded checkpoints and inputs that they belong to.

A golden file holds the shape of every entry of the official state dict, not its values: those are drawn anew here. Each
entry has its own generator, seeded with the CRC-32 of its name, and one draw in C order whose distribution follows from
name and shape. All expected numbers are float64 results of float32 weights, written with 7 significant digits.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

FOLDER = Path(__file__).parent / "golden"
FLOAT64_TOLERANCE = 1e-6
FLOAT32_FACTOR = 20.0


def names(family: str | None = None, task: str | None = None) -> list[str]:
    """Names of the golden files at hand, optionally of one family or one task (``classification``, ``features``)."""
    found = sorted(path.stem for path in FOLDER.glob("*.json"))
    wanted = [name for name in found if family is None or load(name)["family"] == family]
    return [name for name in wanted if task is None or load(name)["task"] == task]


@cache
def load(name: str) -> dict[str, Any]:
    """The golden file ``name``; shared between callers, so leave it unchanged."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def state_dict(golden: Mapping[str, Any]) -> dict[str, Tensor]:
    """The official checkpoint of a golden file, float32, in the official order."""
    return {key: _entry(key, tuple(shape)) for key, shape in golden["manifest"].items()}


def inputs(golden: Mapping[str, Any]) -> Tensor:
    """The images that the expected outputs belong to, float32 ``(B, 3, H, W)``, standard normal."""
    draw = _generator(golden["input_seed"]).standard_normal(tuple(golden["input_shape"]))
    return _float32(draw)


def outputs(golden: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The expected tensors of a golden file in order: one for a classifier, one per level for a feature backbone."""
    return [golden["output"]] if "output" in golden else list(golden["outputs"].values())


def macs(model: nn.Module, shape: Sequence[int]) -> int:
    """Multiply-adds of convolutions and matrix products for one image ``(1, C, H, W)``; Fourier transforms are free."""
    reference = next(model.parameters())
    forms = {module: module.form for module in model.modules() if isinstance(getattr(module, "form", None), str)}
    for module in forms:
        module.form = "fft"
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros((1, *shape[1:]), dtype=reference.dtype, device=reference.device))
    for module, form in forms.items():
        module.form = form
    return counter.get_total_flops() // 2


def assert_matches(
    tensor: Tensor, golden: Mapping[str, Any], dtype: torch.dtype, *, tolerance: float | None = None
) -> None:
    """Compare with one expected tensor of a golden file: all values or the sampled ones, and the whole's statistics.

    Args:
        tensor: What was computed.
        golden: ``output``, one of ``outputs``, of ``intermediates`` or of ``fused["sampled_fused_weights"]``.
        dtype: What the computation ran in; float64 allows 1e-6 of the largest value, float32 20 times the difference
            that the official float32 run had.
        tolerance: Another limit, needed in float32 where the file states none.
    """
    assert list(tensor.shape) == list(golden["shape"]), f"shape {list(tensor.shape)}, expected {golden['shape']}"
    assert tensor.dtype == dtype, f"{tensor.dtype}, expected {dtype}"
    if tolerance is None:
        tolerance = FLOAT64_TOLERANCE if dtype == torch.float64 else FLOAT32_FACTOR * golden["float32_max_rel_diff"]
    ours = tensor.detach().to("cpu", torch.float64).reshape(-1)
    assert bool(torch.isfinite(ours).all()), "not finite"
    scale = max(abs(golden["min"]), abs(golden["max"]))
    expected = torch.tensor(golden["values"], dtype=torch.float64).reshape(-1)
    sampled = ours[golden["indices"]] if "indices" in golden else ours
    differences = {
        "values": float((sampled - expected).abs().max()) / scale,
        "mean": abs(float(ours.mean()) - golden["mean"]) / scale,
        "std": abs(float(ours.std(correction=0)) - golden["std"]) / scale,
        "min": abs(float(ours.min()) - golden["min"]) / scale,
        "max": abs(float(ours.max()) - golden["max"]) / scale,
        "l2": abs(float(ours.norm()) / golden["l2"] - 1.0),
    }
    wrong = {name: value for name, value in differences.items() if not value < tolerance}
    assert not wrong, f"relative differences {wrong}, allowed {tolerance:.1e}"


def _generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def _float32(values: Any) -> Tensor:
    return torch.from_numpy(np.asarray(values).astype(np.float32))


def _entry(key: str, shape: tuple[int, ...]) -> Tensor:
    """One tensor of a checkpoint."""
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    generator = _generator(zlib.crc32(key.encode()))
    interval = _interval(key, leaf, shape)
    if interval is not None:
        low, high = interval
        return _float32(low + (high - low) * generator.random(shape))
    return _float32(generator.standard_normal(shape) * _std(key, leaf, shape))


def _interval(key: str, leaf: str, shape: tuple[int, ...]) -> tuple[float, float] | None:
    """Bounds of the entries that are drawn uniformly, None for the normally distributed ones."""
    if leaf == "running_var":
        return 0.5, 1.5
    if leaf == "layer_scale":
        return 0.2, 0.8
    if key.endswith(("act.weight", "act2.weight")):  # slopes of PReLU
        return 0.1, 0.4
    if leaf.endswith("weight") and len(shape) <= 1:  # scales of norms
        return 0.5, 1.5
    return None


def _std(key: str, leaf: str, shape: tuple[int, ...]) -> float:
    if leaf in ("running_mean", "b1", "b2") or leaf.endswith("bias"):
        return 0.1
    if leaf in ("w1", "w2") and len(shape) == 4:  # complex block-diagonal maps: (2, blocks, in, out)
        return 0.4 / math.sqrt(2 * shape[2])
    if not leaf.endswith("weight"):
        raise ValueError(f"no rule for the golden entry {key!r} of shape {shape}")
    if ".block.conv." in key:
        gain = 1.2
    elif key.endswith((".fc2.weight", ".network.4.weight", ".channel_mixer.3.weight")):
        gain = 0.4  # the end of a residual branch
    elif len(shape) >= 3 and shape[1] == 1:
        gain = 0.5  # depthwise
    else:
        gain = 1.0
    return gain / math.sqrt(math.prod(shape[1:]))
