"""tokenmix: efficient token mixers in vision backbones; choose, train and ship a small, fast vision model.

Importing it registers its models with timm. Everything is imported when it is first used: `tokenmix.runtime` works
without torch and timm, and does not load them where they are.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
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


class _WithTimm(importlib.abc.MetaPathFinder):
    """Has our models registered as soon as timm has been imported, by whomever."""

    searching = False

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "timm" or self.searching:
            return None
        self.searching = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self.searching = False
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                importlib.import_module("tokenmix.backbones")

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if "timm" in sys.modules:
    importlib.import_module("tokenmix.backbones")
else:
    sys.meta_path.insert(0, _WithTimm())


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'tokenmix' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
