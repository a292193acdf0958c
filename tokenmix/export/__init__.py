"""From a trained model to a file that a runtime loads: prepare, export, verify."""

from __future__ import annotations

from tokenmix.callable_modules import make_callable
from tokenmix.export.errors import ExportError
from tokenmix.export.formats import FORMATS, Format
from tokenmix.export.main import export
from tokenmix.export.onnx_file import graph_operators, onnx_session
from tokenmix.export.prepare import Prepared, evaluation_mode, prepare
from tokenmix.tasks.file_form import VerificationError

__all__ = [
    "FORMATS",
    "ExportError",
    "Format",
    "Prepared",
    "VerificationError",
    "evaluation_mode",
    "export",
    "graph_operators",
    "onnx_session",
    "prepare",
]

make_callable(__name__)
