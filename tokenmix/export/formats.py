"""The formats that a model is written in, by name: what each can hold, how it is written and how it is run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from tokenmix.export.prepare import Prepared

PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class Format:
    """One runtime's file format. Packages are imported inside the functions, never with this module.

    Attributes:
        name: As in ``--to``.
        suffix: Of the file or folder, with its dot.
        extra: The extra of tokenmix that brings the packages.
        precisions: Those of `PRECISIONS` that can be written.
        write: ``(prepared, path, precision, calibration) -> facts`` writes the file and returns what the manifest
            shall say about it: operators, versions, parts kept in float. ``calibration`` holds input batches for int8.
        run: ``(path, images) -> outputs`` loads the file back in its runtime and runs it once; None where the runtime
            does not exist on this system, then ``inspect`` must be given.
        inspect: ``(path, prepared) -> facts`` checks operators, types and shapes without running.
        dynamic_batch: The format can hold a dynamic batch size.
        dynamic_size: The format can hold dynamic heights and widths.
    """

    name: str
    suffix: str
    extra: str
    precisions: tuple[str, ...]
    write: Callable[[Prepared, Path, str, Sequence[Tensor]], dict[str, Any]]
    run: Callable[[Path, Tensor], list[np.ndarray]] | None = None
    inspect: Callable[[Path, Prepared], dict[str, Any]] | None = None
    dynamic_batch: bool = True
    dynamic_size: bool = False


FORMATS: dict[str, Format] = {}
