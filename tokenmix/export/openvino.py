"""OpenVINO: an ``.xml`` file and its ``.bin`` of weights, made from the ONNX file; for x86 and ARM servers."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from tokenmix.export.errors import ExportError
from tokenmix.export.extras import matching, quiet
from tokenmix.export.onnx import write_onnx
from tokenmix.export.prepare import Prepared
from tokenmix.export.quantize import Run, quantize_onnx

METADATA = "tokenmix"
"""The manifest's place in the model's rt_info."""


def write_openvino(
    prepared: Prepared, path: Path, precision: str, calibration: Sequence[Tensor] = ()
) -> dict[str, Any]:
    """Write ``path`` (.xml) and beside it its weights (.bin): float32, float16 weights, or int8 as OpenVINO bears it.

    Returns:
        What ``write_onnx`` and ``quantize_onnx`` say of the file between, with this file's ``operators`` and
        ``versions``, and ``latency_in``, the runtime that int8 was timed in.

    Raises:
        ImportError: A package is missing; the message says what to install.
        ExportError: The model cannot be exported in the wanted form.
    """
    openvino = matching("openvino", "openvino")
    with tempfile.TemporaryDirectory(prefix="tokenmix-") as folder:
        between = Path(folder) / "model.onnx"
        facts = write_onnx(prepared, between)
        if precision == "int8":
            # Processors without VNNI add two products in 16 bits, which overflow unless weights have seven.
            facts |= quantize_onnx(between, between, calibration, start=_started, reduce_range=True)
            facts["latency_in"] = "OpenVINO"
        try:
            model = openvino.convert_model(between)
        except Exception as error:  # its own classes have no public base
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise ExportError(f"OpenVINO cannot take {prepared.name}: {reason}") from error
        openvino.save_model(model, path, compress_to_fp16=precision == "fp16")
    counts = Counter(operation.get_type_name() for operation in model.get_ops())
    versions = {**facts.get("versions", {}), "openvino": openvino.__version__.split("-")[0]}
    return facts | {"operators": dict(sorted(counts.items())), "versions": versions}


def _started(content: bytes) -> Run:
    """An ONNX file's content as a function, in OpenVINO."""
    model = compile_openvino(content, threads=1)
    return lambda image: [np.array(output) for output in model(image).to_tuple()]


def run_openvino(path: Path, images: Tensor) -> list[np.ndarray]:
    """Load the file and run it once on the CPU in float32, whatever the CPU would choose by itself."""
    with quiet():
        return [np.array(output) for output in compile_openvino(path)(images.numpy()).to_tuple()]


def compile_openvino(path: Path | bytes, threads: int | None = None) -> Any:
    """OpenVINO's model of the file on the CPU, for one thread or more, all by default; it is called with an array.

    Args:
        path: The file, or an ONNX file's content.
        threads: For one call.

    Raises:
        ImportError: The package is missing; the message says what to install.
    """
    openvino = matching("openvino", "openvino")
    # Newer CPUs would compute in bfloat16, which is off by a percent.
    options = {"INFERENCE_PRECISION_HINT": "f32"} | ({} if threads is None else {"INFERENCE_NUM_THREADS": threads})
    core = openvino.Core()
    return core.compile_model(core.read_model(path), "CPU", options)


def embed_openvino(path: Path, manifest: Mapping[str, Any]) -> None:
    """Put a manifest into a file: ``model.get_rt_info(["tokenmix"]).value`` is its JSON."""
    openvino = matching("openvino", "openvino")
    model = openvino.Core().read_model(path)
    model.set_rt_info(json.dumps(manifest), [METADATA])
    with tempfile.TemporaryDirectory(prefix=".tokenmix-", dir=path.parent) as folder:
        copy = Path(folder) / path.name
        openvino.save_model(model, copy, compress_to_fp16=False)
        del model  # it reads the weights from the file that is now replaced
        copy.with_suffix(".bin").replace(path.with_suffix(".bin"))
        copy.replace(path)
