"""Weights on disk: what the official projects publish is recognised and loaded safely; ours and theirs are written."""

from __future__ import annotations

import argparse
import collections
import json
import os
import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import timm
import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from tokenmix.backbones import affnet, casvit, ffnet
from tokenmix.backbones.keymap import KeyMap, Official
from tokenmix.files import atomic_path
from tokenmix.heads.levels import Levels
from tokenmix.names import unknown

FAMILIES: dict[str, Any] = {"affnet": affnet, "casvit": casvit, "ffnet": ffnet}
FORMATS = ("tokenmix", "official")

# What honest training checkpoints carry besides tensors. None of it runs code when it is loaded; all else is refused.
SAFE_GLOBALS: list[Any] = [
    argparse.Namespace,
    collections.Counter,
    collections.OrderedDict,
    collections.deque,
    np.dtype,
    *{type(np.dtype(kind)) for kind in ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")},
    (np._core.multiarray.scalar, "numpy._core.multiarray.scalar"),  # type: ignore[attr-defined]
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),  # type: ignore[attr-defined]  # NumPy 1's name
]

_EMA_KEYS = ("state_dict_ema", "model_ema", "ema_state_dict")
_RAW_KEYS = ("state_dict", "model", "model_state_dict")
_METADATA = "tokenmix"


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded or written; the message names it, the reason and the remedy."""


def load_checkpoint(
    source: str | os.PathLike[str] | Mapping[str, Any],
    *,
    ema: bool = True,
    num_classes: int | None = None,
    in_chans: int | None = None,
    **model_args: Any,
) -> nn.Module:
    """The model that a checkpoint holds, in eval mode: a classifier, or `Levels` for a dense task's feature checkpoint.

    Family, variant, classes and input channels are recognised from the keys and shapes. What they cannot tell
    (AFFNet's norm kind, activation and soft-shrink threshold) may be given; it warns about what was left open.

    Args:
        source: A file of an official project (``.pth``, ``.pt``, ``.pth.tar``), one of ours (``.safetensors``), or a
            state dict.
        ema: Take the averaged weights where there are some; False takes the raw ones.
        num_classes: Another number of classes than the file's: the classifier is then new and untrained.
        in_chans: Another number of input channels: the first convolution is adapted as timm does it.
        **model_args: Arguments of the model's builder, for example ``norm="layer"`` or ``drop_path_rate=0.1``.

    Raises:
        CheckpointError: If the file is missing, truncated, unsafe or of no known architecture.
        TypeError: For an argument that the model does not have.
    """
    return _load(source, ema, num_classes, in_chans, model_args)[0]


@dataclass(frozen=True)
class Opened:
    """A model ready to be used, and how its images are prepared.

    Attributes:
        model: In eval mode.
        name: Its architecture.
        classes: Their names, or None if nobody knows them.
        image_size: Height and width in pixels.
        mean: Of the values in 0..1, per channel.
        std: Of the values in 0..1, per channel.
        crop_pct: The share of the shorter side that is kept.
        interpolation: ``"bicubic"`` or ``"bilinear"``.
    """

    model: nn.Module
    name: str
    classes: list[str] | None
    image_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float
    interpolation: str


def open_model(source: str | os.PathLike[str], **model_args: Any) -> Opened:
    """A trained model: a run's folder, any file that `load_checkpoint` takes, or a name in timm's registry.

    A name gets the published weights where its configuration has an address, else random ones with a warning.

    Raises:
        CheckpointError: If there is neither such a file nor such a model, or it cannot be loaded.
    """
    path = Path(source)
    if path.is_dir():
        path = path / "best.safetensors"
        if not path.is_file():
            raise CheckpointError(f"{source}: the folder has no best.safetensors; name a run's folder or a file")
    info: dict[str, Any] = {}
    if path.is_file():
        model, what = _load(path, True, None, None, model_args)
        name = what.variant
        info = (read_info(path) if path.suffix == ".safetensors" else None) or {}
    else:
        name = os.fspath(source)
        if not timm.is_model(name):
            raise CheckpointError(f"{source}: no such file or folder, and {unknown('model', name, our_models())}")
        pretrained = timm.models.is_model_pretrained(name)
        if not pretrained:
            warnings.warn(f"{name} has no published weights to download: its weights are random", stacklevel=2)
        model = timm.create_model(name, pretrained=pretrained, **model_args).eval()
    found = timm.models.get_pretrained_cfg(name)
    assert found is not None, name
    cfg = found.to_dict()
    size = info.get("image_size") or cfg["input_size"][1:]
    return Opened(
        model,
        name,
        info.get("classes"),
        (int(size[0]), int(size[1])),
        tuple(info.get("mean") or cfg["mean"]),
        tuple(info.get("std") or cfg["std"]),
        float(info.get("crop_pct") or cfg["crop_pct"]),
        str(info.get("interpolation") or cfg["interpolation"]),
    )


def our_models() -> list[str]:
    """The names of the models that tokenmix registers with timm."""
    return [name for name in timm.list_models() if timm.model_entrypoint(name).__module__.startswith("tokenmix.")]


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    to: str = "tokenmix",
    ema: bool = True,
    **model_args: Any,
) -> nn.Module:
    """Rewrite a checkpoint under our key names, or back under the official ones; returns the model it holds.

    Args:
        source: Any file that `load_checkpoint` takes.
        target: ``.safetensors``; for ``to="official"`` also a ``.pth`` file, which then holds ``{"state_dict": ...}``.
        to: ``"tokenmix"`` or ``"official"``.
        ema: See `load_checkpoint`.
        **model_args: See `load_checkpoint`.

    Raises:
        CheckpointError: As `load_checkpoint`; or if the target's ending does not fit, or no official names exist.
        ValueError: For another value of ``to``.
    """
    if to not in FORMATS:
        raise ValueError(unknown("format", to, FORMATS))
    endings = (".safetensors",) if to == "tokenmix" else (".safetensors", ".pth", ".pt", ".tar")
    if Path(target).suffix not in endings:
        raise CheckpointError(f"{target}: to={to!r} writes a file that ends in {' or '.join(endings)}")
    model, what = _load(source, ema, None, None, model_args)
    if to == "tokenmix":
        save_weights(target, model, what)
        return model
    try:
        state_dict = _key_map(what.variant).to_official(model.state_dict())
    except KeyError as error:
        raise CheckpointError(f"{source}: {error.args[0]}") from None
    with atomic_path(target) as temporary:
        if Path(target).suffix == ".safetensors":
            safetensors.torch.save_file(_plain(state_dict), temporary)
        else:
            torch.save({"state_dict": state_dict}, temporary)
    return model


def save_weights(
    path: str | os.PathLike[str], model: nn.Module, what: Official, info: Mapping[str, Any] | None = None
) -> None:
    """Write the weights as safetensors with all that `load_checkpoint` needs to rebuild the model.

    Args:
        path: The file, written atomically.
        model: Its state dict is stored.
        what: Name, arguments and levels of the model.
        info: More to keep as JSON beside it, for example class names and preprocessing; see `read_info`.
    """
    header = {
        "model": what.variant,
        "model_args": what.model_args,
        "level_norm": what.level_norm,
        "levels": what.levels,
        **(info or {}),
    }
    with atomic_path(path) as temporary:
        safetensors.torch.save_file(_plain(model.state_dict()), temporary, {_METADATA: json.dumps(header)})


def read_info(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What `save_weights` stored beside the weights, or None for a safetensors file that it did not write.

    Raises:
        CheckpointError: If it is no whole safetensors file.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}: not a whole safetensors file ({error}); copy or download it again") from None
    return json.loads(metadata[_METADATA]) if _METADATA in metadata else None


def _plain(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies, as safetensors wants them."""
    return {key: tensor.detach().contiguous().clone() for key, tensor in state_dict.items()}


def _key_map(variant: str) -> KeyMap:
    family = FAMILIES.get(variant.split("_")[0])
    if family is None:
        raise CheckpointError(f"{variant} has no official checkpoints: only {', '.join(FAMILIES)} have")
    return family.KEYS


def _load(
    source: str | os.PathLike[str] | Mapping[str, Any],
    ema: bool,
    num_classes: int | None,
    in_chans: int | None,
    model_args: dict[str, Any],
) -> tuple[nn.Module, Official]:
    name = "the given state dict" if isinstance(source, Mapping) else os.fspath(source)
    content = source if isinstance(source, Mapping) else _read(Path(source))
    info = read_info(name) if name.endswith(".safetensors") else None
    state_dict, left_out = _weights(content, ema, name)
    what = _stored(info) if info is not None else _recognise(state_dict, name)
    if left_out:
        warnings.warn(f"{name}: only the backbone was loaded; {left_out} were left out", stacklevel=3)
    open_args = [arg for arg in what.open_args if arg not in model_args]
    if open_args:
        warnings.warn(
            f"{name}: the checkpoint cannot tell {', '.join(open_args)}; the defaults are used. "
            f"Pass {'them' if len(open_args) > 1 else 'it'} if the model was trained otherwise",
            stacklevel=3,
        )
    stored_classes = what.model_args.get("num_classes")
    args = {**what.model_args, **model_args}
    args.update({k: v for k, v in (("num_classes", num_classes), ("in_chans", in_chans)) if v is not None})
    what = Official(what.variant, args, what.level_norm, what.levels)
    model: nn.Module = timm.create_model(what.variant, **args)
    cfg: Mapping[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    if what.levels is not None:
        model = Levels(model, what.levels, what.level_norm or "none")  # type: ignore[arg-type]
    if info is None:
        try:
            state_dict = _key_map(what.variant).from_official(state_dict, list(model.state_dict()))
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(f"{name}: does not fit {what.variant}: {error}") from None
    first = f"{cfg['first_conv']}.weight"
    if in_chans is not None and first in state_dict:
        state_dict[first] = adapt_input_conv(in_chans, state_dict[first])
    if what.levels is None and num_classes is not None and num_classes != stored_classes:
        names = cfg["classifier"] if isinstance(cfg["classifier"], Sequence) else (cfg["classifier"],)
        names = (names,) if isinstance(names, str) else names
        fresh = {k: v for k, v in model.state_dict().items() if k.startswith(tuple(f"{n}." for n in names))}
        state_dict = {k: v for k, v in state_dict.items() if not k.startswith(tuple(f"{n}." for n in names))} | fresh
    _fill(model, state_dict, name, what.variant)
    return model.eval(), what


def _fill(model: nn.Module, state_dict: Mapping[str, Tensor], name: str, variant: str) -> None:
    """Load strictly; everything that does not fit goes into one message."""
    own = model.state_dict()
    problems = {
        "missing": [key for key in own if key not in state_dict],
        "unexpected": [key for key in state_dict if key not in own],
        "of another shape": [key for key in own if key in state_dict and own[key].shape != state_dict[key].shape],
    }
    if any(problems.values()):
        text = "; ".join(
            f"{len(keys)} {kind} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
            for kind, keys in problems.items()
            if keys
        )
        raise CheckpointError(f"{name}: looks like {variant}, but the keys do not fit: {text}. Is the file whole?")
    model.load_state_dict(dict(state_dict))


def _stored(info: Mapping[str, Any]) -> Official:
    levels = info.get("levels")
    args = dict(info["model_args"])
    if "classes" in info:
        args.setdefault("num_classes", len(info["classes"]))
    return Official(info["model"], args, info.get("level_norm"), tuple(levels) if levels else None)


def _recognise(state_dict: Mapping[str, Tensor], name: str) -> Official:
    shapes = {key: tuple(tensor.shape) for key, tensor in state_dict.items()}
    for family in FAMILIES.values():
        found = family.recognise(shapes)
        if found is not None:
            return found
    sample = ", ".join(list(shapes)[:3]) or "none"
    raise CheckpointError(
        f"{name}: the architecture is not one of the published {', '.join(FAMILIES)} variants (first keys: {sample}). "
        "For weights of another model use timm.create_model(NAME, checkpoint_path=FILE)"
    )


def _weights(content: Any, ema: bool, name: str) -> tuple[dict[str, Any], str]:
    """The tensors of the backbone without wrappers and prefixes, and what else the file held, in words."""
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{name}: holds a {type(content).__name__}, not a dict of weights")
    found = [k for k in (*_EMA_KEYS, *_RAW_KEYS) if isinstance(content.get(k), Mapping)]
    raw = [key for key in found if key in _RAW_KEYS]
    if found and not ema and not raw:
        raise CheckpointError(f"{name}: has only averaged (EMA) weights; load it without ema=False")
    if found:
        content = content[found[0] if ema else raw[0]]
    state_dict = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    for prefix in ("module.", "_orig_mod."):
        if state_dict and all(key.startswith(prefix) for key in state_dict):
            state_dict = {key[len(prefix) :]: value for key, value in state_dict.items()}
    for prefix in ("backbone.", "encoder."):  # mmdetection and mmsegmentation; CVNets
        inner = {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}
        if inner:
            others = sorted({key.split(".")[0] for key in state_dict if not key.startswith(prefix)})
            return inner, ", ".join(f"{other}.*" for other in others)
    return state_dict, ""


def _read(path: Path) -> Any:
    """The content of a file, without running any code that it may hold."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        read_info(path)
        return safetensors.torch.load_file(path)
    try:
        with torch.serialization.safe_globals(SAFE_GLOBALS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"(?:GLOBAL|global:?) ([\w.]+)", str(error))
        if refused:
            raise CheckpointError(
                f"{path}: refused, because loading it would call {refused[1]}; a checkpoint may hold only tensors, "
                "numbers, text and plain containers. Save the state dict alone and load that"
            ) from None
        raise CheckpointError(f"{path}: not a whole PyTorch checkpoint; copy or download it again") from None
    except (EOFError, OSError, RuntimeError, ValueError, KeyError, UnicodeDecodeError):
        raise CheckpointError(f"{path}: not a whole PyTorch checkpoint; copy or download it again") from None
