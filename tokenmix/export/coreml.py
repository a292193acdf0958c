"""Core ML: an ``.mlpackage`` with an ML program, for iOS 17, macOS 14 and newer."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._decomp import get_decompositions

from tokenmix.export.errors import ExportError
from tokenmix.export.extras import matching, quiet
from tokenmix.export.prepare import Prepared
from tokenmix.export.program import trace

UNVERIFIED = "operators, shapes and types were checked; the numbers are unverified, since Core ML runs on macOS only"
METADATA = "tokenmix"
"""The manifest's key among the package's user-defined metadata."""


def write_coreml(prepared: Prepared, path: Path, precision: str, calibration: Sequence[Tensor] = ()) -> dict[str, Any]:
    """Write an ``.mlpackage`` that computes in float32 or float16 and gives float32 outputs, one image at a time.

    A model that takes bytes (its normalisation inside) becomes one that takes a picture: Core ML's image type, RGB.

    Returns:
        ``operators`` of the program and the ``versions``.

    Raises:
        ImportError: The package is missing or does not fit the installed torch; the message says what to install.
        ExportError: The model cannot be exported in the wanted form.
    """
    tools = matching("coremltools", "coreml")
    if prepared.open_axes:
        raise ExportError("Core ML files are written for one image of one size: export them static, a file per size")
    program = trace(prepared)
    precisions = {"fp32": tools.precision.FLOAT32, "fp16": tools.precision.FLOAT16}
    shape = tuple(prepared.sample.shape)
    if prepared.sample.dtype == torch.uint8:
        kind = tools.ImageType(name=prepared.input_name, shape=shape, color_layout=tools.colorlayout.RGB)
    else:
        kind = tools.TensorType(name=prepared.input_name, shape=shape, dtype=np.float32)
    try:
        with quiet():
            model = tools.convert(
                program.run_decompositions(get_decompositions([torch.ops.aten.upsample_bicubic2d.vec])),
                convert_to="mlprogram",
                minimum_deployment_target=tools.target.iOS17,
                compute_precision=precisions[precision],
                inputs=[kind],
                outputs=[tools.TensorType(name=name, dtype=np.float32) for name in prepared.output_names],
            )
            model.save(str(path))
    except Exception as error:  # whatever its passes raise
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ExportError(f"Core ML cannot take {prepared.name}: {reason}") from error
    operators = Counter(operation.type for operation in _operations(model.get_spec()) if operation.type != "const")
    return {
        "operators": dict(sorted(operators.items())),
        "versions": {"coremltools": tools.__version__, "torch": torch.__version__},
    }


def inspect_coreml(path: Path, prepared: Prepared) -> dict[str, Any]:
    """Read an ``.mlpackage`` and compare its signature with the model's; nothing is run.

    Returns:
        ``verified`` (False) and the ``reason``.

    Raises:
        ExportError: An operator that Core ML does not have, or another name, shape or type than the model's.
    """
    tools = matching("coremltools", "coreml")
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    with quiet():
        spec = tools.models.MLModel(str(path), skip_model_load=True).get_spec()
    types = {operation.type for operation in _operations(spec)}
    foreign = sorted(name for name in types if name != "const" and name not in SSAOpRegistry.core_ops)
    if foreign:
        raise ExportError(f"{path}: Core ML has no operator {', '.join(foreign)}")
    with torch.no_grad():
        outputs = prepared.model(prepared.sample)
    outputs = [outputs] if isinstance(outputs, Tensor) else outputs
    wanted = {prepared.input_name: tuple(prepared.sample.shape)}
    wanted |= {name: tuple(output.shape) for name, output in zip(prepared.output_names, outputs, strict=True)}
    found = {one.name: _shape(one) for one in (*spec.description.input, *spec.description.output)}
    if found != wanted:
        raise ExportError(f"{path}: its inputs and outputs are {found} instead of {wanted}")
    return {"verified": False, "reason": UNVERIFIED}


def embed_coreml(path: Path, manifest: Mapping[str, Any]) -> None:
    """Put a manifest into a package as its user-defined metadata."""
    tools = matching("coremltools", "coreml")
    with quiet():
        model = tools.models.MLModel(str(path), skip_model_load=True)
        model.user_defined_metadata[METADATA] = json.dumps(manifest)
        with tempfile.TemporaryDirectory(prefix=".tokenmix-", dir=path.parent) as folder:
            model.save(str(Path(folder) / path.name))  # it copies its weights from the package that is then replaced
            shutil.rmtree(path)
            (Path(folder) / path.name).replace(path)


def _operations(spec: Any) -> list[Any]:
    """All operations of an ML program, those of nested blocks included."""
    waiting = list(spec.mlProgram.functions["main"].block_specializations.values())
    operations = []
    while waiting:
        block = waiting.pop()
        operations += block.operations
        waiting += [inner for operation in block.operations for inner in operation.blocks]
    return operations


def _shape(feature: Any) -> tuple[int, ...]:
    """The shape of an input or output that holds float32 values, or of a picture; () for any other type."""
    if feature.type.WhichOneof("Type") == "imageType":
        return 1, 3, feature.type.imageType.height, feature.type.imageType.width
    array = feature.type.multiArrayType
    return tuple(array.shape) if array.dataType == array.FLOAT32 else ()
