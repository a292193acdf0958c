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
# Phases of transforms, which grow with the size, and what is computed of them: eleven bits are too few.
PHASES = ("Cos", "Sin", "Mod", "Range", "Reciprocal")


def to_half(proto: Any, images: Sequence[Tensor]) -> tuple[Any, list[str]]:
    """A float32 ModelProto in float16, and the names of the nodes that stay in float32.

    By a measured rule: nodes that read or make a value above `LARGEST` on the images stay, further the operators that
    compute phases and those of the converter's own list (choice of the best, suppression, cutting of regions).

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
    blocked = [*float16.DEFAULT_OP_BLOCK_LIST, *PHASES]
    kept = [node.name for node in proto.graph.node if large & {*node.input, *node.output}]
    names = kept + [node.name for node in proto.graph.node if node.op_type in blocked and node.name not in kept]
    half = float16.convert_float_to_float16(proto, keep_io_types=True, op_block_list=blocked, node_block_list=kept)
    # The converter appends its casts at the end.
    require("onnxruntime.transformers.onnx_model").OnnxModel.graph_topological_sort(half.graph)
    return half, names
