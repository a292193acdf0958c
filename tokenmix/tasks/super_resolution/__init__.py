"""Super-resolution: pictures made larger (arXiv:2406.02021, FFNet-SR), with any mixer of the house."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tokenmix.tasks.super_resolution.task import SuperResolutionTask

if TYPE_CHECKING:
    from tokenmix.tasks.super_resolution.model import Upscaler, create_upscaler, upscaler
    from tokenmix.tasks.super_resolution.resize import Bicubic
    from tokenmix.tasks.super_resolution.upscaling import upscale, upscale_file

__all__ = ["TASKS", "Bicubic", "Upscaler", "create_upscaler", "upscale", "upscale_file", "upscaler"]

TASKS = (SuperResolutionTask(),)

# Imported when they are first used: every command looks through all tasks.
_PUBLIC = {
    "Bicubic": "resize",
    "Upscaler": "model",
    "create_upscaler": "model",
    "upscale": "upscaling",
    "upscale_file": "upscaling",
    "upscaler": "model",
}


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
