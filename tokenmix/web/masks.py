"""The learnt masks of frequency mixers as further outputs of an ONNX graph, so that a page can draw them."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from tokenmix.export.extras import require

_SCOPES = "pkg.torch.onnx.name_scopes"
_FLOAT = 1  # TensorProto.FLOAT
_PASSING = ("Mul", "Transpose", "MatMul", "Reshape")  # between the gates of bands and the mask of frequencies


def add_masks(proto: Any) -> list[dict[str, str]]:
    """Give a ModelProto of ours one more output for each mask, in place.

    Each is ``(B, H, W)`` float32, the mean over the channels of: the magnitude of AFF's complex mask, W then being half
    of the columns and one, as rfft2 has them; or DSM's gates of the cosine spectrum.

    Returns:
        For each: ``name`` of the output, ``layer``, the module that it belongs to, and ``kind``, ``"fourier"`` or
        ``"cosine"``.
    """
    makers = {name: node for node in proto.graph.node for name in node.output}
    users = defaultdict(list)
    for node in proto.graph.node:
        for name in node.input:
            users[name].append(node)
    constants = {tensor.name for tensor in proto.graph.initializer}
    constants |= {node.output[0] for node in proto.graph.node if node.op_type == "Constant"}
    masks: list[dict[str, str]] = []
    for node in list(proto.graph.node):
        if _is_complex_mask(node, makers):
            kind, tensor = "fourier", node.output[0]
        elif cosine := _band_mask(node, users, constants):
            kind, tensor = "cosine", cosine
        else:
            continue
        name = f"mask_{len(masks)}"
        _append_mean(proto.graph, tensor, name, kind)
        masks.append({"name": name, "layer": _layer(node), "kind": kind})
    return masks


def _is_complex_mask(node: Any, makers: dict[str, Any]) -> bool:
    """AFF's mask ``(B, C, 2, H, W//2+1)``: a soft-shrink, written ``x - clamp(x)``, of what was reshaped to planes."""
    if node.op_type != "Sub" or any(name not in makers for name in node.input):
        return False
    mapped, clip = (makers[name] for name in node.input)
    return mapped.op_type == "Reshape" and clip.op_type == "Clip" and clip.input[0] == node.input[0]


def _band_mask(node: Any, users: dict[str, list[Any]], constants: set[str]) -> str | None:
    """DSM's mask ``(B, C, H, W)``: a softmax or sigmoid of bands, spread by constant products, before a spectrum."""
    if node.op_type not in ("Softmax", "Sigmoid"):
        return None
    tensor, spread = node.output[0], False
    while len(users[tensor]) == 1 and (user := users[tensor][0]).op_type in _PASSING:
        others = [name for name in user.input if name != tensor]
        if user.op_type == "Mul" and not constants.issuperset(others):
            return tensor if spread else None
        if not constants.issuperset(others):
            return None
        spread = spread or user.op_type == "MatMul"
        tensor = user.output[0]
    return None


def _append_mean(graph: Any, tensor: str, name: str, kind: str) -> None:
    helper = require("onnx").helper
    for axis in (1, 2) if kind == "fourier" else (1,):
        if not any(entry.name == f"mask_axis_{axis}" for entry in graph.initializer):
            graph.initializer.append(helper.make_tensor(f"mask_axis_{axis}", 7, [1], [axis]))  # 7: INT64
    graph.node.append(helper.make_node("Cast", [tensor], [f"{name}_float"], to=_FLOAT))
    source = f"{name}_float"
    if kind == "fourier":
        graph.node.append(helper.make_node("ReduceL2", [source, "mask_axis_2"], [f"{name}_size"], keepdims=0))
        source = f"{name}_size"
    graph.node.append(helper.make_node("ReduceMean", [source, "mask_axis_1"], [name], keepdims=0))
    graph.output.append(helper.make_tensor_value_info(name, _FLOAT, [None, None, None]))


def _layer(node: Any) -> str:
    """The dotted name of the mixer that a node came from."""
    text = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "")
    names = [part.strip(" '\"") for part in text.strip("[]").split(",")]
    return next((part for part in reversed(names[:-1]) if part), "mask").removesuffix(".op")
