"""Files of clouds as people have them: PLY, LAS and LAZ, NumPy, text, and Pointcept's folders and ``.pth`` files.

Files are strangers': nothing in them is run, and no size in them is believed before the file has it.
"""

from __future__ import annotations

import os
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tokenmix.backbones.official import ALLOWED
from tokenmix.tasks.points.cloud import MAX_POINTS, Cloud, CloudError, make_cloud
from tokenmix.tasks.points.column_names import known_columns
from tokenmix.tasks.points.ply import read_ply
from tokenmix_runtime.untrusted import regular_file, shown

# What Pointcept's versions call the labels; ScanNet's 20 classes are taken unless its 200 are asked for.
SEGMENTS = ("segment", "segment20", "semantic_gt", "semantic_gt20")
SEGMENTS_200 = ("segment200", "semantic_gt200")
# Columns of an array without names, by their number. Directions of length 1 in the place of colours are normals, and a
# fourth of four columns that cannot be labels is a strength.
LAYOUTS: Mapping[int, tuple[str, ...]] = {
    3: ("coord",),
    4: ("coord", "segment"),
    6: ("coord", "color"),
    7: ("coord", "color", "segment"),
    9: ("coord", "color", "normal"),
    10: ("coord", "color", "normal", "segment"),
}
_UNIT = 0.05  # by how much the length of a normal may miss 1
MOST_LABELS = 50  # how many a column without a name may have before it is none of labels


def read_cloud(path: str | os.PathLike[str], *, segments: tuple[str, ...] = SEGMENTS) -> Cloud:
    """The cloud in a file, or in a folder of Pointcept's.

    Args:
        path: By its ending ``.ply``, ``.las``, ``.laz``, ``.npy``, ``.npz``, ``.txt``, ``.xyz`` or ``.pth``; or a
            folder that has ``coord.npy``. A text may name its columns in the line above the numbers; an array without
            names has the columns of `LAYOUTS`.
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
    except (ValueError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:  # damaged archives
        raise CloudError(f"{path} cannot be read: {error or type(error).__name__}") from None
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
    if layout[1:2] == ("color",) and "normal" not in layout and len(array):
        lengths = np.linalg.norm(array[:, 3:6].astype(np.float64), axis=1)
        if np.abs(lengths - 1).max() <= _UNIT:
            layout = ("coord", "normal", *layout[2:])
        elif np.nanmin(array[:, 3:6]) < 0:
            raise CloudError(f"{path}: columns 4 to 6 are below zero and no directions, so neither colours nor normals")
    if layout[-1] == "segment" and not _labels_may_be(array[:, -1]):
        if len(layout) > 2:
            raise CloudError(
                f"{path}: its last column would be labels, and has fractions or more than {MOST_LABELS} values: name "
                "the columns, in a text by a line such as 'x y z intensity red green blue', in arrays by numpy.savez"
            )
        layout = ("coord", "strength")
    parts, begin = {}, 0
    for name in layout:
        width = 1 if name in ("segment", "strength") else 3
        parts[name] = array[:, begin] if width == 1 else array[:, begin : begin + 3]
        begin += width
    return make_cloud(**parts, name=str(path))


def _labels_may_be(values: NDArray[Any]) -> bool:
    """Whether numbers without a name may be the labels of points: whole, and of few kinds."""
    return bool(np.array_equal(values, np.rint(values))) and len(np.unique(values)) <= MOST_LABELS


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
    with path.open("rb") as file, zipfile.ZipFile(file):  # NumPy leaves damaged archives open
        file.seek(0)
        archive = np.load(file, allow_pickle=False)
        total = sum(entry.file_size for entry in archive.zip.infolist())
        if total > 128 * MAX_POINTS:
            raise CloudError(f"{path} would unpack to {total:,} bytes, more than any cloud has")
        wanted = ("coord", "color", "normal", "strength", *segments)
        return _named({name: archive[name] for name in archive.files if name in wanted}, path, segments)


def _read_text(path: Path, segments: tuple[str, ...]) -> Cloud:
    """Numbers in columns, with spaces, commas or semicolons between; the line above them may name the columns."""
    skipped, above, first = 0, "", ""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for line in file:
            if _numbers(first := line.strip()):
                break
            above = first or above
            skipped += 1
            if skipped > 100:
                raise CloudError(f"{path} begins with 100 lines that are no numbers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an empty file is told below
        options: dict[str, Any] = {"skiprows": skipped, "max_rows": MAX_POINTS + 1, "encoding": "utf-8-sig"}
        table = np.loadtxt(path, ndmin=2, delimiter=_mark(first), **options)
    above = above.lstrip("#/ ")
    names = [name.strip().strip('"') for name in above.split(_mark(above))]
    known = known_columns(names)
    if "coord" not in known:
        return _columns(table, path)
    if len(names) != table.shape[1]:
        raise CloudError(f"{path}: the line {shown(above)} names {len(names)} columns, and there are {table.shape[1]}")
    parts = {part: table[:, own[0]] if len(own) == 1 else table[:, own] for part, own in known.items()}
    return make_cloud(**parts, name=str(path))


def _mark(line: str) -> str | None:
    """What stands between the columns of a line; None: spaces."""
    return next((mark for mark in (",", ";") if mark in line), None)


def _numbers(line: str) -> bool:
    """Whether a line is one of three numbers or more."""
    words = line.split(_mark(line))
    try:
        return len([float(word) for word in words]) >= 3
    except ValueError:
        return False


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
        str(name): value.value if isinstance(value, _Array) else _plain(value)
        for name, value in content.items()
        if (isinstance(value, _Array) and value.value is not None) or isinstance(value, torch.Tensor)
    }
    return _named(arrays, path, segments)


def _plain(tensor: torch.Tensor) -> NDArray[Any]:
    """Its numbers; NumPy has no bfloat16."""
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


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
