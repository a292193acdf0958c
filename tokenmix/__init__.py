"""tokenmix: efficient token mixers in vision backbones; choose, train and ship a small, fast vision model.

Importing it loads torch and timm and registers its models with timm; what else there is, is imported when it is first
used. Exported models run without torch: that is `tokenmix_runtime`, which comes with this package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

try:
    from timm import create_model
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"No module named {error.name!r}: tokenmix needs torch, torchvision and timm (pip install tokenmix); exported "
        "models run without them: python -m tokenmix_runtime MODEL.onnx IMAGE..., or import tokenmix_runtime",
        name=error.name,
    ) from None

from tokenmix.backbones.reparameterize import reparameterize
from tokenmix.mixers import list_mixers, make_mixer
from tokenmix.version import __version__

if TYPE_CHECKING:
    from tokenmix.calls import evaluate, export, predict, train
    from tokenmix.checkpoints import load_checkpoint
    from tokenmix.comparison import compare
    from tokenmix.compilation import compile
    from tokenmix.inspection import inspect
    from tokenmix.tasks.super_resolution.calls import upscale

__all__ = [
    "__version__",
    "compare",
    "compile",
    "create_model",
    "evaluate",
    "export",
    "inspect",
    "list_mixers",
    "load_checkpoint",
    "make_mixer",
    "predict",
    "reparameterize",
    "train",
    "upscale",
]

_LATER = {
    "compare": "tokenmix.comparison",
    "inspect": "tokenmix.inspection",
    "compile": "tokenmix.compilation",
    "load_checkpoint": "tokenmix.checkpoints",
    "predict": "tokenmix.calls",
    "upscale": "tokenmix.tasks.super_resolution.calls",
}
_CALLED = ("evaluate", "export", "train")  # modules that are called, see `tokenmix.callable_modules`


def __getattr__(name: str):
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    if name in _CALLED:
        return importlib.import_module(f"tokenmix.{name}")
    raise AttributeError(f"module 'tokenmix' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
