"""Files of weights: the safetensors file that a run leaves, what it says of its model, and what no file may say."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from tokenmix.backbones.official import CheckpointError
from tokenmix_runtime.untrusted import image_problem, norm_problem, parse_json, read_json, regular_file, shown

WEIGHTS = "best.safetensors"  # what a training run leaves in its folder
_METADATA = "tokenmix"


def weights_bytes(state_dict: Mapping[str, Tensor], info: Mapping[str, Any]) -> bytes:
    """A safetensors file of ours: the weights, and as JSON in its metadata all that rebuilds the model, and more.

    Args:
        state_dict: Under our keys.
        info: ``model`` and ``model_args`` for timm's ``create_model``, or with ``head`` for `make_dense`, and whatever
            else is known, such as ``classes``.
    """
    tensors = {
        key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for key, tensor in state_dict.items()
    }
    # One metadata entry only: safetensors writes several in random order, and equal weights would have unequal hashes.
    return safetensors.torch.save(tensors, {_METADATA: json.dumps(info, sort_keys=True)})


@contextlib.contextmanager
def downloading(name: str) -> Iterator[None]:
    """Say which model's published weights did not come, and what to do.

    Raises:
        CheckpointError: Inside the block there was no connection, or an answer that is no file.
    """
    try:
        yield
    except OSError as error:  # urllib's and huggingface_hub's errors are of this kind
        raise CheckpointError(
            f"the published weights of {name} could not be downloaded ({error}): fetch the file elsewhere, see "
            "`tokenmix docs models`, and name it instead (weights=FILE, or the file in place of the model's name)"
        ) from error


def read_info(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What `weights_bytes` stored beside the weights, or None for a safetensors file that it did not write.

    Args:
        path: The file.

    Raises:
        CheckpointError: If it is no whole safetensors file.

    Examples:
        >>> from tokenmix.checkpoints import read_info
        >>> read_info("runs/photos/best.safetensors")["model"]  # doctest: +SKIP
        'mixernet_pico'
    """
    try:
        regular_file(path)
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"{os.fspath(path)} is no safetensors file or is damaged ({error}); copy or download it again"
        ) from None
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    if _METADATA not in metadata:
        return None
    try:
        info = parse_json(metadata[_METADATA])
        if not isinstance(info, dict):
            raise ValueError("it is no mapping")
    except ValueError as error:
        raise CheckpointError(f"{os.fspath(path)}: the metadata {_METADATA!r} is damaged ({error})") from None
    return info


def weights_file(path: str | os.PathLike[str]) -> Path:
    """The file itself, or the best weights in a training run's folder.

    Raises:
        CheckpointError: If there is none.
    """
    file = Path(path)
    if file.is_dir():
        file /= WEIGHTS
        if not file.exists():
            raise CheckpointError(f"{path}: there are no weights {WEIGHTS} in this folder; name a file, or train first")
    if not file.exists():
        raise CheckpointError(f"{path}: no such file")
    try:
        return regular_file(file)
    except ValueError as error:
        raise CheckpointError(str(error)) from None


def described_in(file: Path) -> Path:
    """The file that says what model a file's weights are of: itself, or for a run's checkpoint its best weights."""
    folder = file.absolute().parent
    best = folder.parent / WEIGHTS
    return best if folder.name == "checkpoints" and best.is_file() else file


def check_local(folder: str | os.PathLike[str]) -> None:
    """Raise unless what timm reads in a folder of its format are regular files, and the configuration is JSON.

    Raises:
        CheckpointError: They are not.
    """
    try:
        read_json(Path(folder) / "config.json")
        for file in Path(folder).iterdir():
            if file.suffix in (".safetensors", ".bin", ".pth", ".tar"):
                regular_file(file)
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: there is no config.json, so it is no folder in timm's format") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(str(error)) from None


def check_info(info: Mapping[str, Any], *, pictures: bool = True) -> None:
    """Raise unless what stands beside the model in our own file is of the kinds and sizes that it has.

    Args:
        info: The file's metadata.
        pictures: Whether means and deviations are those of pictures' channels.

    Raises:
        ValueError: It is not.
        TypeError: A value is of another kind.
    """
    classes = info.get("classes")
    if classes is not None and not (isinstance(classes, list) and all(isinstance(one, str) for one in classes)):
        raise ValueError("its classes are no list of names")
    if not isinstance(info.get("data"), dict | None):
        raise ValueError("what it says of its data is no object")
    if "num_classes" in info and not (type(info["num_classes"]) is int and 0 <= info["num_classes"] <= 1_000_000):
        raise ValueError("its num_classes is no number of outputs")
    levels = info.get("levels")
    if levels and not (isinstance(levels, list) and all(type(one) is int and abs(one) < 100 for one in levels)):
        raise ValueError(f"its levels are {shown(levels)}, and no list of whole numbers")
    if not isinstance(info.get("task_args") or {}, dict):
        raise ValueError(f"its task_args are {shown(info['task_args'])}, and no mapping")
    mean, std = (info.get("mean") or [0.5], info.get("std") or [0.5]) if pictures else ([0.5], [0.5])
    size, crop = info.get("image_size") or [1, 1], info.get("crop_pct") or 1.0
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int for side in size)):
        raise ValueError(f"its image_size is {shown(size)}, and not [height, width]")
    if not (isinstance(mean, list) and isinstance(std, list)) or isinstance(crop, bool | str):
        raise ValueError("its mean, std or crop_pct are no numbers")
    if problem := image_problem(size, crop) or norm_problem(mean, std):
        raise ValueError(problem)
