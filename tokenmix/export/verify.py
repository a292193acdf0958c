"""Does an exported file compute what the model computes? Measured in its runtime, on real images."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tokenmix.export.extras import require
from tokenmix.export.prepare import evaluation_mode

TOLERANCE = 1e-3
"""Relative error that `check` accepts by default. Float32 files of deep networks differ by about 1e-6 to 1e-4, by the
order of their sums; a wrong layer differs by far more."""


class VerificationError(ValueError):
    """An exported file does not compute what its model computes."""


def onnx_session(path: str | os.PathLike[str], threads: int | None = None) -> Any:
    """An ONNX Runtime session on the CPU, with all graph optimisations.

    Args:
        path: The ONNX file.
        threads: Threads within an operator; as many as PyTorch uses by default.

    Raises:
        ImportError: onnxruntime is not installed.
        ValueError: The file is missing or is no ONNX file that this ONNX Runtime can run.
    """
    runtime = require("onnxruntime")
    if not Path(path).is_file():
        raise ValueError(f"no such file: {os.fspath(path)}")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Idle workers would spin after a run and take the cores from whatever is measured next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return runtime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has one class per status and no common public base
        raise ValueError(f"ONNX Runtime {runtime.__version__} cannot load {os.fspath(path)}: {error}") from error


def run_onnx(session: Any, images: Tensor, *, batch_size: int = 64) -> Tensor:
    """(N, C, H, W) -> (N, ...): the first output of a session, in batches that the file allows.

    Raises:
        ValueError: The images do not have the size that the file takes.
    """
    source = session.get_inputs()[0]
    wanted = source.shape
    if len(wanted) != images.ndim or any(
        isinstance(size, int) and size != given for size, given in zip(wanted[1:], images.shape[1:], strict=True)
    ):
        raise ValueError(f"images of shape {tuple(images.shape)} for an ONNX input of shape {tuple(wanted)}")
    if not len(images):
        raise ValueError("no images to run")
    fixed = wanted[0] if isinstance(wanted[0], int) else None
    array = np.ascontiguousarray(images.detach().cpu().float().numpy())
    outputs = []
    for chunk in np.split(array, range(fixed or batch_size, len(array), fixed or batch_size)):
        missing = fixed - len(chunk) if fixed else 0
        full = np.concatenate([chunk, chunk[-1:].repeat(missing, 0)]) if missing else chunk
        outputs.append(session.run(None, {source.name: full})[0][: len(chunk)])
    return torch.from_numpy(np.concatenate(outputs))


@torch.no_grad()
def verify_onnx(
    path: str | os.PathLike[str], model: nn.Module, images: Tensor, *, batch_size: int = 64
) -> dict[str, float]:
    """Compare an ONNX file with its model on images (N, C, H, W), normalised as the model wants them.

    One image is also run alone, so that a file that only works at larger batches is found out.

    Args:
        path: The ONNX file.
        model: The PyTorch model, in any mode; it is run in evaluation mode and gets its mode back.
        images: Real images: at random ones a classifier's answers are nearly ties.
        batch_size: Images per run.

    Returns:
        ``max_error``: largest absolute difference of the outputs. ``relative_error``: the same, divided by the largest
        absolute output of the model. Both are infinite where either side has a value that is not finite.
        ``top1_agreement``: how often both name the same class (largest value along dimension 1), in percent.

    Raises:
        ImportError: onnxruntime is not installed.
        ValueError: The file cannot be loaded or takes images of another size.
        VerificationError: The outputs have different shapes.
    """
    session = onnx_session(path)
    got = run_onnx(session, images, batch_size=batch_size)
    first = next((tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()), images)
    with evaluation_mode(model):
        chunks = [model(chunk.to(first.device, first.dtype)) for chunk in images.split(batch_size)]
    wanted = torch.cat(chunks).cpu().double()
    if got.shape != wanted.shape:
        raise VerificationError(
            f"ONNX Runtime returns shape {tuple(got.shape)} and PyTorch {tuple(wanted.shape)} for {os.fspath(path)}"
        )
    alone = run_onnx(session, images[:1])
    differences = torch.cat([(got.double() - wanted).abs().flatten(), (alone.double() - wanted[:1]).abs().flatten()])
    error = differences.max().item()
    relative = error / max(wanted.abs().max().item(), torch.finfo(torch.float32).tiny)
    agreement = (got.argmax(1) == wanted.argmax(1)).double().mean().item()
    return {
        "max_error": error if math.isfinite(error) else math.inf,
        "relative_error": relative if math.isfinite(relative) else math.inf,
        "top1_agreement": 100.0 * agreement,
    }


def check(result: Mapping[str, float], *, tolerance: float = TOLERANCE, name: str = "the exported file") -> None:
    """Raise unless a result of `verify_onnx` is within the tolerance.

    Args:
        result: What `verify_onnx` returned.
        tolerance: Largest relative error to accept.
        name: What was checked, for the message.

    Raises:
        VerificationError: The relative error is larger; the message names it.
    """
    if not result["relative_error"] <= tolerance:
        raise VerificationError(
            f"{name} differs from the PyTorch model: relative error {result['relative_error']:.3g} is above the "
            f"tolerance {tolerance:g} (largest absolute error {result['max_error']:.3g}, the same class for "
            f"{result['top1_agreement']:.1f} % of the images)"
        )
