"""A model's arguments as a file says them: a closed list of names, bounded values, and mixers by name only."""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

import timm
import torch
from timm.models import build_model_with_cfg
from torch import nn

from tokenmix.mixers import check_mixers
from tokenmix.safety import is_trusted, speaking
from tokenmix_runtime.names import unknown
from tokenmix_runtime.untrusted import LIMITS, shown

# Arguments of `timm.create_model` and of its builders that are not the model's own: where weights come from, on which
# device, and in which form the model is returned. Only a caller decides these.
FOREIGN = frozenset(
    {
        *inspect.signature(timm.create_model).parameters,
        *inspect.signature(build_model_with_cfg).parameters,
        *("features_only", "out_indices", "feature_cls", "pruned", "device", "dtype", "cfg", "args", "self"),
    }
)
# Whether timm tells a configuration's arguments from the caller's.
_TOLD = "pretrained_model_args" in inspect.signature(build_model_with_cfg).parameters
HUBS = ("hf-hub", "local-dir")  # timm's words for where a configuration came from


def check_arguments(origin: str, model: str, arguments: Mapping[str, Any], also: Collection[str] = ()) -> None:
    """Raise unless a file may say this about a model; nothing is imported, opened or built.

    Args:
        origin: The file.
        model: A name in timm's registry.
        arguments: What it says.
        also: Further names of arguments, such as those of a head.

    Raises:
        ValueError: There is no such argument, it is not one of the model's own, its value is larger than that of any
            model, or a mixer is not a built-in one. The message names the file and the key.
    """
    known = {*_own_arguments(model), *also} - FOREIGN
    for key, value in arguments.items():
        if key in FOREIGN:
            raise ValueError(
                f"{origin} sets {shown(key)} among the arguments of {model}, which only the caller decides: remove it "
                "from the file, and pass it yourself"
            )
        if key not in known:
            raise ValueError(f"{origin}: {unknown(f'argument of {model}', key[:100], known)}")
        try:
            _check_value(key, value)
            if key == "mixers":
                with speaking(origin):
                    check_mixers(value)
        except ValueError as error:
            if str(error).startswith(origin):
                raise
            raise ValueError(f"{origin}: {key}: {error}") from None


def _own_arguments(model: str) -> set[str]:
    """What the classes and functions in the module take that defines a model of timm's registry."""
    module = sys.modules[timm.model_entrypoint(model).__module__]
    makers = [
        maker
        for maker in vars(module).values()
        if (inspect.isclass(maker) and issubclass(maker, nn.Module) and maker.__module__.startswith("timm.models."))
        or (inspect.isfunction(maker) and maker.__module__ == module.__name__ and not maker.__name__.startswith("_"))
    ]
    parameters = (parameter for maker in makers for parameter in inspect.signature(maker).parameters.values())
    return {one.name for one in parameters if one.kind in (one.KEYWORD_ONLY, one.POSITIONAL_OR_KEYWORD)}


def _check_value(key: str, value: Any) -> None:
    """Raise unless a value is of a size that models have."""
    if isinstance(value, Mapping):
        raise ValueError("a mapping, which no model takes from a file")
    if isinstance(value, list | tuple):
        if len(value) > LIMITS["entries"]:
            raise ValueError(f"{len(value):,} entries, and at most {LIMITS['entries']:,} are taken from a file")
        for part in value:
            _check_value(key, part)
        if key == "depths" and all(isinstance(part, int) for part in value) and sum(value) > LIMITS["depth"]:
            raise ValueError(f"{sum(value):,} blocks, and at most {LIMITS['depth']:,} are taken from a file")
    elif isinstance(value, str):
        if key != "mixers" and not re.fullmatch(r"[\w.+-]{0,100}", value):
            raise ValueError(f"{shown(value)} is no plain word")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        most = LIMITS["classes"] if key == "num_classes" else LIMITS["depth" if key == "depths" else "width"]
        if not math.isfinite(value) or abs(value) > most:
            raise ValueError(f"{shown(value)}, and at most {most:,} is taken from a file")


def permit_given(mixers: Any) -> None:
    """Permit the code that a caller names in the place of a file, see `tokenmix.safety.permit_code`.

    Raises:
        ValueError: A mixer is unknown or cannot be read.
    """
    if mixers is not None and not _is_code(mixers):
        check_mixers(mixers)


def count_parameters(build: Callable[[], nn.Module]) -> int | None:
    """The parameters of a model, of which only shapes are made; None for one that cannot be made without its values."""
    try:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in build().parameters())
    except (RuntimeError, NotImplementedError):
        return None


def check_parameters(origin: str, build: Callable[[], nn.Module], most: float = LIMITS["parameters"]) -> None:
    """Raise if a model that a file describes has more parameters than it may have.

    Raises:
        ValueError: It has; the message names the file.
    """
    count = count_parameters(build)
    if count is not None and count > most:
        raise ValueError(
            f"{origin} describes a model of {count:,} parameters, and {most:,.0f} is the most that it may have"
        )


def build_checked(builder: Callable[..., nn.Module], variant: str, pretrained: bool, **kwargs: Any) -> Any:
    """`timm.models.build_model_with_cfg`: through this every model of ours is built, whoever asks for it.

    The arguments may come from a configuration on a hub or in a folder, which timm puts among those of the caller.

    Args:
        builder: Makes the model.
        variant: The model's name.
        pretrained: Load what its configuration points to.
        **kwargs: For the builder, and timm's own.

    Raises:
        ValueError: A configuration from a hub or folder says what no file may say.
    """
    origin = _hub(kwargs)
    if origin is None or is_trusted():
        return build_model_with_cfg(builder, variant, pretrained, **kwargs)
    mixers = kwargs.get("mixers")
    stored = (kwargs.get("pretrained_model_args") or {}).get("mixers") if _TOLD else mixers
    if mixers != stored:
        permit_given(mixers)

    def make(**arguments: Any) -> nn.Module:
        placed = ("device", "dtype")
        named = {key: value for key, value in arguments.items() if key not in placed and not _is_code(value)}
        check_arguments(origin, variant, named)
        check_parameters(origin, lambda: builder(**{**arguments, "device": "meta"}))
        return builder(**arguments)

    with speaking(origin):
        return build_model_with_cfg(make, variant, pretrained, **kwargs)


def _is_code(value: Any) -> bool:
    """Whether it is an object of this process, which no file can hold."""
    return any(map(_is_code, value)) if isinstance(value, list | tuple) else callable(value)


def _hub(kwargs: Mapping[str, Any]) -> str | None:
    """Where timm has found a model's configuration, if that was no registry."""
    cfg = kwargs.get("pretrained_cfg")
    entries = cfg if isinstance(cfg, Mapping) else vars(cfg) if hasattr(cfg, "__dict__") else {}
    if entries.get("source") not in HUBS and not kwargs.get("pretrained_model_args"):
        return None
    place = entries.get("hf_hub_id") if entries.get("source") == "hf-hub" else entries.get("file")
    return f"the configuration of {entries.get('source', 'hub')}:{place}"
