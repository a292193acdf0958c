"""ExecuTorch: one ``.pte`` file, its operators given to XNNPACK where that has them; for phones and small Linux."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokenmix.export.errors import ExportError
from tokenmix.export.extras import matching, quiet
from tokenmix.export.prepare import Prepared
from tokenmix.export.program import LARGEST_BATCH, trace


def write_executorch(
    prepared: Prepared, path: Path, precision: str, calibration: Sequence[Tensor] = ()
) -> dict[str, Any]:
    """Write a ``.pte`` file; float32, or int8 by static quantisation of what `quantize_program` finds insensitive.

    Returns:
        ``operators``: how often each occurs, ``"XnnpackBackend"`` for a part that XNNPACK runs as a whole.
        ``largest_batch``. For int8 also what `quantize_program` says.

    Raises:
        ImportError: The package is missing or does not fit the installed torch; the message says what to install.
        ExportError: The model cannot be exported in the wanted form.
    """
    exir = matching("executorch.exir", "executorch")
    partitioner = matching("executorch.backends.xnnpack.partition.xnnpack_partitioner", "executorch")
    program = trace(prepared, largest_batch=LARGEST_BATCH)
    facts: dict[str, Any] = {}
    if precision == "int8":
        from tokenmix.export.quantize_program import quantize_program

        program, facts = quantize_program(program, prepared, calibration)
    try:
        with quiet():
            lowered = exir.to_edge_transform_and_lower(program, partitioner=[partitioner.XnnpackPartitioner()])
            counts = _operators(lowered.exported_program().graph)
            lowered.to_executorch().save(str(path))
    except Exception as error:  # whatever its passes raise
        raise ExportError(f"ExecuTorch cannot take {prepared.name}: {_first_line(error)}") from error
    return facts | {
        "operators": counts,
        "largest_batch": LARGEST_BATCH if prepared.open_batch else len(prepared.sample),
        "versions": {"executorch": _version(), "torch": torch.__version__},
    }


def load_executorch(path: Path, images: Tensor) -> Callable[[], Any]:
    """Load a ``.pte`` file; each call of the result runs it on the same images. Raises as `write_executorch`."""
    batches = [[batch.contiguous()] for batch in images.split(LARGEST_BATCH)]
    method = _method(path)
    return lambda: [method.execute(batch) for batch in batches]


def run_executorch(path: Path, images: Tensor) -> list[np.ndarray]:
    """Load a ``.pte`` file and run it. Raises as `write_executorch`."""
    with quiet():
        method = _method(path)
        outputs = [
            [output.numpy().copy() for output in method.execute([batch.contiguous()])]  # the memory is the method's
            for batch in images.split(LARGEST_BATCH)
        ]
    return [np.concatenate(output) for output in zip(*outputs, strict=True)]


def _method(path: Path) -> Any:
    runtime = matching("executorch.runtime", "executorch")
    return runtime.Runtime.get().load_program(path).load_method("forward")


def _operators(graph: torch.fx.Graph) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for node in graph.nodes:
        if node.op == "call_function" and "getitem" not in str(node.target):
            delegate = "delegate" in str(node.target)
            counts["XnnpackBackend" if delegate else getattr(node.target, "__name__", str(node.target))] += 1
    return dict(sorted(counts.items()))


def _version() -> str:
    from importlib.metadata import version

    return version("executorch")


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
