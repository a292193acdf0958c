"""Rooms whose names are what users call too: ``tokenmix.train`` is a package, and trains when it is called.

``from tokenmix.train import fit`` reaches into the room; ``tokenmix.train("photos")`` is `tokenmix.calls.train`.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class _CallableModule(ModuleType):
    """A module that is called like the function of its name in ``tokenmix.calls``."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return function_of(self.__name__)(*args, **kwargs)


def function_of(module: str) -> Any:
    """The function that a module's name stands for."""
    return getattr(importlib.import_module("tokenmix.calls"), module.rpartition(".")[2])


def make_callable(module: str) -> None:
    """Let a module be called, by its full name."""
    sys.modules[module].__class__ = _CallableModule
