"""The jobs that can be trained: a task is what a loop must know about one."""

from collections.abc import Callable

from tokenmix.tasks.base import Batch, Task, to_device
from tokenmix.tasks.classification import DISTILLS, Classification

TASKS: dict[str, Callable[..., Task]] = {"classification": Classification}

__all__ = ["DISTILLS", "TASKS", "Batch", "Classification", "Task", "to_device"]
