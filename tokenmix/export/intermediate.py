"""The values between an ONNX file's input and output: for the search of a wrong layer, and of values too large."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tokenmix.export.extras import require
from tokenmix.export.onnx_file import node_scopes, onnx_session
from tokenmix.export.prepare import Prepared


def values(proto: Any, image: Tensor, wanted: set[str] | None = None) -> dict[str, np.ndarray]:
    """Every float value that the nodes of a ModelProto make of an input, by its name.

    Args:
        proto: The model, which stays as it is.
        image: The input.
        wanted: Only these.
    """
    onnx = require("onnx")
    watched = type(proto)()
    watched.CopyFrom(proto)
    del watched.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(watched)
    floats = {
        info.name: info.type.tensor_type.elem_type
        for info in inferred.graph.value_info
        if info.type.tensor_type.elem_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    }
    outputs = {info.name for info in watched.graph.output}
    for name, kind in floats.items():
        if name not in outputs and (wanted is None or name in wanted):
            watched.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
    session = onnx_session(watched.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    found = session.run(names, {session.get_inputs()[0].name: image.float().numpy()})
    return {name: value for name, value in zip(names, found, strict=True) if value.dtype.kind == "f"}


@torch.no_grad()
def first_difference(path: Any, prepared: Prepared, image: Tensor, tolerance: float) -> str | None:
    """The name of the first module, in the order of computation, whose output in an ONNX file differs from PyTorch's.

    A module's output in the file is that of the last node which carries the module's name.

    Args:
        path: The file.
        prepared: What it was written from.
        image: One input.
        tolerance: The relative difference that passes.

    Returns:
        None where no module's output differs, or the file no longer tells its modules apart.
    """
    proto = require("onnx").load(path)
    ends: dict[str, str] = {}
    for node in proto.graph.node:
        for scope in node_scopes(node):
            ends[scope] = node.output[0]
    found = values(proto, image, set(ends.values()))
    expected: list[tuple[str, np.ndarray]] = []

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point():
                expected.append((name, output.numpy()))

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in prepared.model.named_modules() if name]
    try:
        prepared.model(image)
    finally:
        for handle in handles:
            handle.remove()
    calls = Counter(name for name, _ in expected)
    for name, right in expected:
        if calls[name] > 1:
            continue  # the file has one last node for all
        wrong = found.get(ends.get(name, ""))
        if wrong is not None and wrong.shape == right.shape:
            error = np.abs(wrong.astype(np.float64) - right).max(initial=0.0)
            if not error <= tolerance * np.abs(right).max(initial=0.0):
                return name
    return None
