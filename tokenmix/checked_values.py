"""Dataclasses whose values are checked: what may stand in a field, and what text on a command line means for it.

Written here and not taken from pydantic or msgspec, because the same rules read a command line, a stranger's file and a
call, and because every message has to name the key of the recipe and what may stand there.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterable, Mapping
from types import NoneType, UnionType
from typing import Any, ClassVar, get_args, get_origin, get_type_hints

from tokenmix_runtime.names import unknown
from tokenmix_runtime.untrusted import LIMITS, parse_json, shown

NAMES = {int: "a whole number", float: "a number", str: "text", bool: "True or False"}
PLURALS = {int: "whole numbers", float: "numbers", str: "texts"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checked:
    """Base of frozen dataclasses whose values are checked, and stored as their fields say, when one is made.

    Whole numbers are accepted for numbers, one number for a pair of whole ones, lists for tuples. The metadata of a
    field, made by the functions of this module and joined by ``|``, says what else a value must be.

    Attributes:
        part: What stands before the fields' names in messages, such as ``"schedule"``.

    Raises:
        ValueError: A value of the wrong type or out of range; the message names the key.
    """

    part: ClassVar[str] = ""

    def __post_init__(self) -> None:
        kinds = self.kinds()
        for entry in dataclasses.fields(self):
            value = checked(entry, kinds[entry.name], getattr(self, entry.name), self.key(entry.name))
            object.__setattr__(self, entry.name, value)

    @classmethod
    @functools.cache
    def kinds(cls) -> dict[str, Any]:
        """The types of the fields, by name."""
        return get_type_hints(cls)

    @classmethod
    def key(cls, name: str) -> str:
        """How a recipe calls a field: ``"schedule.epochs"``."""
        return f"{cls.part}.{name}" if cls.part else name


def rule(words: str, holds: Callable[[Any], bool]) -> dict[str, Any]:
    """Only values for which ``holds`` is true; ``words`` say it."""
    return {"words": words, "holds": holds}


def choice(names: Iterable[str]) -> dict[str, Any]:
    """One of these names."""
    return {"choices": tuple(names)}


def from_files(allowed: Callable[[Any], bool]) -> dict[str, Any]:
    """Of a file that nobody trusts only such values are taken, see `tokenmix.safety`: others are code or places."""
    return {"from_files": allowed}


def at_most(limit: str) -> dict[str, Any]:
    """No larger than that one of `tokenmix_runtime.untrusted.LIMITS`."""
    most = LIMITS[limit]
    words = f"at most {most:,.0f}" if most < 1e15 else f"at most {most:g}"
    return {"problem": lambda value: words if value > most else None}


def positive(limit: str) -> dict[str, Any]:
    """Above 0, and at most that one of `tokenmix_runtime.untrusted.LIMITS`."""
    return rule("above 0", lambda value: value > 0) | at_most(limit)


def not_negative(limit: str) -> dict[str, Any]:
    """0 or more, and at most that one of `tokenmix_runtime.untrusted.LIMITS`."""
    return rule("0 or more", lambda value: value >= 0) | at_most(limit)


RATE = rule("at least 0 and below 1", lambda value: 0 <= value < 1)
SHARE = rule("at least 0 and at most 1", lambda value: 0 <= value <= 1)
FACTOR = rule("above 0 and at most 1", lambda value: 0 < value <= 1)


def literal(text: str, kind: Any) -> Any:
    """What ``text`` on a command line means for a field of this kind."""
    text = text.strip()
    if kind is str:
        return text
    constants = {"none": None, "null": None, "true": True, "false": False}
    if kind == str | None:
        return None if text.lower() in ("none", "null") else text
    if text.lower() in constants:
        return constants[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def set_part(mapping: dict[str, Any], path: list[str], value: Any, key: str) -> None:
    """Set one entry of nested mappings, making those that are missing."""
    for part in path[:-1]:
        mapping = mapping.setdefault(part, {})
        if not isinstance(mapping, dict):
            raise ValueError(f"recipe key {key!r}: {part!r} holds a value, not a mapping")
    mapping[path[-1]] = value


def checked(entry: dataclasses.Field[Any], kind: Any, value: Any, key: str) -> Any:
    """The value as the field stores it, or an error that names the key, the value and what is allowed."""
    optional = get_origin(kind) is UnionType
    if optional:
        if value is None:
            return None
        kind = next(part for part in get_args(kind) if part is not NoneType)
    choices, words = entry.metadata.get("choices"), entry.metadata.get("words", "")
    try:
        value = _converted(value, kind)
    except (TypeError, ValueError, ArithmeticError, RecursionError):
        kinds = f"one of {', '.join(choices)}" if choices else f"{_describe(kind)}{words and ', ' + words}"
        raise ValueError(
            f"recipe key {key!r} must be {kinds}{' or None' if optional else ''}, got {shown(value)}"
        ) from None
    if choices and value not in choices:
        raise ValueError(unknown(f"value of recipe key {key!r}:", value[:100], choices))
    if words and not entry.metadata["holds"](value):
        raise ValueError(f"recipe key {key!r} must be {words}{' or None' if optional else ''}, got {shown(value)}")
    if "problem" in entry.metadata and (problem := entry.metadata["problem"](value)):
        raise ValueError(f"recipe key {key!r} must be {problem}, got {shown(value)}")
    return value


def _converted(value: Any, kind: Any) -> Any:
    """The value in the kind's own type; TypeError or ValueError if it has no place there."""
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        if parts == (int, int) and isinstance(value, int):
            value = (value, value)
        if parts[-1] is Ellipsis and isinstance(value, list | tuple):
            parts = parts[:1] * len(value)
        if not isinstance(value, list | tuple) or len(value) != len(parts):
            raise TypeError
        return tuple(_converted(part, sub) for part, sub in zip(value, parts, strict=True))
    if get_origin(kind) is dict:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise TypeError
        return parse_json(json.dumps(dict(value), allow_nan=False))  # raises for what JSON has not
    if isinstance(value, bool) and kind is not bool:
        raise TypeError
    if kind is float and isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    if kind is float or not isinstance(value, kind):
        raise TypeError
    return value


def _describe(kind: Any) -> str:
    if get_origin(kind) is tuple:
        count = "" if get_args(kind)[-1] is Ellipsis else f"{len(get_args(kind))} "
        return f"{count}{PLURALS[get_args(kind)[0]]}"
    if get_origin(kind) is dict:
        return "a mapping of names to JSON values"
    return NAMES[kind]
