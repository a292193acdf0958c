"""What is in a set of pictures with objects or labelled pixels, before anything is trained on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tokenmix.data.inventory import summary
from tokenmix.tasks.base import Log, Task
from tokenmix.tasks.dense.sets import IGNORED, DenseSet, ObjectSet
from tokenmix.text_tables import table

SPLITS = ("train", "val", "test")


def check_dense(task: Task, spec: str, *, seed: int, log: Log) -> dict[str, Any]:
    """Look at every picture and its answer, and report what is there and what is wrong.

    Args:
        task: Whose data they are.
        spec: What the task opens.
        seed: Of the split of a set that has none; the training run's.
        log: Takes progress.

    Returns:
        ``data``, ``task``, ``classes``; per split ``images`` and, of each class, ``per_class``: objects, or for labels
        of pixels the share of the labelled ones in percent; and ``findings``: ``level``, ``kind``, ``message``.

    Raises:
        ValueError: The data set cannot be loaded at all.
    """
    data: Any = task.open_data(spec, seed=seed, log=log)
    splits = {split: _split(getattr(data, split), len(data.classes)) for split in SPLITS}
    findings = []
    for kind, names in data.problems.found.items():
        more = f", and {len(names) - 3:,} more" if len(names) > 3 else ""
        message = f"{len(names):,} x {kind}: {', '.join(names[:3])}{more}"
        findings.append({"level": "warning", "kind": kind, "message": message})
    findings += [{"level": "warning", "kind": "whole", "message": warning} for warning in data.warnings]
    for reason, names in data.unused.items():
        message = f"{len(names):,} x {reason}: {summary(names)}"
        findings.append({"level": "warning", "kind": "not used", "message": message})
    for split, numbers in splits.items():
        absent = [name for name, count in zip(data.classes, numbers["per_class"], strict=True) if not count]
        if absent:
            shown = ", ".join(absent[:5]) + (f", and {len(absent) - 5:,} more" if len(absent) > 5 else "")
            level = "error" if split == "train" else "warning"
            message = f"{len(absent):,} classes do not occur in the {split} images: {shown}"
            findings.append({"level": level, "kind": "missing class", "message": message})
    return {"data": data.name, "task": task.name, "classes": data.classes, "splits": splits, "findings": findings}


def _split(samples: DenseSet, classes: int) -> dict[str, Any]:
    if isinstance(samples, ObjectSet):
        counts = np.zeros(classes, np.int64)
        for one in samples.objects:
            counts += np.bincount(one.labels[~one.crowd] - 1, minlength=classes)
        return {"images": len(samples), "objects": int(counts.sum()), "per_class": counts.tolist()}
    counts = np.zeros(classes, np.int64)
    for index in range(len(samples)):
        target = samples.target(index)
        labels = target["label"] if "label" in target else target["labels"] - 1
        values = labels.numpy().reshape(-1)
        counts += np.bincount(values[values != IGNORED], minlength=classes)
    if not samples.per_pixel:
        return {"images": len(samples), "objects": int(counts.sum()), "per_class": counts.tolist()}
    total = max(1, int(counts.sum()))
    return {"images": len(samples), "per_class": [round(100 * share, 3) for share in (counts / total).tolist()]}


def report_lines(report: Mapping[str, Any]) -> list[str]:
    """A table of the classes in each split."""
    header = ["class", *report["splits"]]
    rows = [
        [name, *(f"{numbers['per_class'][row]:,}" for numbers in report["splits"].values())]
        for row, name in enumerate(report["classes"])
    ]
    rows.append(["images", *(f"{numbers['images']:,}" for numbers in report["splits"].values())])
    counted = "objects" if any("objects" in numbers for numbers in report["splits"].values()) else "percent of pixels"
    return [f"\n{table(header, rows)}\n", f"numbers of the classes are {counted}"]
