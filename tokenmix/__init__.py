"""tokenmix: efficient token mixers in vision backbones; choose, train and ship a small, fast vision model.

Importing it registers its models with timm. Everything else is imported when it is first used.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING

from tokenmix.version import __version__

if TYPE_CHECKING:
    from timm import create_model

    from tokenmix.backbones.reparameterize import reparameterize
    from tokenmix.checkpoints import load_checkpoint
    from tokenmix.comparison import compare
    from tokenmix.mixers import list_mixers, make_mixer

__all__ = [
    "__version__",
    "compare",
    "create_model",
    "list_mixers",
    "load_checkpoint",
    "make_mixer",
    "reparameterize",
]

_PUBLIC = {
    "compare": "tokenmix.comparison",
    "create_model": "timm",
    "list_mixers": "tokenmix.mixers",
    "load_checkpoint": "tokenmix.checkpoints",
    "make_mixer": "tokenmix.mixers",
    "reparameterize": "tokenmix.backbones.reparameterize",
}

# The run-time part of the package also works where torch is not installed.
if importlib.util.find_spec("torch") is not None and importlib.util.find_spec("timm") is not None:
    importlib.import_module("tokenmix.backbones")


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'tokenmix' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
