"""What is here, without anything that names its owner: what ``tokenmix env`` prints and reports of problems ask for.

It needs no package: what is missing, or cannot be loaded, is a fact of it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import re
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from tokenmix_runtime.cores import cpu_quota, usable_cores
from tokenmix_runtime.terminal import say

OWN = "tokenmix"
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES")  # which decide threads and devices
_NEEDED = re.compile(r"""([\w.-]+)[^;]*(?:;.*extra\s*==\s*['"]([\w-]+)['"])?""")


def environment() -> dict[str, Any]:
    """Versions, machine, devices, threads and optional packages as plain values for JSON; what is unknown is None.

    ``packages`` are those that are needed and ``optional`` those of each extra: a version, or None where it is not
    installed. ``devices`` are those that PyTorch can use; ``torch_error`` says why there are none where PyTorch is
    missing or cannot be loaded, in its own words. Nothing else names a host, user or path.

    Examples:
        >>> from tokenmix_runtime.environment import environment
        >>> sorted(environment())[:4]
        ['architecture', 'cores', 'cpu', 'cpu_quota']
    """
    quota = cpu_quota()
    needed, optional = _required()
    return {
        OWN: version(OWN),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "cpu": processor(),
        "cores": usable_cores(),
        "cpu_quota": quota if quota < float("inf") else None,
        "memory_gb": memory_gb(),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        **_torch(),
        "onnxruntime_providers": _providers(),
        "packages": {name: version(name) for name in needed},
        "optional": {extra: {name: version(name) for name in names} for extra, names in optional.items()},
    }


def text(facts: dict[str, Any]) -> str:
    """The facts of `environment` as lines, the optional packages with the command that installs what is missing."""
    size = "" if facts["memory_gb"] is None else f", {facts['memory_gb']:g} GB"
    quota = "" if facts["cpu_quota"] is None else f", quota of {facts['cpu_quota']:g}"
    lines = [
        (OWN, facts[OWN] or "not installed, used from its source"),
        ("Python", f"{facts['python']}, {facts['system']}, {facts['architecture']}"),
        ("processor", f"{facts['cpu'] or 'unknown'}, {facts['cores']} cores{quota}{size}"),
        ("devices", ", ".join(facts["devices"]) or "none"),
        ("threads", "unknown" if facts["threads"] is None else f"{facts['threads']} within an operator of PyTorch"),
        ("ONNX Runtime", ", ".join(facts["onnxruntime_providers"] or ["not installed"])),
        *facts["variables"].items(),
    ]
    if facts["torch_error"]:
        lines.append(("PyTorch", f"cannot be loaded: {facts['torch_error']}"))
    lines += [(name, found or "missing") for name, found in facts["packages"].items()]
    for extra, names in facts["optional"].items():
        told = ", ".join(f"{name} {found}" if found else f"{name} missing" for name, found in names.items())
        remedy = "" if all(names.values()) else f" (pip install '{OWN}[{extra}]')"
        lines.append((f"[{extra}]", told + remedy))
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {told}" for name, told in lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tokenmix env``."""
    parser.add_argument("--json", action="store_true", help="print as JSON")


def main(words: Sequence[str]) -> int:
    """``tokenmix env`` where the rest of tokenmix cannot be loaded; returns the exit code."""
    parser = argparse.ArgumentParser(prog=f"{OWN} env", description=__doc__, allow_abbrev=False)
    add_arguments(parser)
    answer(parser.parse_args(words))
    return 0


def answer(args: argparse.Namespace) -> None:
    """Print the facts."""
    facts = environment()
    say(json.dumps(facts, indent=1) if args.json else text(facts))


def version(package: str) -> str | None:
    """The installed version of a package; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def processor() -> str | None:
    """The processor's name, if the system says it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or None


def memory_gb() -> float | None:
    """The machine's memory in 1e9 bytes, if the system says it."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, OSError, ValueError):
        return None


def _required() -> tuple[list[str], dict[str, list[str]]]:
    """What the installed package needs, and what each of its extras adds, by its own metadata."""
    try:
        lines = metadata.requires(OWN) or []
    except metadata.PackageNotFoundError:
        return ["torch", "torchvision", "timm", "numpy", "pillow", "onnxruntime"], {}
    needed: list[str] = []
    optional: dict[str, list[str]] = {}
    for line in lines:
        found = _NEEDED.match(line)
        if found is None or found[1] == OWN:
            continue
        (optional.setdefault(found[2], []) if found[2] else needed).append(found[1])
    return needed, optional


def _torch() -> dict[str, Any]:
    """Devices and threads of PyTorch."""
    try:
        torch = importlib.import_module("torch")
        devices = ["cpu"]
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            devices.append(f"cuda:{index} ({properties.name}, {properties.total_memory / 1e9:.0f} GB)")
        if torch.backends.mps.is_available():
            devices.append("mps")
        return {"devices": devices, "cuda": torch.version.cuda, "threads": torch.get_num_threads(), "torch_error": None}
    except Exception as error:  # whatever a broken installation raises is what is asked for here
        return {"devices": [], "cuda": None, "threads": None, "torch_error": f"{type(error).__name__}: {error}"}


def _providers() -> list[str] | None:
    """The execution providers of ONNX Runtime; None where it is missing or cannot be loaded."""
    try:
        return list(importlib.import_module("onnxruntime").get_available_providers())
    except Exception:
        return None
