"""An ONNX file as ONNX Runtime and its readers see it."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokenmix.export.extras import require

SCOPES = "pkg.torch.onnx.name_scopes"


def onnx_session(path: str | os.PathLike[str] | bytes, threads: int | None = None) -> Any:
    """An ONNX Runtime session on the CPU, with all graph optimisations.

    Args:
        path: The ONNX file, or its content.
        threads: Threads within an operator; as many as PyTorch uses by default.

    Returns:
        An ``onnxruntime.InferenceSession``.

    Raises:
        ImportError: onnxruntime is not installed.
        ValueError: The file is missing or is no ONNX file that this ONNX Runtime can run.

    Examples:
        >>> session = onnx_session("photos.onnx", threads=1)  # doctest: +SKIP
        >>> (logits,) = session.run(None, {"image": np.zeros((1, 3, 224, 224), np.float32)})  # doctest: +SKIP
    """
    runtime = require("onnxruntime")
    source = path if isinstance(path, bytes) else os.fspath(path)
    if isinstance(source, str) and not Path(source).is_file():
        raise ValueError(f"no such file: {source}")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Idle workers would spin after a run and take the cores from whatever is measured next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return runtime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has one class per status and no common public base
        name = "the file" if isinstance(source, bytes) else source
        raise ValueError(f"ONNX Runtime {runtime.__version__} cannot load {name}: {error}") from error


def run_onnx(path: str | os.PathLike[str], images: Tensor) -> list[np.ndarray]:
    """What a file makes of ``(N, C, H, W)``, all outputs.

    Raises:
        ImportError: onnxruntime is not installed.
        ValueError: The file cannot be loaded, or does not take such images.
    """
    session = onnx_session(path)
    source = session.get_inputs()[0]
    try:
        return session.run(None, {source.name: images.detach().cpu().float().contiguous().numpy()})
    except Exception as error:  # as above
        raise ValueError(
            f"{os.fspath(path)} takes images of shape {source.shape} and fails for {tuple(images.shape)}: {error}"
        ) from error


def graph_operators(path: str | os.PathLike[str]) -> Counter[str]:
    """How often each operator occurs in an ONNX file, subgraphs and functions included.

    Operators outside ONNX's own domain are named ``domain::operator``.

    Args:
        path: The ONNX file; weights beside it are not read.

    Returns:
        Occurrences by operator.

    Raises:
        ImportError: onnx is not installed.
        FileNotFoundError: There is no such file.

    Examples:
        >>> "DFT" in graph_operators("photos.onnx")  # doctest: +SKIP
        False
    """
    return _count(require("onnx").load(os.fspath(path), load_external_data=False))


def node_scopes(node: Any) -> list[str]:
    """The dotted names of the modules that a node came from, the outermost first."""
    for entry in node.metadata_props:
        if entry.key == SCOPES:
            names = [part.strip(" '\"") for part in entry.value.strip("[]").split(",")]
            return [name for name in names[:-1] if name]
    return []


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
