"""From a trained model to a file that a runtime loads: prepare, export, verify."""

from __future__ import annotations

from tokenmix.export.onnx import ExportError, export_onnx, graph_operators
from tokenmix.export.prepare import evaluation_mode, prepare
from tokenmix.export.verify import VerificationError, check, onnx_session, verify_onnx

__all__ = [
    "ExportError",
    "VerificationError",
    "check",
    "evaluation_mode",
    "export_onnx",
    "graph_operators",
    "onnx_session",
    "prepare",
    "verify_onnx",
]
