"""The machine that a measurement was taken on, without anything that names its owner."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import torch

from tokenmix_runtime.cores import usable_cores

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
    """
    return {
        "cpu": _cpu(),
        "cores": usable_cores(),
        "memory_gb": _memory_gb(),
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
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _cpu() -> str | None:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or None


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, OSError, ValueError):
        return None
