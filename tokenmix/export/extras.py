"""Optional packages: imported where they are used, with an error that says how to get them."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(package: str, extra: str = "onnx") -> ModuleType:
    """Import an optional package.

    Args:
        package: The module to import, for example ``"onnxruntime"``.
        extra: The extra of tokenmix that brings it.

    Raises:
        ImportError: It is not installed; the message gives the command that installs it.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != package.split(".")[0]:
            raise
        raise ImportError(
            f"this needs the package {package!r}, which is not installed: pip install 'tokenmix[{extra}]'", name=package
        ) from error
