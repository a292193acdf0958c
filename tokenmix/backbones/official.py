"""What the files of the official projects wrap their weights in, and how they reach a model through timm."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from collections.abc import Callable, Mapping, MutableMapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tokenmix.backbones.arguments import build_checked
from tokenmix_runtime.untrusted import regular_file

EMA_KEYS = ("state_dict_ema", "model_ema", "ema_state_dict", "params_ema")
RAW_KEYS = ("state_dict", "model", "model_state_dict", "params")
WRAPPERS = ("module.", "_orig_mod.")  # of DistributedDataParallel and of torch.compile
BACKBONES = ("backbone.", "encoder.")  # of mmdetection and mmsegmentation, and of CVNets

StateDict = Mapping[str, Tensor]


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded or written; the message names it, the reason and the remedy.

    Examples:
        >>> import tokenmix
        >>> try:
        ...     tokenmix.load_checkpoint("missing.pth")
        ... except CheckpointError as error:
        ...     print(error)
        missing.pth: no such file
    """


class _DType:
    """What a pickled NumPy dtype becomes: its code and byte order."""

    def __init__(self, code: str, *_: Any) -> None:
        if not re.fullmatch(r"[?biufcSU]\d*", code):
            raise pickle.UnpicklingError(f"GLOBAL numpy.dtype({code!r}) is no number or text")
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1].replace("|", "=")


def _scalar(dtype: _DType, data: bytes) -> Any:
    """What a pickled NumPy scalar becomes: a number or text of Python's."""
    return np.frombuffer(data, dtype.order + dtype.code, 1)[0].item()


def _dict(factory: Any = None) -> dict[Any, Any]:
    """What a pickled ``defaultdict`` becomes, since torch fills in only plain dicts."""
    return {}


def _list(items: Any = (), maxlen: int | None = None) -> list[Any]:
    """What a pickled ``deque`` becomes, since torch appends only to lists."""
    return list(items)


# All that a pickle may name beside what `torch.load(weights_only=True)` knows: what honest training checkpoints carry.
# Each is only data here; none of it runs code from the file, nor NumPy's own unpickling.
ALLOWED: list[Any] = [
    (argparse.Namespace, "argparse.Namespace"),
    (_DType, "numpy.dtype"),
    (_scalar, "numpy.core.multiarray.scalar"),  # NumPy 1
    (_scalar, "numpy._core.multiarray.scalar"),
    (_dict, "collections.defaultdict"),
    (_list, "collections.deque"),
    *((kind, f"builtins.{kind.__name__}") for kind in (bool, dict, float, frozenset, int, list, str, tuple)),
]


def read(path: Path) -> Any:
    """The content of a file of ``torch.save``, without running any code that it may hold.

    Raises:
        CheckpointError: If it is broken, no such file, or holds more than data.
    """
    try:
        regular_file(path)
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        # Old formats make torch warn before it fails; the message here says it all.
        with torch.serialization.safe_globals(ALLOWED), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    except Exception as error:  # damaged bytes raise anything from zipfile, struct or the unpickler
        raise CheckpointError(f"{path}: {_reason(path, error)}") from None


def _reason(path: Path, error: Exception) -> str:
    """Why a file could not be read, and the remedy."""
    refused = re.search(r"GLOBAL ([\w.]+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
    if refused:
        return (
            f"refused, because loading it would need {refused[1]}; only tensors, numbers, text and plain containers "
            "are taken, so that no code in a file is run. Where it was made, save the state dict alone and load that"
        )
    with path.open("rb") as file:
        start = file.read(64).lstrip().lower()
    if not start:
        return "the file is empty; copy or download it again"
    if start.startswith((b"<!doctype", b"<html")):
        return "this is a web page, not a checkpoint; open the address in a browser and download the file itself"
    return "not a whole PyTorch checkpoint; copy or download it again"


def unwrap(content: Mapping[str, Any], *, ema: bool = True) -> dict[str, Tensor]:
    """The tensors of a training checkpoint, or of a state dict, without wrappers around the dict and its keys.

    Args:
        content: A state dict, or a dict that holds one under a usual name, with other things that are left out.
        ema: Take the averaged weights where there are some; False takes the raw ones.

    Raises:
        CheckpointError: If raw weights are wanted and there are only averaged ones.
    """
    averaged, raw = (
        [value for key in keys if isinstance(value := content.get(key), Mapping) and value]
        for keys in (EMA_KEYS, RAW_KEYS)
    )
    if averaged and not raw and not ema:
        raise CheckpointError("it has only averaged (EMA) weights; load it without ema=False")
    found = averaged + raw if ema else raw
    if found:
        return unwrap(found[0], ema=ema)
    # An average of torch.optim.swa_utils counts what it has averaged.
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    return {_bare(key): value for key, value in tensors.items() if key != "n_averaged"}


def backbone_of(state_dict: StateDict) -> tuple[dict[str, Tensor], list[str]]:
    """The backbone's part of a dense task's state dict, and the first names of the keys that are left out."""
    for prefix in BACKBONES:
        inner = {_bare(key.removeprefix(prefix)): value for key, value in state_dict.items() if key.startswith(prefix)}
        if inner:
            return inner, sorted({key.split(".")[0] for key in state_dict if not key.startswith(prefix)})
    return dict(state_dict), []


def _bare(key: str) -> str:
    while key.startswith(WRAPPERS):
        key = key.split(".", 1)[1]
    return key


def build(
    builder: Callable[..., nn.Module],
    variant: str,
    pretrained: bool,
    filter_fn: Callable[[Mapping[str, Any], nn.Module], dict[str, Tensor]],
    **kwargs: Any,
) -> Any:
    """`build_checked` for a family with official checkpoints: they load by any of timm's ways.

    Args:
        builder: Makes the model.
        variant: The model's name.
        pretrained: Load what its configuration points to.
        filter_fn: The family's ``checkpoint_filter_fn``, which also ``load_state_dict`` applies where no key is ours;
            this is what ``timm.create_model(..., checkpoint_path=FILE)`` calls.
        **kwargs: For the builder, and timm's own.
    """
    with torch.serialization.safe_globals(ALLOWED):
        model = build_checked(builder, variant, pretrained, pretrained_filter_fn=filter_fn, **kwargs)
    if not kwargs.get("features_only"):
        model.register_load_state_dict_pre_hook(partial(_translate, filter_fn))
    return model


def _translate(
    filter_fn: Callable[..., dict[str, Tensor]], model: nn.Module, state_dict: MutableMapping[str, Any], prefix: str, *_
) -> None:
    if prefix or not model.state_dict().keys().isdisjoint(state_dict):
        return
    translated = filter_fn(state_dict, model)
    state_dict.clear()
    state_dict.update(translated)
