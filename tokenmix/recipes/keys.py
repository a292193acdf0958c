"""The keys of a recipe: paths such as ``schedule.epochs``, and the short names that mean them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_origin

from tokenmix.checked_values import Checked, checked, set_part
from tokenmix.recipes.parts import Model, Optimizer, Run, Schedule
from tokenmix.tasks import Task, all_tasks
from tokenmix_runtime.names import unknown
from tokenmix_runtime.untrusted import shown

NOTES = ("source", "expect", "cost")  # words about the recipe: they change nothing about the run
PARTS: dict[str, type[Checked]] = {"model": Model, "optimizer": Optimizer, "schedule": Schedule, "run": Run}
OF_TASKS = ("task", "augment")  # parts whose type is the task's
# Every other key's short name is that of its field: ``epochs`` for ``schedule.epochs``.
SHORT = {
    "model": "model.name",
    "model_args": "model.args",
    "optimizer": "optimizer.name",
    "schedule": "schedule.name",
    "task": "task.name",
    "task_args": "task",
    "augment": "augment.name",
    "augment_args": "augment",
}


@dataclass(frozen=True)
class Key:
    """What a key of a recipe means.

    Attributes:
        part: Of the recipe; empty for one of the notes.
        name: Of the part's field.
        kind: The field's type.
        inside: Where it goes on in a field that is a mapping.
        owners: Titles of other tasks, if it is a key of theirs and not of the recipe's.
        entry: The field; None for the notes and the task's name.
    """

    part: str
    name: str
    kind: Any = str
    inside: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    entry: dataclasses.Field[Any] | None = None

    @property
    def field(self) -> str:
        """``"model.args"``"""
        return f"{self.part}.{self.name}" if self.part else self.name

    @property
    def path(self) -> str:
        """``"model.args.mixers"``"""
        return ".".join((self.field, *self.inside))

    @property
    def default(self) -> Any:
        """What the field has where nobody sets it; of a task's part every field has such a value."""
        assert self.entry is not None
        made = self.entry.default_factory
        return self.entry.default if made is dataclasses.MISSING else made()

    def is_default(self, value: Any) -> bool:
        """Whether the field has this value where nobody sets it."""
        assert self.entry is not None
        return checked(self.entry, self.kind, value, self.field) == self.default


def parts_of(task: Task) -> dict[str, type[Checked]]:
    """The types of a recipe's parts, by name."""
    return {**PARTS, "task": task.Options, "augment": task.Augment}


def find_key(key: str, task: Task) -> Key:
    """What a key means, a path or a short name, in a recipe for a task.

    Raises:
        ValueError: There is no such key, in any task; or it goes on where its value has no parts.
    """
    first, *rest = key.split(".")
    fields = _fields(task)
    if first not in (*PARTS, *OF_TASKS) or not rest:
        name = SHORT.get(first) or (first if first in NOTES else _short(task).get(first)) or _elsewhere(first, task)
        if name is None and first not in PARTS:
            raise ValueError(unknown("recipe key", first, {*_short(task), *SHORT, *NOTES, *PARTS}))
        first, *rest = [*(name or first).split("."), *rest]
    if first in NOTES:
        found = Key("", first)
    elif not rest:
        raise ValueError(f"recipe key {key!r} must be a mapping of names to values, or set one of them: {key}.NAME=...")
    elif (path := f"{first}.{rest[0]}") in fields:
        found = fields[path]
    else:
        found = _of_another(path, task)
    inside = tuple(rest[1:])
    if inside and get_origin(found.kind) is not dict:
        raise ValueError(f"recipe key {found.field!r} has no parts, got {key!r}")
    return dataclasses.replace(found, inside=inside)


def settings_of(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Keys and values, those of parts that are given as mappings one by one."""
    for key, value in values.items():
        if isinstance(value, Mapping) and (key in (*PARTS, *OF_TASKS) or SHORT.get(key) in OF_TASKS):
            yield from ((f"{key}.{name}", inner) for name, inner in value.items())
        else:
            yield key, value


def task_name(settings: Iterable[tuple[str, Any]], default: str) -> str:
    """The task that settings name last, or the default.

    Raises:
        ValueError: What stands there is no name.
    """
    name = default
    for key, value in settings:
        if key in ("task", "task.name"):
            if not isinstance(value, str):
                raise ValueError(f"recipe key 'task.name' must be text, got {shown(value)}")
            name = value
    return name


def keys_of(settings: Iterable[str]) -> set[str]:
    """The keys that overrides, ``"epochs=3"``, set."""
    return {setting.partition("=")[0].strip() for setting in settings}


def stated_task(settings: Iterable[str]) -> str:
    """The task that overrides, ``"task=points"``, name last; empty if none does."""
    pairs = (setting.partition("=")[::2] for setting in settings)
    return task_name(((key.strip(), value.strip()) for key, value in pairs), "")


def put(values: dict[str, Any], key: Key, value: Any) -> None:
    """Set a value in nested mappings of a recipe's values."""
    place = values.setdefault(key.part, {}) if key.part else values
    if key.inside:
        place[key.name] = dict(place.get(key.name) or {})
        set_part(place, [key.name, *key.inside], value, key.path)
    else:
        place[key.name] = value


@functools.cache
def _fields(task: Task) -> dict[str, Key]:
    """The keys of a recipe for a task, by their paths."""
    found = {"task.name": Key("task", "name")}
    for part, cls in parts_of(task).items():
        for entry in dataclasses.fields(cls):
            found[f"{part}.{entry.name}"] = Key(part, entry.name, cls.kinds()[entry.name], entry=entry)
    return found


@functools.cache
def _short(task: Task) -> dict[str, str]:
    """The paths of a task's recipe by their short names; where two have one, it is the first's."""
    found: dict[str, str] = {}
    for path in _fields(task):
        name = path.split(".")[1]
        if path not in SHORT.values():
            found.setdefault(name, path)
    return found


def _elsewhere(name: str, task: Task) -> str | None:
    """The path that a short name has in a recipe for another task, or None."""
    return next((_short(one)[name] for one in all_tasks().values() if one is not task and name in _short(one)), None)


def _of_another(path: str, task: Task) -> Key:
    """The key of that path in recipes for other tasks."""
    others = [other for other in all_tasks().values() if path in _fields(other)]
    if others:
        return dataclasses.replace(_fields(others[0])[path], owners=tuple(other.title for other in others))
    part = path.split(".")[0]
    raise ValueError(unknown("recipe key", path, [known for known in _fields(task) if known.split(".")[0] == part]))
