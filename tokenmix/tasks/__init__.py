"""Tasks by name: each is a folder here, found by what its package says, or a user's own that was registered."""

from __future__ import annotations

import functools
import importlib
import pkgutil

from tokenmix.tasks.base import (
    DEFAULT_TASK,
    Answer,
    Batch,
    Evidence,
    Judged,
    Judging,
    Objective,
    Option,
    Task,
    Witness,
    to_device,
)
from tokenmix.tasks.options import TaskAugment, TaskOptions
from tokenmix_runtime.names import unknown

__all__ = [
    "DEFAULT_TASK",
    "Answer",
    "Batch",
    "Evidence",
    "Judged",
    "Judging",
    "Objective",
    "Option",
    "Task",
    "TaskAugment",
    "TaskOptions",
    "Witness",
    "all_tasks",
    "find_task",
    "register_task",
    "to_device",
]

_OWN: dict[str, Task] = {}


def register_task(task: Task) -> Task:
    """Make a task of one's own known by its name, in place of one that was registered before; returns it.

    Raises:
        ValueError: A task of the house has that name.
    """
    if task.name in _of_the_house():
        raise ValueError(f"there is a task {task.name!r} already: give yours another name")
    _OWN[task.name] = task
    return task


def all_tasks() -> dict[str, Task]:
    """All tasks by name, those of the house first."""
    return _of_the_house() | _OWN


def find_task(name: str) -> Task:
    """The task of that name.

    Raises:
        ValueError: There is none.
    """
    tasks = all_tasks()
    if name not in tasks:
        raise ValueError(unknown("task", name, tasks))
    return tasks[name]


@functools.cache
def _of_the_house() -> dict[str, Task]:
    """The ``TASKS`` of each folder, in the order of the folders' names."""
    folders = [entry.name for entry in pkgutil.iter_modules(__path__) if entry.ispkg]
    packages = [importlib.import_module(f"{__name__}.{folder}") for folder in sorted(folders)]
    return {task.name: task for package in packages for task in getattr(package, "TASKS", ())}
