"""Token mixers, ``(B, C, H, W) -> (B, C, H, W)``: the four papers' ones, the yardsticks, and how to select any other.

A mixer specification (`MixerSpec`) is one of

* a name of `MIXERS`: ``"aff"``;
* a name with options: ``"ffnified(key_size=3)"``; options are literals given by name;
* a user's class or function by module: ``"my_package.my_file:MyMixer(option=1)"``. The module is imported as usual, the
  current directory included (after everything installed, and only during the import);
* any callable ``(dim, *, device, dtype) -> nn.Module``; device and dtype may be missing from its signature.

A module is imported for the person who names it, never because a file does, see `tokenmix.safety`.

A string with commas between specifications is one for each stage: ``"ffnified,ffnified,attention,attention"``.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from tokenmix.mixers.additive import AdditiveAttention
from tokenmix.mixers.afno import FourierOperator
from tokenmix.mixers.attention import SoftmaxAttention
from tokenmix.mixers.catalogue import MIXERS, MixerInfo
from tokenmix.mixers.depthwise import Depthwise
from tokenmix.mixers.dynamic_filter import DynamicFilter
from tokenmix.mixers.ffnified import ffnified_attention
from tokenmix.mixers.focal import FocalModulation
from tokenmix.mixers.frequency import FrequencyFilter
from tokenmix.mixers.gated_conv import GatedConvolution
from tokenmix.mixers.global_filter import GlobalFilter
from tokenmix.mixers.identity import Identity
from tokenmix.mixers.inception import InceptionDepthwise
from tokenmix.mixers.large_kernel import LargeKernelAttention
from tokenmix.mixers.metamixer import MetaMixer, Static
from tokenmix.mixers.partial import PartialConvolution
from tokenmix.mixers.pool import Pooling
from tokenmix.mixers.random_mixing import RandomMixing
from tokenmix.mixers.relu_linear import ReluLinearAttention
from tokenmix.mixers.selective_scan import SelectiveScan
from tokenmix.mixers.separable import SeparableAttention
from tokenmix.mixers.shift import Shift
from tokenmix.mixers.slots import Slot, Slots
from tokenmix.mixers.spectrum import SpectrumMixer
from tokenmix.mixers.star import StarOperation
from tokenmix.mixers.swift import SwiftAttention
from tokenmix.mixers.window import WindowAttention
from tokenmix.safety import permit_code
from tokenmix_runtime.names import unknown
from tokenmix_runtime.untrusted import LIMITS, shown

__all__ = [
    "MIXERS",
    "AdditiveAttention",
    "Depthwise",
    "DynamicFilter",
    "FocalModulation",
    "FourierOperator",
    "FrequencyFilter",
    "GatedConvolution",
    "GlobalFilter",
    "Identity",
    "InceptionDepthwise",
    "LargeKernelAttention",
    "MetaMixer",
    "MixerInfo",
    "MixerSpec",
    "PartialConvolution",
    "Pooling",
    "RandomMixing",
    "ReluLinearAttention",
    "SelectiveScan",
    "SeparableAttention",
    "Shift",
    "Slot",
    "Slots",
    "SoftmaxAttention",
    "SpectrumMixer",
    "StarOperation",
    "Static",
    "SwiftAttention",
    "WindowAttention",
    "check_mixers",
    "ffnified_attention",
    "list_mixers",
    "make_mixer",
    "per_stage",
    "split_specs",
]

MixerSpec = str | Callable[..., nn.Module]


def list_mixers() -> list[str]:
    """The names of the built-in mixers, those of the four papers first.

    Examples:
        >>> import tokenmix
        >>> tokenmix.list_mixers()[:4]
        ['aff', 'ffnified', 'additive', 'dsm']
    """
    return list(MIXERS)


def make_mixer(
    spec: MixerSpec, dim: int, *, known: Mapping[str, MixerInfo] = MIXERS, device=None, dtype=None
) -> nn.Module:
    """A mixer of ``dim`` channels, ``(B, dim, H, W) -> (B, dim, H, W)``, from its specification.

    Specifications are explained in the description of `tokenmix.mixers`.

    Args:
        spec: A name, a name with options, a class or function by module, or a callable.
        dim: Channels.
        known: The mixers that have names; another room may have its own.
        device: Where the parameters are created.
        dtype: Their type.

    Raises:
        ValueError: If there is no channel, the text cannot be read, the name is unknown, or the module or its attribute
            cannot be found.
        TypeError: If the mixer has no such option, or what was built is no ``nn.Module``.

    Examples:
        >>> import tokenmix, torch
        >>> mixer = tokenmix.make_mixer("ffnified(key_size=3)", 64)
        >>> mixer(torch.zeros(1, 64, 14, 14)).shape
        torch.Size([1, 64, 14, 14])
    """
    if dim < 1:
        raise ValueError(f"a mixer needs at least 1 channel, not {dim}")
    options: dict[str, Any] = {}
    if isinstance(spec, str):
        label, build, options = _parse(spec, known)
    elif isinstance(spec, nn.Module):
        raise TypeError("a mixer is given by its class or a function that builds it, not by one built module")
    elif callable(spec):
        label, build = getattr(spec, "__name__", repr(spec)), spec
    else:
        raise TypeError(f"a mixer is given by a string or a callable, not by {type(spec).__name__}")

    parameters = inspect.signature(build).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    names = [name for name in list(parameters)[1:] if parameters[name].kind in (_KEYWORD, _EITHER)]
    for option in options:
        if option not in names and not takes_all:
            has = ", ".join(name for name in names if name not in ("device", "dtype")) or "none"
            raise TypeError(f"mixer {label!r} has no option {option!r}; its options: {has}")
    placed = {"device": device, "dtype": dtype}
    given = {name: value for name, value in placed.items() if (name in names or takes_all) and name not in options}
    mixer = build(dim, **options, **given)
    if not isinstance(mixer, nn.Module):
        raise TypeError(f"mixer {label!r} must build a torch.nn.Module, not {type(mixer).__name__}")
    missing = {name: value for name, value in placed.items() if name not in given and value is not None}
    return mixer.to(**missing) if missing else mixer


def per_stage(spec: MixerSpec | Sequence[MixerSpec], stages: int) -> list[MixerSpec]:
    """One specification for each stage: a single one is repeated, a string is split at its top-level commas.

    Args:
        spec: A specification for all stages, or a sequence or text of one for each.
        stages: Their number.

    Returns:
        Specifications, as many as stages.

    Raises:
        ValueError: If their number is neither 1 nor that of the stages.

    Examples:
        >>> per_stage("aff,aff,additive", 3), per_stage("aff", 2)
        (['aff', 'aff', 'additive'], ['aff', 'aff'])
    """
    if isinstance(spec, str):
        specs: list[MixerSpec] = list(split_specs(spec))
    else:
        specs = list(spec) if isinstance(spec, Sequence) else [spec]
    if len(specs) == 1:
        specs = specs * stages
    if len(specs) != stages:
        raise ValueError(f"{len(specs)} mixers given for {stages} stages; give one, or one for each stage")
    return specs


def split_specs(text: str) -> list[str]:
    """``"a(x=1,y=2),b"`` to ``["a(x=1,y=2)", "b"]``: split at the commas outside of brackets and quotes.

    Args:
        text: Specifications with commas between.

    Returns:
        Each without the spaces around it.

    Examples:
        >>> split_specs("ffnified(key_size=7, value_size=3), aff")
        ['ffnified(key_size=7, value_size=3)', 'aff']
    """
    parts, start, depth, quote = [], 0, 0, ""
    for place, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[start:place].strip())
            start = place + 1
    return [*parts, text[start:].strip()]


def check_mixers(spec: Any, known: Mapping[str, MixerInfo] = MIXERS) -> None:
    """Raise unless these are mixers that may be built now; nothing is imported or built.

    Args:
        spec: What a file has in the place of ``MixerSpec | Sequence[MixerSpec]``.
        known: The mixers that have names.

    Raises:
        ValueError: It is of another kind, longer or with larger numbers than any, cannot be read, names no built-in
            mixer, or Python code that only a file names (see `tokenmix.safety.permit_code`).

    Examples:
        >>> check_mixers(["aff", "star(ratio=2)"])
        >>> check_mixers("addditive")
        Traceback (most recent call last):
        ValueError: unknown mixer 'addditive'...
    """
    listed = spec if isinstance(spec, list | tuple) else [spec]
    for text in listed:
        if not isinstance(text, str):
            raise ValueError(f"a mixer in a file is text, not {shown(text)}")
        if len(listed) > LIMITS["entries"] or len(text) > LIMITS["text"]:
            raise ValueError(f"{shown(text)}: longer than any text that names a mixer for each stage")
        for part in split_specs(text):
            module, name, options = _read(part)
            large = [value for value in options.values() if isinstance(value, int | float) and value > LIMITS["width"]]
            if large:
                raise ValueError(f"{shown(part)}: {large[0]:g} is more than any size of a mixer, {LIMITS['width']:,}")
            if module is not None:
                permit_code(f"{module}:{name}")
            elif name not in known:
                raise ValueError(unknown("mixer", name, known))


_KEYWORD = inspect.Parameter.KEYWORD_ONLY
_EITHER = inspect.Parameter.POSITIONAL_OR_KEYWORD


def _parse(text: str, known: Mapping[str, MixerInfo]) -> tuple[str, Callable[..., nn.Module], dict[str, Any]]:
    """Name, builder and options of a specification."""
    module, name, options = _read(text)
    if module is not None:
        permit_code(f"{module}:{name}")
        return f"{module}:{name}", _find(module, name), options
    if name not in known:
        raise ValueError(unknown("mixer", name, known))
    return name, known[name].build, options


def _read(text: str) -> tuple[str | None, str, dict[str, Any]]:
    """Module, if any, name and options of a specification.

    Raises:
        ValueError: It cannot be read, or names a file in the place of a module.
    """
    if file := re.match(r"\s*((?:[^:()]*[/\\])?([\w.-]+))\.py\s*:\s*(.*)", text, re.DOTALL):
        name = f"{file[2]}:{file[3]}"
        where = f", from the folder {os.path.dirname(file[1]) or '.'}" if file[1] != file[2] else ""
        raise ValueError(
            f"{text!r} names a file; a mixer of your own is named by its module: {file[2]}:{file[3]}{where}"
        )
    match = re.fullmatch(r"\s*(?:([\w.]+)\s*:)?\s*([\w.-]+)\s*(\(.*\))?\s*", text, re.DOTALL)
    if match is None:
        raise ValueError(f"cannot read the mixer {text!r}; write name, name(option=value) or module:name(option=value)")
    module, name, arguments = match.groups()
    return module, name, _options(text, arguments)


def _options(text: str, arguments: str | None) -> dict[str, Any]:
    if arguments is None:
        return {}
    try:
        call = ast.parse(f"mixer{arguments}", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # a null byte, brackets without end
        call = None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise ValueError(f"cannot read the options of the mixer {text!r}; write name(option=value, ...)")
    if call.args or any(keyword.arg is None for keyword in call.keywords):
        raise ValueError(f"the options of the mixer {text!r} must be given by name: name(option=value)")
    options = {}
    for keyword in call.keywords:
        try:
            options[str(keyword.arg)] = ast.literal_eval(keyword.value)
        except (ValueError, RecursionError, TypeError):
            raise ValueError(
                f"option {keyword.arg!r} of the mixer {text!r} must be a number, a quoted string, True, False, None, "
                "or a list or tuple of these"
            ) from None
    return options


def _find(module: str, name: str) -> Callable[..., nn.Module]:
    """The attribute of a user's module, which may lie in the current directory."""
    here = os.getcwd()
    sys.path.append(here)
    importlib.invalidate_caches()
    try:
        found: Any = importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"cannot import {module!r} for the mixer {module}:{name} ({error}); run from the folder that holds it, "
            "or install it"
        ) from error
    finally:
        sys.path.remove(here)
    for part in name.split("."):
        if not hasattr(found, part):
            raise ValueError(
                f"module {module!r} has no {name!r} for a mixer; it has: "
                + ", ".join(key for key, value in vars(found).items() if callable(value) and not key.startswith("_"))
            )
        found = getattr(found, part)
    if not callable(found):
        raise ValueError(f"{module}:{name} is no class or function that builds a mixer")
    return found
