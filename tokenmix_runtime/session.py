"""ONNX Runtime's session of a file, which goes along where a program copies itself."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from tokenmix_runtime.cores import cpu_quota, usable_cores
from tokenmix_runtime.manifest import ModelError
from tokenmix_runtime.untrusted import regular_file

_LEFT: list[Any] = []  # of forked processes: sessions of the parent, whose end would wait for threads that are not here


class Session:
    """A file's graph on the CPU.

    ONNX Runtime's threads do not come along when a process is forked, and a run there would wait for them for ever: the
    file is opened anew.

    Args:
        path: The file.
        threads: Of ONNX Runtime; None: as many as there are cores, or as a container's CPU quota allows.

    Raises:
        ImportError: onnxruntime is not installed.
        ModelError: There is no such file, or it is damaged.
        ValueError: ``threads`` is below 1.
    """

    def __init__(self, path: str, threads: int | None) -> None:
        self.path, self.threads, self._process = path, threads, os.getpid()
        self._opened = _open(path, threads)

    def here(self) -> Any:
        """ONNX Runtime's own session, of this process."""
        if self._process != os.getpid():
            _LEFT.append(self._opened)
            self._opened, self._process = _open(self.path, self.threads), os.getpid()
        return self._opened

    def run(self, inputs: dict[str, Any]) -> list[Any]:
        """All outputs."""
        return self.here().run(None, inputs)


def _open(path: str, threads: int | None) -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ImportError("this needs onnxruntime, which is not installed: pip install onnxruntime") from error
    if not Path(path).exists() or Path(path).is_dir():
        raise ModelError(f"no such file: {path}")
    try:
        regular_file(path)
    except ValueError as error:
        raise ModelError(str(error)) from None
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be 1 or more, not {threads}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised
    if threads is None and math.isfinite(cpu_quota()):  # which ONNX Runtime does not ask for
        threads = usable_cores()
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has one class per status and no common public base
        raise ModelError(
            f"{path} is damaged, is no ONNX file, or needs a newer ONNX Runtime than {onnxruntime.__version__} "
            f"({first_line(error)}): copy it again, or export it again"
        ) from None


def first_line(error: Exception) -> str:
    """The first line of what an error says."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
