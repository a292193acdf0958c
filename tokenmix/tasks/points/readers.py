"""Files of clouds as people have them: PLY, LAS and LAZ, NumPy, text, and Pointcept's folders and ``.pth`` files.

Files are strangers': nothing in them is run, and no size in them is believed before the file has it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tokenmix.backbones.official import ALLOWED
from tokenmix.tasks.points.cloud import MAX_POINTS, Cloud, CloudError, make_cloud
from tokenmix.tasks.points.ply import read_ply
from tokenmix_runtime.untrusted import regular_file

# What Pointcept's versions call the labels; ScanNet's 20 classes are taken unless its 200 are asked for.
SEGMENTS = ("segment", "segment20", "semantic_gt", "semantic_gt20")
SEGMENTS_200 = ("segment200", "semantic_gt200")
# Columns of an array without names, by their number; directions below zero are normals in the place of colours.
LAYOUTS: Mapping[int, tuple[str, ...]] = {
    3: ("coord",),
    4: ("coord", "segment"),
    6: ("coord", "color"),
    7: ("coord", "color", "segment"),
    9: ("coord", "color", "normal"),
    10: ("coord", "color", "normal", "segment"),
}
_UNIT = 0.05  # by how much the length of a normal may miss 1


def read_cloud(path: str | os.PathLike[str], *, segments: tuple[str, ...] = SEGMENTS) -> Cloud:
    """The cloud in a file, or in a folder of Pointcept's.

    Args:
        path: By its ending ``.ply``, ``.las``, ``.laz``, ``.npy``, ``.npz``, ``.txt``, ``.xyz`` or ``.pth``; or a
            folder that has ``coord.npy``. An array without names has the columns of `LAYOUTS`.
        segments: The names, in named arrays, under which the labels are looked for.

    Raises:
        CloudError: It is none, damaged, or of an unknown kind.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return _read_folder(path, segments)
        reader = READERS.get(path.suffix.lower())
        if reader is None:
            raise CloudError(f"{path}: clouds are read from {', '.join(READERS)} and folders with coord.npy")
        return reader(regular_file(path), segments)
    except CloudError:
        raise
    except OSError as error:
        raise CloudError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise CloudError(f"{path} cannot be read: {error}") from None
    except MemoryError:
        raise CloudError(f"{path} does not fit into memory: cut it into parts") from None


def is_cloud(path: Path) -> bool:
    """Whether something of this name could be a cloud: by its ending, or by what the folder holds."""
    return (path / "coord.npy").is_file() if path.is_dir() else path.suffix.lower() in READERS


def _named(arrays: Mapping[str, Any], path: Path, segments: tuple[str, ...]) -> Cloud:
    """A cloud from arrays by Pointcept's names."""
    if "coord" not in arrays:
        raise CloudError(f"{path} has no array named coord, but {', '.join(sorted(arrays)[:20]) or 'nothing'}")
    label = next((arrays[name] for name in segments if name in arrays), None)
    optional = {name: arrays[name] for name in ("color", "normal", "strength") if name in arrays}
    return make_cloud(arrays["coord"], **optional, segment=label, name=str(path))


def _columns(array: NDArray[Any], path: Path) -> Cloud:
    """A cloud from a matrix without names."""
    if array.ndim != 2 or array.shape[1] not in LAYOUTS:
        known = "; ".join(f"{count}: {', '.join(parts)}" for count, parts in LAYOUTS.items())
        raise CloudError(
            f"{path} has an array of the shape {array.shape}, and a cloud has one row per point and these columns "
            f"({known})"
        )
    layout = LAYOUTS[array.shape[1]]
    if layout[1:2] == ("color",) and "normal" not in layout and len(array) and np.nanmin(array[:, 3:6]) < 0:
        if np.abs(np.linalg.norm(array[:, 3:6], axis=1) - 1).max() > _UNIT:
            raise CloudError(f"{path}: columns 4 to 6 are below zero and no directions, so neither colours nor normals")
        layout = ("coord", "normal", *layout[2:])
    parts, begin = {}, 0
    for name in layout:
        width = 1 if name == "segment" else 3
        parts[name] = array[:, begin] if width == 1 else array[:, begin : begin + 3]
        begin += width
    return make_cloud(**parts, name=str(path))


def _load_array(path: Path) -> NDArray[Any]:
    """An array from a ``.npy`` file, which says its shape before its bytes."""
    array = np.load(regular_file(path), allow_pickle=False, mmap_mode="r")  # a map fails where bytes are missing
    if not isinstance(array, np.ndarray) or array.size > 16 * MAX_POINTS:
        raise CloudError(f"{path} holds no array, or one of more than {16 * MAX_POINTS:,} numbers")
    return np.array(array)


def _read_folder(path: Path, segments: tuple[str, ...]) -> Cloud:
    names = ("coord", "color", "normal", "strength", *segments)
    return _named(
        {name: _load_array(path / f"{name}.npy") for name in names if (path / f"{name}.npy").exists()}, path, segments
    )


def _read_npy(path: Path, segments: tuple[str, ...]) -> Cloud:
    return _columns(_load_array(path), path)


def _read_npz(path: Path, segments: tuple[str, ...]) -> Cloud:
    """Arrays by Pointcept's names; compressed ones are not unpacked beyond what a cloud may have."""
    with np.load(path, allow_pickle=False) as archive:
        total = sum(entry.file_size for entry in archive.zip.infolist())
        if total > 128 * MAX_POINTS:
            raise CloudError(f"{path} would unpack to {total:,} bytes, more than any cloud has")
        wanted = ("coord", "color", "normal", "strength", *segments)
        return _named({name: archive[name] for name in archive.files if name in wanted}, path, segments)


def _read_text(path: Path, segments: tuple[str, ...]) -> Cloud:
    """Numbers in columns, with spaces, commas or semicolons between; lines of other text at the start are left out."""
    with path.open(encoding="utf-8", errors="replace") as file:
        skipped, first = 0, ""
        for line in file:
            first = line.strip()
            if first and first[0] in "+-.0123456789":
                break
            skipped += 1
            if skipped > 100:
                raise CloudError(f"{path} begins with 100 lines that are no numbers")
    between = next((mark for mark in (",", ";") if mark in first), None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an empty file is told below
        table = np.loadtxt(path, ndmin=2, skiprows=skipped, delimiter=between, max_rows=MAX_POINTS, encoding="utf-8")
    return _columns(table, path)


def _read_las(path: Path, segments: tuple[str, ...]) -> Cloud:
    """Points of airborne or other laser scans, by laspy; the classification is the label, 16-bit colours are known."""
    try:
        import laspy
    except ImportError as error:
        raise CloudError(f"{path}: LAS files need laspy: pip install 'laspy[lazrs]'") from error
    try:
        with laspy.open(path) as reader:
            if reader.header.point_count > MAX_POINTS:
                raise CloudError(
                    f"{path} has {reader.header.point_count:,} points, and at most {MAX_POINTS:,} are read"
                )
            las = reader.read()
        names = set(las.point_format.dimension_names)
        columns: dict[str, Any] = {"coord": np.asarray(las.xyz)}
        if {"red", "green", "blue"} <= names:
            colour = np.stack([np.asarray(las[name]) for name in ("red", "green", "blue")], axis=1)
            columns["color"] = colour if colour.any() else None
        if {"nx", "ny", "nz"} <= names:
            columns["normal"] = np.stack([np.asarray(las[name]) for name in ("nx", "ny", "nz")], axis=1)
        if "intensity" in names:
            columns["strength"] = np.asarray(las["intensity"], np.float64) / 65535
        columns["segment"] = np.asarray(las["classification"], np.int64)
    except CloudError:
        raise
    except Exception as error:  # damaged bytes raise anything from struct, NumPy or the decompressor
        hint = (
            "; for .laz install laspy's decompressor: pip install 'laspy[lazrs]'"
            if path.suffix.lower() == ".laz"
            else ""
        )
        raise CloudError(f"{path} cannot be read as LAS: {error}{hint}") from None
    return make_cloud(**columns, name=str(path))


class _Array:
    """What a pickled NumPy array becomes: its shape, type and bytes, read without NumPy's own unpickling."""

    def __init__(self, *_: Any) -> None:
        self.value: NDArray[Any] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        if dtype.code[0] not in "?biuf" or not isinstance(data, bytes):
            raise ValueError(f"an array of {dtype.code!r} is none of numbers")
        flat = np.frombuffer(data, np.dtype(dtype.order + dtype.code))
        self.value = flat.reshape(shape, order="F" if fortran else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


_ARRAYS: list[Any] = [
    (_Array, "numpy.ndarray"),
    (_reconstruct, "numpy.core.multiarray._reconstruct"),  # NumPy 1
    (_reconstruct, "numpy._core.multiarray._reconstruct"),
]


def _read_pth(path: Path, segments: tuple[str, ...]) -> Cloud:
    """A dict of arrays as older versions of Pointcept saved it, without running any code that the file may hold."""
    try:
        with torch.serialization.safe_globals([*ALLOWED, *_ARRAYS]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes raise anything
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise CloudError(
            f"{path}: not a file of arrays alone ({reason}); where it was made, save its arrays with numpy.savez"
        ) from None
    if not isinstance(content, dict):
        raise CloudError(f"{path} holds a {type(content).__name__}, and a dict of arrays is needed")
    arrays = {
        str(name): value.value if isinstance(value, _Array) else value.numpy()
        for name, value in content.items()
        if (isinstance(value, _Array) and value.value is not None) or isinstance(value, torch.Tensor)
    }
    return _named(arrays, path, segments)


def _read_ply(path: Path, segments: tuple[str, ...]) -> Cloud:
    return read_ply(path)


READERS: Mapping[str, Callable[[Path, tuple[str, ...]], Cloud]] = {
    ".ply": _read_ply,
    ".las": _read_las,
    ".laz": _read_las,
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".txt": _read_text,
    ".xyz": _read_text,
    ".pth": _read_pth,
}
