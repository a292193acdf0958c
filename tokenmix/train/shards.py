"""A checkpoint that several processes write together: a folder in which each puts its share of the sharded tensors.

The shares are those of ``torch.distributed.checkpoint`` in safetensors files, so that any number of processes can take
them up again and nothing pickled is read. Beside them lie ``rest.pt``, everything else, and ``files.json``, the SHA-256
of every file.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard, zeros

from tokenmix.files import is_full, sha256, sync, write_json
from tokenmix.train.distributed import Group
from tokenmix_runtime.untrusted import read_json, shown

REST, FILES = "rest.pt", "files.json"
MARK = "sharded tensor"  # the key of a dict that stands for one in the rest


def is_sharded(content: Any) -> bool:
    """Whether there are sharded tensors in nested dicts and lists."""
    found: dict[str, DTensor] = {}
    _split(content, "", found)
    return bool(found)


def write(folder: Path, content: dict[str, Any], group: Group) -> None:
    """Fill an empty folder; all processes call it.

    Raises:
        OSError: One of them could not write.
    """
    tensors: dict[str, DTensor] = {}
    rest = _split(content, "", tensors)
    try:
        dcp.save(tensors, storage_writer=dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True))
    except dcp.CheckpointException as error:
        causes = [cause for cause, _ in error.failures.values()]
        raise next(filter(is_full, causes), causes[0]) from None
    mine = {file.name: sha256(file) for file in folder.glob(f"shard-{group.rank + 1:05}-*")}
    digests = {name: digest for found in group.collect(mine) for name, digest in found.items()}

    def finish() -> None:
        with (folder / REST).open("wb") as file:
            torch.save(rest, file)
        sync(folder / REST)
        write_json(folder / FILES, {**digests, REST: sha256(folder / REST)})

    group.by_first(finish)


def read(folder: Path, group: Group) -> dict[str, Any]:
    """What ``write`` was given, its sharded tensors spread over the processes of the group, or whole."""
    rest = torch.load(folder / REST, map_location="cpu", weights_only=True)
    tensors: dict[str, Tensor] = {}
    content = _join(rest, tensors, group)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # one process alone is what is meant
        dcp.load(tensors, storage_reader=dcp.HuggingFaceStorageReader(str(folder)), no_dist=group.mesh is None)
    return content


def check(folder: Path) -> None:
    """Compare every file with its checksum.

    Raises:
        ValueError: One is not as it was written.
        OSError: One is missing.
    """
    for name, digest in read_json(folder / FILES).items():
        if Path(name).name != name:
            raise ValueError(f"{FILES} names {shown(name)}, which is no file of this folder")
        if sha256(folder / name) != digest:
            raise ValueError(f"{name} does not match its checksum")


def _split(value: Any, path: str, tensors: dict[str, DTensor]) -> Any:
    """The value with a mark for each sharded tensor, which goes into ``tensors`` under its path."""
    if isinstance(value, DTensor):
        tensors[path] = value
        return {MARK: path, "shape": list(value.shape), "dtype": value.dtype}
    if isinstance(value, dict):
        return {key: _split(part, f"{path}/{key}", tensors) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_split(part, f"{path}/{number}", tensors) for number, part in enumerate(value))
    return value


def _join(value: Any, tensors: dict[str, Tensor], group: Group) -> Any:
    """The value with room for a tensor in place of each mark."""
    if isinstance(value, dict) and MARK in value:
        shape, dtype = value["shape"], value["dtype"]
        if group.mesh is None:
            room = torch.zeros(shape, dtype=dtype)
        else:
            room = zeros(shape, dtype=dtype, device_mesh=group.mesh, placements=[Shard(0)])
        tensors[value[MARK]] = room
        return room
    if isinstance(value, dict):
        return {key: _join(part, tensors, group) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_join(part, tensors, group) for part in value)
    return value
