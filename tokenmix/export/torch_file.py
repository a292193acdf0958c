"""PyTorch's own file: a ``.pt2`` archive that torch loads without the code of the model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokenmix.export.extras import quiet
from tokenmix.export.prepare import Prepared
from tokenmix.export.program import trace

METADATA = "tokenmix.json"
"""The manifest's name among the archive's extra files."""


def write_torch(prepared: Prepared, path: Path, precision: str, calibration: Sequence[Tensor] = ()) -> dict[str, Any]:
    """Write a ``.pt2`` archive in float32; ``torch.export.load(path).module()`` runs it on any device, in any type.

    Returns:
        ``operators`` of the program and the ``versions``.

    Raises:
        ExportError: The model cannot be exported; the message says what stands in the way.
    """
    program = trace(prepared)
    with quiet():
        torch.export.save(program, path)
    counts = Counter(str(node.target) for node in program.graph.nodes if node.op == "call_function")
    return {"operators": dict(sorted(counts.items())), "versions": {"torch": torch.__version__}}


def run_torch(path: Path, images: Tensor) -> list[np.ndarray]:
    """Load a ``.pt2`` archive and run it once."""
    with quiet(), torch.no_grad():
        outputs = torch.export.load(path).module()(images)
    return [output.numpy() for output in ([outputs] if isinstance(outputs, Tensor) else outputs)]


def embed_torch(path: Path, manifest: Mapping[str, Any]) -> None:
    """Put a manifest into an archive; ``torch.export.load(path, extra_files={METADATA: ""})`` gives it back."""
    with quiet():
        torch.export.save(torch.export.load(path), path, extra_files={METADATA: json.dumps(manifest)})
