"""Options that belong to tasks: a command takes those of all of them, and refuses what is not the model's."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from tokenmix.tasks import Option, Task, all_tasks

Chosen = Callable[[Task], tuple[Option, ...]]


def add_task_options(parser: argparse.ArgumentParser, chosen: Chosen) -> None:
    """Add the options of every task, each once, in a group of the tasks that have it.

    Args:
        parser: The command's.
        chosen: Which of a task's options: its ``eval_options``, say.
    """
    owners: dict[str, list[str]] = {}
    options: dict[str, Option] = {}
    for task in all_tasks().values():
        for option in chosen(task):
            owners.setdefault(option.flag, []).append(task.title)
            options.setdefault(option.flag, option)
    groups: dict[str, Any] = {}
    for flag, titles in owners.items():
        title = ", ".join(titles)
        group = groups.setdefault(title, None) or parser.add_argument_group(title)
        groups[title] = group
        group.add_argument(flag, **options[flag].settings)


def task_options(args: argparse.Namespace, task: Task, chosen: Chosen) -> dict[str, Any]:
    """The given options of a task, by name; options that were not given are None.

    Raises:
        ValueError: One was given that only other tasks have.
    """
    own = {option.name for option in chosen(task)}
    for other in all_tasks().values():
        for option in chosen(other):
            if getattr(args, option.name) is not None and option.name not in own:
                titles = [one.title for one in all_tasks().values() if option in chosen(one)]
                raise ValueError(f"{option.flag} is for {' and '.join(titles)}, but this model is for {task.title}")
    return {name: value for name in own if (value := getattr(args, name)) is not None}
