"""Optional packages: imported where they are used, with an error that says how to get them."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Iterator
from importlib import metadata
from types import ModuleType

import torch


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


def matching(module: str, extra: str) -> ModuleType:
    """Import a module of an optional package that is bound to certain versions of torch.

    Raises:
        ImportError: The package is missing, or too old or too new for the installed torch; the message gives the
            commands that help.
    """
    package = module.split(".")[0]
    try:
        with quiet():
            require(package, extra)
            return importlib.import_module(module)
    except Exception as error:  # packages that do not fit fail with anything
        if isinstance(error, ImportError) and error.name == package:
            raise
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ImportError(
            f"{package} {metadata.version(package)} does not work with torch {torch.__version__} ({reason}): install "
            f"the newest with pip install -U 'tokenmix[{extra}]', or both in an environment of their own: "
            f"python -m venv export && export/bin/pip install 'tokenmix[{extra}]'",
            name=package,
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[io.StringIO]:
    """Catch what exporters print, log and warn about while they work; the text is yielded."""
    said = io.StringIO()
    disabled = logging.root.manager.disable
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield said
        finally:
            logging.disable(disabled)
