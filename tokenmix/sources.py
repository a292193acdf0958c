"""The one way in: a data set from the name that a user wrote, as a task reads it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenmix.data.inventory import take_inventory
from tokenmix.tasks import DEFAULT_TASK, Task, all_tasks, find_task
from tokenmix_runtime.terminal import say


def load_data(
    spec: str | os.PathLike[str],
    *,
    task: str = DEFAULT_TASK,
    seed: int = 0,
    download: bool = False,
    log: Callable[[str], None] = say,
    image_size: int | None = None,
    check: Any = True,
) -> Any:
    """The data set that ``spec`` names.

    Args:
        spec: ``"digits"``, another name of the task's, or the path of a folder; for classification also
            ``"hf:owner/name"``, or tar shards: a folder of them, ``"path/train-{000..127}.tar"``, ``"https://..."``,
            ``"pipe:command"``, see ``tokenmix.tasks.classification.shard_sets.load_shards``. A known name
            wins over a folder of that name (write ``./digits`` for the folder).
        task: Whose data they are, a name of `tokenmix.tasks.all_tasks`; the task reads the folder.
        seed: Decides which images are split off where a set has no validation or test images of its own. The split of
            the digits is always the same.
        download: Allow a torchvision data set to be downloaded. (A Hugging Face name always is, once.)
        log: Receives one line at a time: progress, what was skipped, the sizes.
        image_size: The data set's default image size in pixels; its own default is 32 for digits and CIFAR, else 224.
        check: Decode every image of a folder, a Hugging Face data set or shards first, so that broken ones are skipped
            and reported now; or look at each with this function (shards: decode them all the same).

    Raises:
        ValueError: An unknown name or path, nothing readable in it, not downloaded, or a missing library.
    """
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size must be a positive number of pixels, not {image_size}")
    options: dict[str, Any] = {"seed": seed, "download": download, "image_size": image_size, "check": check}
    return find_task(task).open_data(os.fspath(spec), log=log, **options)


def recognise(spec: str | os.PathLike[str]) -> tuple[Task, str]:
    """The task that a data set is for, and what speaks for it: a name that a task knows, or what lies in the folder.

    Raises:
        ValueError: Nothing speaks for any task.
    """
    name = os.fspath(spec)
    tasks = all_tasks()
    for task in tasks.values():
        if name in task.data_names():
            return task, f"{name} is one of its data sets"
        if task.endings and (file := re.sub(r":\w+=.*$", "", name)).endswith(task.endings):
            return task, f"{file} is a file as it reads them"
    path = Path(name).expanduser()
    default = tasks[DEFAULT_TASK]
    if not path.is_dir():
        return default, "nothing else"
    inventory = take_inventory(path)
    found = {task.name: evidence for task in tasks.values() if (evidence := task.recognise_data(inventory))}
    if not found:
        return default, "nothing else"
    strong = [task for task in found if task != DEFAULT_TASK]
    chosen = strong[0] if strong else DEFAULT_TASK
    return tasks[chosen], found[chosen]
