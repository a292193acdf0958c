"""The formats that a model is written in, by name: what each can hold, how it is written and how it is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from tokenmix.export import aoti, coreml, executorch, openvino, torch_file
from tokenmix.export.onnx import embed_onnx, write_onnx
from tokenmix.export.onnx_file import run_onnx
from tokenmix.export.prepare import Prepared

PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class Format:
    """One runtime's file format. Packages are imported inside the functions, never with this module.

    Attributes:
        name: As in ``--to``.
        suffix: Of the file or folder, with its dot.
        extra: The extra of tokenmix that brings the packages.
        precisions: Those of `PRECISIONS` that can be written.
        write: ``(prepared, path, precision, calibration) -> facts`` writes the file and returns what the manifest
            shall say about it: operators, versions, parts kept in float. ``calibration`` holds input batches for int8.
        run: ``(path, images) -> outputs`` loads the file back in its runtime and runs it once; None where the runtime
            does not exist on this system, then ``inspect`` must be given.
        inspect: ``(path, prepared) -> facts`` checks operators, types and shapes without running.
        packages: What must be importable for all that.
        embed: ``(path, manifest)`` puts the manifest into the file.
        dynamic_batch: The format can hold a dynamic batch size.
        fixed_by_default: Yet files are better without it.
        dynamic_size: The format can hold dynamic heights and widths.
        folder: It is a folder, not a file.
        fixed_shapes: It holds no shapes that depend on the picture; see `tokenmix.heads.fixed_shapes`.

    Examples:
        >>> FORMATS["onnx"].suffix, FORMATS["onnx"].precisions
        ('.onnx', ('fp32', 'fp16', 'int8'))
    """

    name: str
    suffix: str
    extra: str
    precisions: tuple[str, ...]
    write: Callable[[Prepared, Path, str, Sequence[Tensor]], dict[str, Any]]
    run: Callable[[Path, Tensor], list[np.ndarray]] | None = None
    inspect: Callable[[Path, Prepared], dict[str, Any]] | None = None
    packages: tuple[str, ...] = ()
    embed: Callable[[Path, Mapping[str, Any]], None] | None = None
    dynamic_batch: bool = True
    fixed_by_default: bool = False
    dynamic_size: bool = False
    folder: bool = False
    fixed_shapes: bool = False


FORMATS: dict[str, Format] = {
    "onnx": Format(
        "onnx",
        ".onnx",
        "onnx",
        PRECISIONS,
        write_onnx,
        run_onnx,
        packages=("onnx", "onnxscript", "onnxruntime"),
        embed=embed_onnx,
        dynamic_size=True,
    ),
    "coreml": Format(
        "coreml",
        ".mlpackage",
        "coreml",
        ("fp32", "fp16"),
        coreml.write_coreml,
        inspect=coreml.inspect_coreml,
        packages=("coremltools",),
        embed=coreml.embed_coreml,
        dynamic_batch=False,
        folder=True,
        fixed_shapes=True,
    ),
    "executorch": Format(
        "executorch",
        ".pte",
        "executorch",
        ("fp32", "int8"),
        executorch.write_executorch,
        executorch.run_executorch,
        packages=("executorch",),
        fixed_by_default=True,  # XNNPACK takes more of the model in one piece
        fixed_shapes=True,
    ),
    "openvino": Format(
        "openvino",
        ".xml",
        "openvino",
        PRECISIONS,
        openvino.write_openvino,
        openvino.run_openvino,
        packages=("onnx", "onnxscript", "onnxruntime", "openvino"),
        embed=openvino.embed_openvino,
        dynamic_size=True,
    ),
    "torch": Format(
        "torch",
        ".pt2",
        "torch",
        ("fp32",),
        torch_file.write_torch,
        torch_file.run_torch,
        embed=torch_file.embed_torch,
        dynamic_size=True,
    ),
    "aoti": Format(
        "aoti",
        ".aoti.pt2",
        "torch",
        ("fp32",),
        aoti.write_aoti,
        aoti.run_aoti,
        embed=aoti.embed_aoti,
        fixed_by_default=True,  # the compiler knows more then
        dynamic_size=True,
    ),
}
