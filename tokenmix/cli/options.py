"""Options that several commands have, and those that belong to tasks, of which a model takes only its own task's."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from tokenmix.argument_types import size, whole
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


DATA = "digits, scenes, an image folder, one with boxes or masks, cifar10, ..., or hf:owner/name"
COMMON: dict[str, dict[str, Any]] = {
    "--data": {"metavar": "DATA", "help": DATA},
    "--device": {"default": "auto", "help": "cpu, cuda, or auto: a GPU where there is one (default: %(default)s)"},
    "--workers": {
        "type": whole("workers"),
        "default": 0,
        "metavar": "N",
        "help": "processes that load samples (default: %(default)s)",
    },
    "--download": {
        "action": "store_true",
        "help": "allow named data sets to be downloaded, and published weights for a plan",
    },
    "--fresh": {"action": "store_true", "help": "start again, whatever the folder holds"},
    "--seed": {"type": whole("seed"), "default": 0, "metavar": "N", "help": "of everything random (default: 0)"},
    "--image-size": {"type": size, "metavar": "H[,W]", "help": "in pixels (default: the model's)"},
    "--json": {"action": "store_true", "help": "print what came of it as JSON and nothing else"},
    "--budget": {
        "nargs": "+",
        "metavar": "LIMIT",
        "help": "what a plan may spend: 10min or 2h on training, 2ms on an answer in ONNX Runtime here, or both",
    },
}
"""Options that several commands have: what they are called, how they are read and explained, in one place."""


def add_common(parser: Any, *flags: str, **changes: dict[str, Any]) -> None:
    """Add options of `COMMON`; what differs for a command stands in ``changes`` under the option's name."""
    for flag in flags:
        name = flag.removeprefix("--").replace("-", "_")
        parser.add_argument(flag, **{**COMMON[flag], **changes.pop(name, {})})
    assert not changes, changes


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Let a command take settings of a recipe: ``epochs=3``, ``--epochs 3``, ``--set epochs=3``."""
    group = parser.add_argument_group(
        "settings of the recipe", "any key of `tokenmix recipes NAME`: epochs=3, --epochs 3 and --set epochs=3 are one"
    )
    add = group.add_argument
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="set a value; repeatable")
    for flag, what in SETTINGS.items():
        key = flag.removeprefix("--").replace("-", "_")
        add(flag, dest=f"setting_{key}", metavar=what[0], help=f"{what[1]}; short for {key}=...")


SETTINGS = {
    "--epochs": ("N", "passes over the training samples"),
    "--image-size": ("H[,W]", "pixels of the pictures"),
    "--batch-size": ("N", "samples per step"),
    "--lr": ("X", "peak learning rate"),
}
"""The settings that a command's help names; all other keys are taken the same way."""
