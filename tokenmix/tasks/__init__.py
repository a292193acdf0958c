"""Tasks by name: each is a folder here, found by what its package says, or a user's own that was registered."""

from __future__ import annotations

import functools
import importlib
import pkgutil

from tokenmix.tasks.answer import Answer, Option
from tokenmix.tasks.base import DEFAULT_TASK, Task
from tokenmix.tasks.judging import Evidence, Judged, Judging, Witness
from tokenmix.tasks.objective import Batch, Objective, to_device
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

    Args:
        task: It; its ``name`` is what recipes and files then call it.

    Returns:
        The task.

    Raises:
        ValueError: A task of the house has that name.

    Examples:
        >>> from tokenmix.tasks import find_task, register_task
        >>> register_task(AngleTask())  # a class of your own, see examples/own_task.py  # doctest: +SKIP
        >>> find_task("angle").shown("error", 12.5)  # doctest: +SKIP
        '12.50 degrees'
    """
    if task.name in _of_the_house():
        raise ValueError(f"there is a task {task.name!r} already: give yours another name")
    _OWN[task.name] = task
    return task


def all_tasks() -> dict[str, Task]:
    """All tasks by name, those of the house first.

    Examples:
        >>> from tokenmix.tasks import all_tasks
        >>> [name for name, task in all_tasks().items() if task.headline == "mIoU"]
        ['points', 'segmentation']
    """
    return _of_the_house() | _OWN


def find_task(name: str) -> Task:
    """The task of that name.

    Args:
        name: As recipes and files call it.

    Raises:
        ValueError: There is none.

    Examples:
        >>> from tokenmix.tasks import find_task
        >>> find_task("detection").headline
        'box_AP'
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
