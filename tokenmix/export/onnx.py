"""ONNX: one self-contained file with its labels and normalisation inside."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tokenmix.export.extras import require
from tokenmix.export.prepare import prepare
from tokenmix.files import atomic_path, sha256, write_json
from tokenmix.version import __version__

SCHEMA = "tokenmix.model/1"
OPSET = 20  # has GELU as one operator; 18 is the oldest that torch's exporter writes
FOURIER_OPERATORS = ("DFT", "STFT")
_SCOPES = "pkg.torch.onnx.name_scopes"
_LIMIT = 2**31 - 1  # bytes; protobuf holds no more in one message


class ExportError(ValueError):
    """The model could not be written in the wanted form; the message says what stands in the way."""


def export_onnx(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    image_size: int | tuple[int, int],
    dynamic_batch: bool = True,
    labels: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    crop_pct: float | None = None,
    interpolation: str | None = None,
    crop_mode: str | None = None,
    opset: int = OPSET,
    form: str = "matmul",
    in_chans: int = 3,
    sidecar: bool = False,
) -> dict[str, Any]:
    """Write ``(B, in_chans, H, W) -> (B, K)`` as one float32 ONNX file and return its manifest.

    The model is first prepared (see `tokenmix.export.prepare.prepare`); the given one is not changed. The manifest's
    entries are also in the file's ``metadata_props``, each value as JSON. The file appears whole or not at all.

    Args:
        model: A model of one image batch with one tensor as its output.
        path: The file to write.
        image_size: Height and width in pixels, or one number for both; fixed in the file.
        dynamic_batch: Let the file take any batch size; otherwise it takes batches of one.
        labels: Class names, one per output.
        mean: Per channel, of the normalisation that the input must have had (range 0..1 before it).
        std: Per channel, likewise.
        crop_pct: The part of the resized image that the centre crop keeps.
        interpolation: The resize filter, for example ``"bicubic"``.
        crop_mode: ``"center"`` or ``"squash"``, see ``tokenmix.data.resize_and_crop``.
        opset: ONNX operator set, 18 or newer.
        form: ``"matmul"`` writes spectral transforms as matrix products; ``"fft"`` as DFT operators, which are slow in
            ONNX Runtime and unknown to most others.
        in_chans: Channels of the input.
        sidecar: Also write the manifest beside the file, as ``<path>.json``.

    Returns:
        The manifest: schema, model, input and output (name, shape, dtype), labels, normalisation, operators, versions,
        and the file's bytes and SHA-256.

    Raises:
        ImportError: The packages of the extra ``onnx`` are missing.
        ExportError: The model cannot be exported, fixes its batch size, or still holds DFT operators.
        ValueError: An option is out of range.
    """
    for package in ("onnx", "onnxscript"):
        require(package)
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if min(height, width, in_chans) < 1:
        raise ValueError(f"image_size and in_chans must be positive, not {image_size} and {in_chans}")
    if opset < 18:
        raise ValueError(f"opset must be 18 or newer (torch's exporter writes no older one), not {opset}")

    name = type(model).__name__
    prepared = prepare(model, form=form).cpu().float()
    # Batch 2 while tracing: torch.export takes a size of 1 for a constant.
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(2 if dynamic_batch else 1, in_chans, height, width, generator=generator)
    with torch.no_grad():
        output = prepared(sample)
    if not isinstance(output, Tensor):
        raise ExportError(f"{name} returns {type(output).__name__}; export_onnx takes models with one tensor as output")
    if labels is not None and len(labels) != output.shape[1]:
        raise ValueError(f"{len(labels)} labels for {output.shape[1]} outputs of {name}")
    proto = _trace(prepared, sample, dynamic_batch=dynamic_batch, opset=opset, name=name)

    batch = "batch" if dynamic_batch else 1
    manifest: dict[str, Any] = {
        "schema": SCHEMA,
        "model": (getattr(model, "pretrained_cfg", None) or {}).get("architecture") or name,
        "parameters": sum(parameter.numel() for parameter in prepared.parameters()),
        "input": {"name": "image", "shape": [batch, in_chans, height, width], "dtype": "float32", "layout": "NCHW"},
        "output": {"name": "logits", "shape": [batch, *output.shape[1:]], "dtype": "float32"},
        "labels": None if labels is None else list(labels),
        "mean": None if mean is None else [float(value) for value in mean],
        "std": None if std is None else [float(value) for value in std],
        "crop_pct": crop_pct,
        "interpolation": interpolation,
        "crop_mode": crop_mode,
        "opset": opset,
        "operators": dict(sorted(_count(proto).items())),
        "versions": {"tokenmix": __version__, "torch": torch.__version__}
        | {package: str(require(package).__version__) for package in ("onnx", "onnxscript")},
    }
    _finish(proto, manifest, form=form, name=name)
    with atomic_path(path) as temporary:
        temporary.write_bytes(proto.SerializeToString())
    manifest |= {"bytes": Path(path).stat().st_size, "sha256": sha256(path)}
    if sidecar:
        write_json(f"{os.fspath(path)}.json", manifest)
    return manifest


def graph_operators(path: str | os.PathLike[str]) -> Counter[str]:
    """How often each operator occurs in an ONNX file, subgraphs and functions included.

    Operators outside ONNX's own domain are named ``domain::operator``.
    """
    return _count(require("onnx").load(os.fspath(path), load_external_data=False))


def _trace(model: nn.Module, sample: Tensor, *, dynamic_batch: bool, opset: int, name: str) -> Any:
    """The optimised ModelProto of a prepared model."""
    shapes = ({0: torch.export.Dim("batch")},) if dynamic_batch else None
    with _quiet() as said:
        try:
            program = torch.onnx.export(
                model,
                (sample,),
                dynamo=True,
                verbose=False,
                opset_version=opset,
                dynamic_shapes=shapes,
                input_names=["image"],
                output_names=["logits"],
            )
            assert program is not None
            proto = program.model_proto
        except Exception as error:  # the exporter wraps whatever a model's code raises
            cause = error.__cause__ or error
            reason = next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
            hint = " (if it fixes the batch size: dynamic_batch=False)" if dynamic_batch else ""
            failure = ExportError(f"{name} could not be exported to ONNX: {reason}{hint}")
            failure.add_note(said.getvalue()[-4000:])
            raise failure from error
    written = next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    if written != opset:
        raise ExportError(f"{name} could not be written in opset {opset}, only in {written}: pass opset={written}")
    if dynamic_batch and not proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param:
        raise ExportError(f"{name} fixes its batch size: pass dynamic_batch=False")
    return proto


def _finish(proto: Any, manifest: dict[str, Any], *, form: str, name: str) -> None:
    """Check a ModelProto, clean it and put the manifest inside, in place."""
    if form == "matmul" and any(operator in manifest["operators"] for operator in FOURIER_OPERATORS):
        places = sorted({_scope(node) for node in proto.graph.node if node.op_type in FOURIER_OPERATORS})
        raise ExportError(
            f"{name} still computes Fourier transforms by FFT in {', '.join(places) or 'a subgraph'}: give that module "
            "an attribute form: str = 'auto' and compute by matrix products where it is 'matmul', or pass form='fft'"
        )
    # The exporter records source lines with the paths of this machine; only the module names are worth keeping.
    for node in proto.graph.node:
        scopes = [entry.value for entry in node.metadata_props if entry.key == _SCOPES]
        del node.metadata_props[:]
        for value in scopes:
            node.metadata_props.add(key=_SCOPES, value=value)
        node.ClearField("doc_string")
    for holder in (
        proto.graph,
        *proto.graph.input,
        *proto.graph.output,
        *proto.graph.value_info,
        *proto.graph.initializer,
    ):
        del holder.metadata_props[:]
    del proto.metadata_props[:]
    for key, value in manifest.items():
        proto.metadata_props.add(key=key, value=json.dumps(value, allow_nan=False))
    if proto.ByteSize() > _LIMIT:
        raise ExportError(f"{name} takes {proto.ByteSize() / 1e9:.1f} GB, and one ONNX file holds at most 2 GB")
    require("onnx").checker.check_model(proto)


def _scope(node: Any) -> str:
    """The dotted module name that a node came from, for messages."""
    for entry in node.metadata_props:
        if entry.key == _SCOPES:
            names = [part.strip(" '\"") for part in entry.value.strip("[]").split(",")]
            return next((part for part in reversed(names[:-1]) if part), "the model itself")
    return "the model itself"


def _count(proto: Any) -> Counter[str]:
    counts: Counter[str] = Counter()

    def walk(nodes: Any) -> None:
        for node in nodes:
            own = node.domain in ("", "ai.onnx")
            counts[node.op_type if own else f"{node.domain}::{node.op_type}"] += 1
            for attribute in node.attribute:
                for graph in (attribute.g, *attribute.graphs):
                    walk(graph.node)

    walk(proto.graph.node)
    for function in proto.functions:
        walk(function.node)
    return counts


@contextlib.contextmanager
def _quiet() -> Iterator[io.StringIO]:
    """Catch what the exporter prints, logs and warns about; the text is there for an error's note."""
    said = io.StringIO()
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield said
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
