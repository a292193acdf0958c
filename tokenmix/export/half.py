"""ONNX in half precision: weights and activations in float16, inputs and outputs in float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from tokenmix.export.extras import require
from tokenmix.export.intermediate import values

# Half of what float16 can hold: other images may give larger values than those that were looked at.
LARGEST = 2.0**15


def to_half(proto: Any, images: Sequence[Tensor]) -> tuple[Any, list[str]]:
    """A float32 ModelProto in float16, and the names of the nodes that stay in float32.

    Those are, by a measured rule, the nodes that read or make a value above `LARGEST` on the images; further what is
    computed of the image's size alone, such as the phases of transforms, for which eleven bits are too few; and the
    operators of the converter's own list (choice of the best, suppression, cutting of regions).

    Args:
        proto: The model; it is changed.
        images: Batches for its input.

    Raises:
        ImportError: onnxruntime is not installed.
    """
    float16 = require("onnxruntime.transformers.float16")
    large: set[str] = set()
    for batch in images:
        found = values(proto, batch)
        large |= {name for name, value in found.items() if value.size and not np.abs(value).max() <= LARGEST}
    seen = {end.name for end in proto.graph.input}  # what depends on the image and not only on its size
    kept = []
    for node in proto.graph.node:
        if node.op_type != "Shape" and seen & set(node.input):
            seen |= set(node.output)
            if large & {*node.input, *node.output}:
                kept.append(node.name)
        elif node.op_type not in ("Shape", "Constant"):
            kept.append(node.name)
    listed = float16.DEFAULT_OP_BLOCK_LIST
    names = [node.name for node in proto.graph.node if node.name in kept or node.op_type in listed]
    half = float16.convert_float_to_float16(proto, keep_io_types=True, node_block_list=kept)
    _join_casts(half.graph)
    del half.graph.value_info[:]  # it still tells the types of before
    # The converter appends its casts at the end.
    require("onnxruntime.transformers.onnx_model").OnnxModel.graph_topological_sort(half.graph)
    return half, names


def _join_casts(graph: Any) -> None:
    """Let no value pass through float16 on its way between two nodes that stay in float32, in place."""
    kinds = require("onnx").TensorProto
    casts = {node.output[0]: node for node in graph.node if node.op_type == "Cast"}
    for node in casts.values():
        before = casts.get(node.input[0])
        if node.attribute[0].i == kinds.FLOAT and before is not None and before.attribute[0].i == kinds.FLOAT16:
            node.input[0] = before.input[0]
    used = {name for node in graph.node for name in node.input} | {end.name for end in graph.output}
    for node in [node for node in casts.values() if node.output[0] not in used]:
        graph.node.remove(node)
