"""The pictures of a folder that a trained detector or segmenter is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from tokenmix.data.dataset import printable
from tokenmix.data.inventory import Inventory, take_inventory
from tokenmix.data.judged import choose
from tokenmix.data.natural import same
from tokenmix.tasks.base import Log, Task
from tokenmix.tasks.dense.checks import usable
from tokenmix.tasks.dense.layout import SPLITS, Item, Layout, RawObject
from tokenmix.tasks.dense.problems import Problems
from tokenmix.tasks.dense.sets import IGNORED, ObjectSet, UnlabelledSet
from tokenmix.tasks.dense.sources import inside, read_layout, readings
from tokenmix.tasks.judging import Judged
from tokenmix_runtime.names import unknown


def open_judged_folder(task: Task, path: Path, loaded: Any, split: str | None, seed: int, log: Log) -> Judged:
    """The pictures of a folder with answers in the model's classes, which are matched by name.

    Where nothing in the folder speaks for answers, its pictures are only predicted.

    Args:
        task: The model's.
        path: The folder.
        loaded: The model.
        split: Which part; None: all that it has not learnt from, see `tokenmix.data.judged.choose`.
        seed: Of the split, where the folder has none and the model does not know the folder.
        log: Hears what is chosen, and what is left out.

    Raises:
        ValueError: The folder cannot be read, or has classes that the model does not know.
    """
    inventory = inside(take_inventory(path))
    name, path = path.resolve().name, inventory.root
    if not readings(inventory, task.name):
        return _unlabelled(task, inventory, loaded, log)
    layout = read_layout(inventory, task.name)
    if loaded.classes is not None:
        _renumber(layout, list(loaded.classes), path)
    items = [item for part in SPLITS for item in layout.splits.get(part, ())]
    parts = [part for part in SPLITS for _ in layout.splits.get(part, ())]
    whole = len({part for part in parts}) < 2
    problems = Problems()
    for kind, stray in layout.strays:
        problems.add(kind, stray)
    samples, skipped = usable(path, layout, items, task.name, True, problems, log)
    problems.tell(log)
    if not len(samples):
        first = f"; first of all: {skipped[0].name}: {skipped[0].reason}" if skipped else ""
        raise ValueError(f"{path}: none of its {len(items):,} pictures can be used{first}")
    part_of = {item.file: "" if whole else part for item, part in zip(items, parts, strict=True)}
    folders = [part_of[file] for file in samples.files]
    labels = [0] * len(samples)
    chosen, notes = choose(path, samples.contents(), folders, samples.names, labels, loaded.data, split, seed)
    for note in notes:
        log(note)
    classes = list(loaded.classes or map(printable, layout.classes))
    return Judged(name, samples.subset(chosen), {"classes": classes})


def _unlabelled(task: Task, inventory: Inventory, loaded: Any, log: Log) -> Judged:
    """The pictures of a folder without answers.

    Raises:
        ValueError: None of them can be read.
    """
    path, layout = inventory.root, Layout("pictures", [], {})
    log(f"{path}: no answers for {task.title} found: its {len(inventory.pictures):,} pictures can only be predicted")
    items, problems = [Item(name) for name in inventory.pictures], Problems()
    samples, _ = usable(path, layout, items, "detection", True, problems, log)
    problems.tell(log)
    if not len(samples) or not isinstance(samples, ObjectSet):
        raise ValueError(f"{path}: none of its {len(items):,} pictures can be used")
    unlabelled = UnlabelledSet(path, samples.files, samples.sizes, per_pixel=task.name == "segmentation")
    return Judged(path.resolve().name, unlabelled, {"classes": list(loaded.classes or ())}, labelled=False)


def _renumber(layout: Layout, classes: list[str], path: Path) -> None:
    """Give the folder's classes the model's numbers.

    Raises:
        ValueError: The model does not know one of them.
    """
    numbers = {same(name): number for number, name in enumerate(classes)}
    for name in layout.classes:
        if same(printable(name)) not in numbers:
            hint = unknown("class", name, classes)
            raise ValueError(f"{path} has other classes than the model was trained with: {hint}")
    place = [numbers[same(printable(name))] for name in layout.classes]
    if place == list(range(len(place))) and len(place) == len(classes):
        return
    if layout.class_ids:
        layout.class_ids = _ids(layout.class_ids, place, len(classes))
    if layout.table is not None:
        table = layout.table.copy()
        for value in range(len(table)):
            if table[value] != IGNORED:
                table[value] = place[layout.table[value]]
        layout.table = table
    if layout.colours is not None:
        colours = [(-1, -1, -1)] * len(classes)
        for old, new in enumerate(place):
            colours[new] = layout.colours[old]
        layout.colours = colours
    for part, items in layout.splits.items():
        layout.splits[part] = [_moved(item, place) for item in items]
    layout.classes = classes


def _ids(given: Sequence[int | str], place: Sequence[int], size: int) -> list[int | str]:
    """The ids of a folder's classes at their places among ``size``; a class that it has not gets one that is free."""
    known = dict(zip(place, given, strict=True))
    free = count(max((number for number in given if isinstance(number, int)), default=0) + 1)
    return [known[number] if number in known else next(free) for number in range(size)]


def _moved(item: Item, place: list[int]) -> Item:
    objects = [_relabelled(entry, place) for entry in item.objects]
    return replace(item, objects=objects)


def _relabelled(entry: RawObject, place: list[int]) -> RawObject:
    return entry if entry.label is None else replace(entry, label=place[entry.label - 1] + 1)
