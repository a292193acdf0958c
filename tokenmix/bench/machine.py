"""The machine that a measurement was taken on, without anything that names its owner."""

from __future__ import annotations

import os
import platform
from typing import Any

import torch

from tokenmix_runtime.cores import usable_cores
from tokenmix_runtime.environment import memory_gb, processor, version

PACKAGES = (
    "tokenmix",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "openvino",
    "executorch",
    "coremltools",
)


def describe() -> dict[str, Any]:
    """CPU, memory, system, versions, threads, GPU and load, as plain values for JSON; what is unknown is None.

    No host name, user or path is in it. ``cores`` are those that this process may use, see `usable_cores`,
    ``memory_gb`` is in 1e9 bytes, ``load_average`` is over 1, 5 and 15 minutes, ``threads`` is what PyTorch uses within
    an operator.

    Examples:
        >>> list(describe())[:5]
        ['cpu', 'cores', 'memory_gb', 'gpu', 'system']
    """
    return {
        "cpu": processor(),
        "cores": usable_cores(),
        "memory_gb": memory_gb(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "load_average": load_average(),
        "versions": versions(),
    }


def load_average() -> list[float] | None:
    """Over 1, 5 and 15 minutes; None where the system does not say."""
    return [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None


def versions() -> dict[str, str]:
    """Version of Python and of each package that matters to a measurement and is installed."""
    found = {"python": platform.python_version()}
    return found | {name: installed for name in PACKAGES if (installed := version(name)) is not None}
