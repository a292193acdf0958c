"""ONNX: one self-contained file, without the traces of the machine that wrote it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokenmix.export.errors import ExportError
from tokenmix.export.extras import quiet, require
from tokenmix.export.half import to_half
from tokenmix.export.onnx_file import SCOPES, graph_operators, node_scopes
from tokenmix.export.prepare import Prepared
from tokenmix.export.quantize import quantize_onnx
from tokenmix.version import __version__

OPSET = 20  # has GELU as one operator; 18 is the oldest that torch's exporter writes
FOURIER_OPERATORS = ("DFT", "STFT")
_LIMIT = 2**31 - 1  # bytes; protobuf holds no more in one message


def write_onnx(
    prepared: Prepared, path: Path, precision: str = "fp32", calibration: Sequence[Tensor] = ()
) -> dict[str, Any]:
    """Write one ONNX file; see `tokenmix.export.formats.Format`.

    Inputs and outputs are float32 whatever the precision.

    Raises:
        ImportError: The packages of the extra ``onnx`` are missing.
        ExportError: The model cannot be exported, fixes a size that shall be dynamic, or still holds DFT operators
            though none of its modules has ``form="fft"``.
    """
    for package in ("onnx", "onnxscript"):
        require(package)
    proto = _trace(prepared)
    _clean(proto)
    _forbid_fourier(proto, prepared)
    facts: dict[str, Any] = {}
    if precision == "fp16":
        proto, facts["float_parts"] = to_half(proto, calibration)
    _write(proto, path, prepared.name)
    if precision == "int8":
        facts |= quantize_onnx(path, path, calibration)
    return facts | {
        "opset": OPSET,
        "operators": dict(sorted(graph_operators(path).items())),
        "versions": {package: str(require(package).__version__) for package in ("onnx", "onnxscript", "onnxruntime")},
    }


def embed_onnx(path: Path, manifest: Mapping[str, Any]) -> None:
    """Put a manifest into a file's ``metadata_props``, each value as JSON, in place of what was there."""
    proto = require("onnx").load(os.fspath(path))
    del proto.metadata_props[:]
    for key, value in manifest.items():
        proto.metadata_props.add(key=key, value=json.dumps(value, allow_nan=False))
    _write(proto, path, str(manifest["model"]))


def _trace(prepared: Prepared) -> Any:
    """The optimised ModelProto."""
    names = dict(prepared.open_axes)
    with quiet() as said:
        try:
            program = torch.onnx.export(
                prepared.model,
                (prepared.sample,),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                dynamic_shapes=(names,) if names else None,
                input_names=[prepared.input_name],
                output_names=list(prepared.output_names),
            )
            assert program is not None
            proto = program.model_proto
        except Exception as error:  # the exporter wraps whatever a model's code raises
            cause = error.__cause__ or error
            reason = next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
            hint = f" (if it fixes the {' or '.join(names.values())}: make that static)" if names else ""
            failure = ExportError(f"{prepared.name} could not be exported to ONNX: {reason}{hint}")
            failure.add_note(said.getvalue()[-4000:])
            raise failure from error
    shape = proto.graph.input[0].type.tensor_type.shape
    fixed = [name for axis, name in names.items() if not shape.dim[axis].dim_param]
    if fixed:
        raise ExportError(f"{prepared.name} fixes its {' and '.join(fixed)}: make that static")
    return proto


def _forbid_fourier(proto: Any, prepared: Prepared) -> None:
    nodes = [node for node in proto.graph.node if node.op_type in FOURIER_OPERATORS]
    if nodes and not any(getattr(module, "form", None) == "fft" for module in prepared.model.modules()):
        places = sorted({(node_scopes(node) or ["the model itself"])[-1] for node in nodes})
        raise ExportError(
            f"{prepared.name} still computes Fourier transforms by FFT in {', '.join(places)}: give that module an "
            "attribute form: str = 'auto' and compute by matrix products where it is 'matmul'"
        )


def _clean(proto: Any) -> None:
    """Keep of the exporter's notes only the module names: source lines hold the paths of this machine."""
    for node in proto.graph.node:
        scopes = [entry.value for entry in node.metadata_props if entry.key == SCOPES]
        del node.metadata_props[:]
        for value in scopes:
            node.metadata_props.add(key=SCOPES, value=value)
        node.ClearField("doc_string")
    graph = proto.graph
    for holder in (graph, *graph.input, *graph.output, *graph.value_info, *graph.initializer, proto):
        del holder.metadata_props[:]
    proto.producer_name, proto.producer_version = "tokenmix", __version__


def _write(proto: Any, path: Path, name: str) -> None:
    if proto.ByteSize() > _LIMIT:
        raise ExportError(f"{name} takes {proto.ByteSize() / 1e9:.1f} GB, and one ONNX file holds at most 2 GB")
    require("onnx").checker.check_model(proto)
    Path(path).write_bytes(proto.SerializeToString())
