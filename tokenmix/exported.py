"""Exported files in the place of models: judged and asked by ONNX Runtime, as those will run them who ship them."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from tokenmix.checkpoints import LoadedModel
from tokenmix.data.dataset import Pictures, Samples
from tokenmix.data.inventory import OTHER, summary, take_inventory
from tokenmix.metrics import Metric
from tokenmix.tasks import Answer, Batch, Objective, find_task
from tokenmix.text_tables import counted
from tokenmix_runtime import Predictor
from tokenmix_runtime.limits import check_number

ENDING = ".onnx"


class ExportedModel(nn.Module):
    """The file behind a loaded model; it has no weights here."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.predictor = predictor


def is_exported(source: str | os.PathLike[str]) -> bool:
    """Whether this names a file that ``tokenmix export`` wrote for ONNX Runtime."""
    return os.fspath(source).endswith(ENDING)


def open_exported(path: str | os.PathLike[str]) -> LoadedModel:
    """An exported file with what its manifest says of it.

    Raises:
        ImportError: onnxruntime is not installed.
        ModelError: The file is missing, damaged, or not from ``tokenmix export``.
        ValueError: Its task is none that is known here, or it has no answers but pictures.
    """
    predictor = Predictor(path)
    m = predictor.manifest
    find_task(m.task)
    if m.reading.enlarges:
        raise ValueError(
            f"{os.fspath(path)} enlarges pictures: python -m tokenmix_runtime {os.fspath(path)} PICTURE... --out DIR "
            "does so; judge the run that it was made of"
        )
    facts = {} if m.labels is None else {"classes": list(m.labels)}
    return LoadedModel(
        ExportedModel(predictor),
        os.fspath(path),
        m.task,
        facts=facts,
        image_size=m.image_size,
        mean=tuple(m.mean),
        std=tuple(m.std),
        crop_pct=m.crop_pct,
        interpolation=m.interpolation,
        crop_mode=m.crop_mode,
    )


class ExportedObjective(Objective):
    """Predictions of an exported file for the pictures of a set, as the task's metric reads them.

    The pictures are prepared by the run-time itself, not by the loader, so that what is judged is what will run.

    Args:
        loaded: What `open_exported` returned.
        samples: The pictures that the batches are of.
        metric: A fresh one of the task's.
    """

    def __init__(self, loaded: LoadedModel, samples: Samples, metric: Metric) -> None:
        super().__init__()
        if not isinstance(samples, Pictures):
            raise ValueError(f"{loaded.name}: an exported file is judged by pictures only")
        self.model, self.samples, self.task, self.fresh = loaded.model, samples, find_task(loaded.task), metric

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        """It has no weights that could learn.

        Raises:
            ValueError: Always.
        """
        raise ValueError("an exported file cannot be trained")

    def predict(self, batch: Batch) -> Any:
        """What the file says of the batch's pictures."""
        predictor: Any = self.model.predictor
        pictures = [self.samples.load(index) for index in batch["index"].tolist()]
        return self.task.predictions_of(predictor(pictures))

    def metric(self) -> Metric:
        """The task's."""
        return self.fresh


def answer_of(loaded: LoadedModel, path: str, *, top: int = 5, threshold: float = 0.5) -> Answer:
    """What an exported file says of a picture's file.

    Args:
        loaded: What `open_exported` returned.
        path: The picture.
        top: How many classes a classifier names.
        threshold: The least score of an object.

    Raises:
        ImageError: The picture cannot be read.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"--threshold must be from 0 to 1, not {threshold}")
    check_number("top", top, "--top")
    model: Any = loaded.model
    result = model.predictor(path)
    lines = [path, *(f"  {line}" for line in result.lines(top, threshold))]
    return Answer(result.as_dict(top), lines, result.rows(top, threshold))


def expanded(paths: Sequence[str]) -> list[str]:
    """Files as they are; the pictures (or else all files) in a folder and below it; what a pattern or a list names.

    A list ends in ``.list``, or in ``.txt`` if its first line is the path of a file. Its paths are taken from here, or
    from the list's own folder.

    Raises:
        ValueError: A folder, a pattern or a list names none.
    """
    found: list[str] = []
    for path in paths:
        if os.path.isdir(path):
            inventory = take_inventory(path)
            inside = inventory.pictures or inventory.others
            if not inside:
                raise ValueError(f"{path}: there are no files in this folder")
            found += [os.path.join(path, name) for name in inside]
        elif (named := _listed(path)) is not None:
            found += named
        elif not os.path.exists(path) and any(sign in path for sign in "*?["):
            matching = sorted(glob.glob(path, recursive=True))
            if not matching:
                raise ValueError(f"{path}: no file has a name like this")
            found += matching
        else:
            found.append(path)
    return found


def left_out(folder: str) -> list[str]:
    """Which files in a folder `expanded` does not name, as lines: how many, why, and some of their names."""
    inventory = take_inventory(folder)
    unused = dict(inventory.unusable)
    if inventory.pictures:
        unused |= dict.fromkeys(inventory.others, OTHER)
    reasons: dict[str, list[str]] = {}
    for name, why in unused.items():
        reasons.setdefault(why, []).append(name)
    return [
        f"{folder}: {counted(len(names), 'file')} skipped, {why}: {summary(names)}" for why, names in reasons.items()
    ]


def _listed(path: str) -> list[str] | None:
    """The paths in a list of files; None if this is no list."""
    if not path.endswith((".list", ".txt")) or not os.path.isfile(path):
        return None
    folder = os.path.dirname(path)
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        lines = (line.strip() for line in file)
        first = next(filter(None, lines), "")
        if not first:
            if path.endswith(".txt"):
                return None
            raise ValueError(f"{path}: the list names no file")
        beside = not os.path.exists(first) and os.path.exists(os.path.join(folder, first))
        if path.endswith(".txt") and not beside and not os.path.isfile(first):
            return None
        return [os.path.join(folder, line) if beside else line for line in (first, *lines) if line]
