"""PLY files: read with every count checked against the file's size, and written in binary.

Own code, because the reader that is in general use (plyfile) has a licence that ours cannot carry (GPL), and the others
come with a whole library for meshes.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenmix.files import atomic_path
from tokenmix.tasks.points.cloud import MAX_POINTS, Cloud, CloudError, make_cloud
from tokenmix.tasks.points.column_names import known_columns
from tokenmix_runtime.untrusted import regular_file, shown

TYPES = {
    "char": "i1",
    "int8": "i1",
    "uchar": "u1",
    "uint8": "u1",
    "short": "i2",
    "int16": "i2",
    "ushort": "u2",
    "uint16": "u2",
    "int": "i4",
    "int32": "i4",
    "uint": "u4",
    "uint32": "u4",
    "float": "f4",
    "float32": "f4",
    "double": "f8",
    "float64": "f8",
}
ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": ""}
_HEADER_BYTES = 1 << 16
_LINES = 2_000


@dataclass
class _Element:
    name: str
    count: int
    properties: list[tuple[str, str]]  # name, NumPy type without its byte order
    lists: bool = False


def read_ply(path: str | os.PathLike[str]) -> Cloud:
    """The points of a PLY file, its vertices; faces and other elements are left out.

    Raises:
        CloudError: It is no PLY file of points, or damaged.
        OSError: It cannot be read.
    """
    path = regular_file(path)
    with path.open("rb") as file:
        order, elements, begin = _header(file.read(_HEADER_BYTES), path)
        rows = _vertices(file, order, elements, begin, path)
    names = rows.dtype.names or ()
    columns = {
        key: rows[names[own[0]]] if len(own) == 1 else np.stack([rows[names[place]] for place in own], axis=1)
        for key, own in known_columns(names).items()
    }
    if "coord" not in columns:
        raise CloudError(f"{path}: its vertices have no x, y and z, only {', '.join(names)}")
    return make_cloud(**columns, name=str(path))


def _header(start: bytes, path: Path) -> tuple[str, list[_Element], int]:
    """Byte order ("" for text), elements, and where the data begin."""
    head, mark, _ = start.partition(b"end_header")
    if not start.startswith(b"ply") or not mark:
        raise CloudError(f"{path} is not a PLY file, or its header is longer than {_HEADER_BYTES:,} bytes")
    begin = len(head) + len(mark)
    begin += 2 if start[begin : begin + 2] == b"\r\n" else 1
    lines = head.decode("latin-1").splitlines()[1:]
    if len(lines) > _LINES:
        raise CloudError(f"{path}: the header has {len(lines):,} lines, and at most {_LINES:,} are read")
    order, elements = None, list[_Element]()
    for line in lines:
        words = line.split()
        if not words or words[0] in ("comment", "obj_info"):
            continue
        if words[0] == "format" and len(words) == 3 and words[1] in ORDERS:
            order = ORDERS[words[1]]
        elif words[0] == "element" and len(words) == 3 and words[2].isdecimal() and len(words[2]) <= 12:
            elements.append(_Element(words[1], int(words[2]), []))
        elif words[0] == "property" and elements and len(words) == 5 and words[1] == "list":
            elements[-1].lists = True
        elif words[0] == "property" and elements and len(words) == 3 and words[1] in TYPES:
            elements[-1].properties.append((words[2], TYPES[words[1]]))
        else:
            raise CloudError(f"{path}: the line {shown(line.strip())} of its header cannot be read")
    if order is None:
        raise CloudError(f"{path}: the header names none of the formats {', '.join(ORDERS)}")
    return order, elements, begin


def _vertices(file: Any, order: str, elements: Sequence[_Element], begin: int, path: Path) -> NDArray[Any]:
    """The vertices as a structured array."""
    lines = 0
    for element in elements:
        if element.lists and (element.name == "vertex" or order):
            raise CloudError(f"{path}: lists in or before its vertices cannot be read: save the points alone")
        kind = np.dtype([(name, (order or "=") + code) for name, code in _distinct(element.properties, path)])
        if element.name == "vertex":
            break
        if order:
            begin += element.count * kind.itemsize
        lines += element.count
    else:
        raise CloudError(f"{path} has no vertices, but {', '.join(element.name for element in elements) or 'nothing'}")
    size, width = path.stat().st_size - begin, len(element.properties)
    least = element.count * (kind.itemsize if order else 2 * width)
    if not width or element.count > MAX_POINTS or least > size + 1:
        raise CloudError(
            f"{path}: its header promises {element.count:,} points of {width} values, and {max(size, 0):,} bytes "
            f"follow (at most {MAX_POINTS:,} points are read): copy or export it again"
        )
    file.seek(begin)
    if order:
        return np.frombuffer(file.read(element.count * kind.itemsize), kind)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # no line at all: told below
            table = np.loadtxt(file, ndmin=2, usecols=range(width), skiprows=lines, max_rows=element.count)
    except ValueError as error:
        raise CloudError(f"{path}: a line of its text cannot be read as {width} numbers ({error})") from None
    if len(table) != element.count:
        raise CloudError(f"{path}: its header promises {element.count:,} points, and {len(table):,} follow")
    rows = np.empty(element.count, [(name, "f8" if code[0] == "f" else "i8") for name, code in element.properties])
    for column, (name, _) in enumerate(element.properties):
        rows[name] = table[:, column]
    return rows


def _distinct(properties: Sequence[tuple[str, str]], path: Path) -> Sequence[tuple[str, str]]:
    if len({name for name, _ in properties}) != len(properties):
        raise CloudError(f"{path}: two properties of an element have one name")
    return properties


def write_ply(
    path: str | os.PathLike[str], cloud: Cloud, *, classes: Sequence[str] = (), extra: Mapping[str, Any] | None = None
) -> None:
    """Write a cloud in binary PLY, with whatever it has: colours, normals, strengths, labels.

    Args:
        path: The file; it is replaced only when the new one is whole.
        cloud: The points; the coordinates are doubles where the cloud has an origin, else floats.
        classes: The names of the labels, which go into comments.
        extra: More columns by name, (P,) each, such as a confidence.
    """
    far = any(cloud.origin)
    coord = cloud.world() if far else cloud.coord
    columns: list[tuple[str, str, NDArray[Any]]] = [
        (axis, "f8" if far else "f4", coord[:, i]) for i, axis in enumerate("xyz")
    ]
    if cloud.normal is not None:
        columns += [(f"n{axis}", "f4", cloud.normal[:, i]) for i, axis in enumerate("xyz")]
    if cloud.color is not None:
        colour = np.rint(cloud.color)
        columns += [(name, "u1", colour[:, i]) for i, name in enumerate(("red", "green", "blue"))]
    if cloud.strength is not None:
        columns.append(("intensity", "f4", cloud.strength))
    if cloud.segment is not None:
        columns.append(("label", "i4", cloud.segment))
    columns += [(name, "f4", np.asarray(values)) for name, values in (extra or {}).items()]
    rows = np.empty(len(cloud), [(name, "<" + code) for name, code, _ in columns])
    for name, _, values in columns:
        rows[name] = values
    words = {"f4": "float", "f8": "double", "u1": "uchar", "i4": "int"}
    header = ["ply", "format binary_little_endian 1.0"]
    for number, name in enumerate(classes):
        header.append(f"comment label {number} {name.encode('unicode_escape').decode()}")
    header.append(f"element vertex {len(cloud)}")
    header += [f"property {words[code]} {name}" for name, code, _ in columns]
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(("\n".join([*header, "end_header"]) + "\n").encode("ascii"))
        file.write(rows.tobytes())
