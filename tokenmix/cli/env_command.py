"""Print what is here: versions, devices, threads, optional packages. Reports of problems ask for it.

It names no host, user or path, and works where PyTorch is missing or cannot be loaded, too.
"""

from __future__ import annotations

from tokenmix_runtime.environment import add_arguments
from tokenmix_runtime.environment import answer as run

__all__ = ["add_arguments", "run"]
