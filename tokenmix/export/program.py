"""The exported program that CoreML, ExecuTorch, OpenVINO and ``.pt2`` files are made of."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram

from tokenmix.export.errors import ExportError
from tokenmix.export.prepare import Prepared

LARGEST_BATCH = 16
"""Of files whose runtime plans its memory beforehand (ExecuTorch)."""


def trace(prepared: Prepared, *, largest_batch: int | None = None) -> ExportedProgram:
    """A prepared model as torch's exported program, everything that does not depend on the image computed beforehand.

    Without that a runtime would compute the matrices of spectral transforms anew for every image, with operators that
    some of them lack.

    Args:
        prepared: The model and its input.
        largest_batch: Bound of a dynamic batch; None means none.

    Raises:
        ExportError: The model cannot be exported; the message says what stands in the way.
    """
    first = export_program(prepared.model, prepared, largest_batch=largest_batch)
    return export_program(fold_constants(first), prepared, largest_batch=largest_batch)


def export_program(model: nn.Module, prepared: Prepared, *, largest_batch: int | None = None) -> ExportedProgram:
    """A module that takes what a prepared model takes as an exported program. Arguments and errors as `trace`'s."""
    sizes: dict[int, Any] = dict.fromkeys(prepared.open_axes, Dim.DYNAMIC)
    if prepared.open_batch:
        sizes[0] = Dim.DYNAMIC(max=largest_batch)
    try:
        with torch.no_grad():
            return torch.export.export(model, (prepared.sample,), dynamic_shapes=(sizes,) if sizes else None)
    except Exception as error:  # whatever a model's code raises, and torch's own
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        hint = " (try a fixed batch and size)" if sizes else ""
        raise ExportError(f"{prepared.name} could not be exported by torch.export: {reason}{hint}") from error


@torch.no_grad()
def fold_constants(program: ExportedProgram) -> fx.GraphModule:
    """The program as a module in which every tensor that does not depend on the input is stored."""
    module = program.module(check_guards=False)
    graph = module.graph
    values: dict[fx.Node, Any] = {}
    for node in list(graph.nodes):
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            graph.erase_node(node)  # types were checked while tracing, and these keep alive what nobody reads
        elif node.op == "get_attr":
            values[node] = operator.attrgetter(node.target)(module)
        elif node.op == "call_function" and all(source in values for source in node.all_input_nodes):
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
            values[node] = node.target(*args, **kwargs)
    for index, (node, value) in enumerate(values.items()):
        if node.op == "call_function" and isinstance(value, Tensor) and any(user not in values for user in node.users):
            module.register_buffer(f"folded_{index}", value.clone(memory_format=torch.contiguous_format))
            with graph.inserting_before(node):
                stored = graph.get_attr(f"folded_{index}")
            node.replace_all_uses_with(stored, delete_user_cb=lambda user: user not in values)
    graph.eliminate_dead_code()
    module.recompile()
    return module
