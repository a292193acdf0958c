"""Answers in the form of the question: a cloud with its predicted classes, in the format of the file that was given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenmix.files import atomic_path, short_name
from tokenmix.tasks.points.cloud import Cloud, CloudError
from tokenmix.tasks.points.picture import painted
from tokenmix.tasks.points.ply import write_ply


def write_answer(
    source: Path, target: Path, cloud: Cloud, segment: NDArray[np.int64], classes: Sequence[str], confidence: Any = None
) -> Path:
    """Write a cloud with these labels, and the colours of its classes, in the format of its source; returns the path.

    What comes from PLY, text and ``.npy`` files is written so; from LAS with everything else that the file had, its
    colours unchanged where there are any; everything else (``.pth``, ``.npz`` and folders) as ``.npz``.

    Args:
        source: The file or folder that was given.
        target: Where to, without the ending, which is that of the source, or ``.npz``.
        cloud: What was read from it.
        segment: (P,) the predicted classes.
        classes: Their names.
        confidence: (P,) how sure the model is, 0 to 1; kept where the format has columns with names.

    Raises:
        CloudError: It cannot be written in this format, or would replace its source.
    """
    labelled = dataclasses.replace(cloud, segment=segment, color=painted(segment, len(classes)).astype(np.float32))
    suffix = source.suffix.lower() if source.is_file() else ""
    target = target.with_name(short_name(target.name, suffix if suffix in WRITERS else ".npz"))
    if target.resolve() == source.resolve():
        raise CloudError(f"{target} is what was given: choose another folder with --out")
    WRITERS.get(suffix, _write_npz)(source, target, labelled, classes, confidence)
    return target


def _write_ply(source: Path, target: Path, cloud: Cloud, classes: Sequence[str], confidence: Any) -> None:
    write_ply(target, cloud, classes=classes, extra={} if confidence is None else {"confidence": confidence})


def _table(cloud: Cloud) -> NDArray[np.float64]:
    """(P, 7): coordinates, colours, labels."""
    assert cloud.color is not None
    assert cloud.segment is not None
    return np.column_stack((cloud.world(), cloud.color, cloud.segment))


def _write_npy(source: Path, target: Path, cloud: Cloud, classes: Sequence[str], confidence: Any) -> None:
    with atomic_path(target) as temporary, temporary.open("wb") as file:
        np.save(file, _table(cloud))


def _write_text(source: Path, target: Path, cloud: Cloud, classes: Sequence[str], confidence: Any) -> None:
    with atomic_path(target) as temporary:
        np.savetxt(temporary, _table(cloud), fmt=["%.6f"] * 3 + ["%d"] * 4, header="x y z red green blue label")


def _write_npz(source: Path, target: Path, cloud: Cloud, classes: Sequence[str], confidence: Any) -> None:
    arrays = {"coord": cloud.world(), "color": cloud.color, "segment": cloud.segment, "classes": np.array(classes)}
    if confidence is not None:
        arrays["confidence"] = np.asarray(confidence)
    with atomic_path(target) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _write_las(source: Path, target: Path, cloud: Cloud, classes: Sequence[str], confidence: Any) -> None:
    """The source's points with their classification replaced, and colours where it had none."""
    import laspy

    las = laspy.read(source)
    assert cloud.segment is not None
    assert cloud.color is not None
    if int(cloud.segment.max()) > 31 and "classification_flags" not in set(las.point_format.dimension_names):
        las = laspy.convert(las, point_format_id=7)  # older formats know 32 classes
    try:
        las.classification = cloud.segment.clip(0, 255)
        names = set(las.point_format.dimension_names)
        if {"red", "green", "blue"} <= names and not np.asarray(las["red"]).any():
            for column, name in enumerate(("red", "green", "blue")):
                las[name] = (cloud.color[:, column] * 257).astype(np.uint16)
        with atomic_path(target) as temporary, temporary.open("wb") as file:
            las.write(file, do_compress=target.suffix.lower() == ".laz")
    except (OverflowError, ValueError) as error:
        raise CloudError(f"{target} cannot be written as LAS: {error}") from None


WRITERS: Mapping[str, Callable[[Path, Path, Cloud, Sequence[str], Any], None]] = {
    ".ply": _write_ply,
    ".npy": _write_npy,
    ".txt": _write_text,
    ".xyz": _write_text,
    ".las": _write_las,
    ".laz": _write_las,
}
