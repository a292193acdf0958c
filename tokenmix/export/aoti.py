"""AOTInductor: a ``.aoti.pt2`` package of native code, which torch runs without compiling and without the model's code.

For the kind of processor that it was written on, and with the same torch. Loading one runs what is in it, so that only
our own are loaded, see `tokenmix.safety.permit_native`. The native code itself looks neither at shapes nor at types nor
at the order in memory of what it is given: whoever loads a package by torch alone must see to that.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokenmix.export.errors import ExportError
from tokenmix.export.extras import quiet
from tokenmix.export.prepare import Prepared
from tokenmix.export.program import trace
from tokenmix.files import atomic_path, sha256
from tokenmix.safety import permit_native, trusting, vouch_for
from tokenmix_runtime.untrusted import parse_json, shown

METADATA = "extra/tokenmix.json"
"""The manifest's name in the archive, below its first folder."""

_FACTS = "tokenmix"  # our entry among what AOTInductor keeps of a package
# Code for any number of threads, weights as constants, no search among kernels.
_OPTIONS = {"freezing": True, "cpp.dynamic_threads": True}

Run = Callable[[Tensor], list[Tensor]]


def no_compiler() -> str | None:
    """Why torch can generate no code for the CPU here, or None if it can."""
    if sys.platform == "win32":
        found = shutil.which("cl")
    else:
        names = filter(None, (os.environ.get("CXX"), "c++", "g++", "clang++"))
        found = next(filter(None, map(shutil.which, names)), None)
    return None if found else "it needs a C++ compiler, and none is installed"


def write_aoti(prepared: Prepared, path: Path, precision: str, calibration: Sequence[Tensor] = ()) -> dict[str, Any]:
    """Write a package in float32; the C++ compiler works on it for a minute.

    Returns:
        ``machine``: for which processors and which torch it is; ``versions``.

    Raises:
        ExportError: There is no compiler, or the model cannot be exported; the message says what stands in the way.
    """
    if reason := no_compiler():
        raise ExportError(f"{prepared.name} cannot become a package of native code: {reason} (apt install g++)")
    program = trace(prepared)
    shape = [None if axis in prepared.open_axes else length for axis, length in enumerate(prepared.sample.shape)]
    facts = {"shape": shape, "dtype": _type_name(prepared.sample), "machine": this_machine()}
    options = {**_OPTIONS, "aot_inductor.metadata": {_FACTS: json.dumps(facts)}}
    try:
        with quiet(), torch.no_grad():
            torch._inductor.aoti_compile_and_package(program, package_path=os.fspath(path), inductor_configs=options)
    except Exception as error:  # whatever its passes and the compiler raise
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ExportError(f"AOTInductor cannot take {prepared.name}: {reason}") from error
    _rewrite(path, {})
    return {"machine": facts["machine"], "versions": {"torch": torch.__version__}}


def embed_aoti(path: Path, manifest: Mapping[str, Any]) -> None:
    """Put a manifest into a package, as its file `METADATA`."""
    _rewrite(path, {METADATA: json.dumps(manifest)})


def run_aoti(path: Path, images: Tensor) -> list[np.ndarray]:
    """Load a package that this process has written, and run it once."""
    return [output.numpy() for output in load_aoti(path)(images)]


def load_aoti(path: str | os.PathLike[str], *, trust: bool = False) -> Run:
    """What a package computes, as a function of one tensor that returns its outputs in a list.

    It may be called by several threads. Inputs of another shape or type than the package is for are refused; they are
    brought into the usual order in memory.

    Args:
        path: The file, as ``tokenmix export --to aoti`` wrote it.
        trust: The file is your own. Loading it runs the native code in it.

    Raises:
        ValueError: It is not our own and not trusted, no such package, or one for another machine or torch.

    Examples:
        >>> run = load_aoti("model.aoti.pt2", trust=True)  # doctest: +SKIP
        >>> (logits,) = run(torch.zeros(1, 3, 224, 224))  # doctest: +SKIP
    """
    name = os.fspath(path)
    if not Path(path).is_file():
        raise ValueError(f"no such file: {name}")
    with trusting(trust):
        permit_native(path, sha256(path))
    facts = _facts(Path(path))
    if facts["machine"] != this_machine():
        raise ValueError(
            f"{name} is for {_told(facts['machine'])}, and this is {_told(this_machine())}: export the model here"
        )
    with quiet(), torch.no_grad():
        package = torch._inductor.aoti_load_package(name)
    shape, dtype = facts["shape"], facts["dtype"]

    def run(x: Tensor) -> list[Tensor]:
        fits = len(x.shape) == len(shape) and all(
            wanted in (None, given) for given, wanted in zip(x.shape, shape, strict=True)
        )
        if not fits or _type_name(x) != dtype or x.device.type != "cpu":
            wanted = " x ".join("any" if side is None else str(side) for side in shape)
            raise ValueError(
                f"{name} takes {dtype} of {wanted} on the CPU, not {_type_name(x)} of {tuple(x.shape)} on {x.device}"
            )
        with torch.no_grad():
            outputs = package(x.resolve_neg().contiguous())
        return [outputs] if isinstance(outputs, Tensor) else list(outputs)

    return run


def this_machine() -> dict[str, str]:
    """What native code depends on: system, processor, its vector instructions, and the version of torch."""
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }


def _told(machine: Mapping[str, str]) -> str:
    values = [str(machine.get(name, "?")) for name in ("system", "architecture", "vector_instructions")]
    return f"{' '.join(values)} with torch {machine.get('torch', '?')}"


def _type_name(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def _facts(path: Path) -> dict[str, Any]:
    """What `write_aoti` noted in a package, which is read without running anything of it."""
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith(".wrapper_metadata.json"))
            facts = parse_json(parse_json(archive.read(name).decode())[_FACTS])
        if not isinstance(facts["shape"], list) or not isinstance(facts["machine"], dict):
            raise TypeError(f"it says {shown(facts)}")
        return {"shape": facts["shape"], "dtype": facts["dtype"], "machine": facts["machine"]}
    except (OSError, zipfile.BadZipFile, StopIteration, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no package of `tokenmix export --to aoti`: {error or 'it says nothing'}") from None


def _rewrite(path: Path, more: Mapping[str, str]) -> None:
    """The package without the sources, which name folders of this machine, and with further files; vouched for."""
    with atomic_path(path) as temporary, zipfile.ZipFile(path) as old:
        root = old.namelist()[0].partition("/")[0]
        replaced = {f"{root}/{name}": text for name, text in more.items()}
        with zipfile.ZipFile(temporary, "w") as new:
            for entry in old.infolist():
                if not entry.filename.endswith(".cpp") and entry.filename not in replaced:
                    new.writestr(entry, old.read(entry))
            for name, text in replaced.items():
                new.writestr(zipfile.ZipInfo(name), text)
    vouch_for(sha256(path))
