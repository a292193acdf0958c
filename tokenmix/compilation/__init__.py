"""The fastest verified way to run a model on this machine from Python: tried, measured, kept."""

from __future__ import annotations

from tokenmix.compilation.choice import Candidate, Choice
from tokenmix.compilation.main import CompiledModel, compile

__all__ = ["Candidate", "Choice", "CompiledModel", "compile"]
