"""Tables of an evaluation: a row per model, as timm's validation keeps them, per class, and per image."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tokenmix.data.dataset import Samples
from tokenmix.files import csv_cell, write_csv
from tokenmix.metrics import GatheredAnswers
from tokenmix.pictures.files import picture_file
from tokenmix.tasks.classification.images import ClassData
from tokenmix.tasks.judging import Judging

COLUMNS = ("model", "top1", "top1_err", "top5", "top5_err", "param_count", "img_size", "crop_pct", "interpolation")
SAMPLES, SAMPLE_PX = 24, 160  # that a comparison shows
PREDICTIONS = ("image", "label", "prediction", "confidence", "label_confidence", "correct")


def read_results(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """The rows of a table that `add_result` can extend; none where there is no file.

    Raises:
        ValueError: The file holds another table.
    """
    if not Path(path).exists():
        return []
    reader = csv.DictReader(io.StringIO(Path(path).read_text(encoding="utf-8")))
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise ValueError(f"{os.fspath(path)} is another table: its columns must be {','.join(COLUMNS)}")
    return list(reader)


def add_result(
    path: str | os.PathLike[str],
    model: str,
    numbers: Mapping[str, float],
    parameters: int,
    image_size: tuple[int, int],
    preparation: Mapping[str, Any],
) -> None:
    """Put a model's row into a table with the columns of timm's ``results-imagenet.csv``, in place of its old one.

    The rows are sorted as theirs, the highest top-1 first; the file appears whole or not at all.

    Args:
        path: The CSV file; a missing one is made.
        model: Its name, which decides whose row is replaced.
        numbers: ``top1`` and ``top5`` in percent.
        parameters: How many; written in millions.
        image_size: Height and width in pixels; of a square one number is written.
        preparation: Has ``crop_pct`` and ``interpolation``.

    Raises:
        ValueError: The file holds another table.
    """
    rows: list[dict[str, Any]] = [row for row in read_results(path) if row["model"] != csv_cell(model)]
    height, width = image_size
    row: dict[str, Any] = {"model": model, "param_count": f"{parameters / 1e6:.2f}"}
    row |= {"img_size": height if height == width else f"{height}x{width}"}
    row |= {"crop_pct": round(preparation["crop_pct"], 4), "interpolation": preparation["interpolation"]}
    for name in ("top1", "top5"):
        row |= {name: f"{numbers[name]:.3f}", f"{name}_err": f"{100 - numbers[name]:.3f}"}
    rows.append(row)
    rows.sort(key=lambda each: (-float(each["top1"]), each["model"]))
    write_csv(path, COLUMNS, ([each[name] for name in COLUMNS] for each in rows))


def write_predictions(
    path: str | os.PathLike[str],
    answered: GatheredAnswers,
    names: Sequence[str],
    classes: Sequence[str],
    *,
    labelled: bool = True,
) -> None:
    """Write a row per image: its name, label, prediction, the probability of each, and whether it is right.

    What is not known where pictures are not ``labelled`` stays empty.
    """

    def row(place: int) -> list[Any]:
        label, told = int(answered.label[place]), int(answered.prediction[place])
        shares = (f"{float(each[place]):.6f}" for each in (answered.confidence, answered.truth))
        told_name = classes[told] if told >= 0 else ""
        name = names[int(answered.index[place])]
        if not labelled:
            return [name, "", told_name, next(shares), "", ""]
        return [name, classes[label], told_name, *shares, int(label == told)]

    write_csv(path, PREDICTIONS, map(row, range(len(answered.index))))


def class_rows(answered: GatheredAnswers, classes: Sequence[str]) -> list[dict[str, Any]]:
    """A row per class that occurs: ``class``, ``images``, ``top1`` in percent, and ``confused_with``, what it was taken
    for most often, ``confused`` times; None and 0 where all are right.
    """
    rows: dict[int, dict[str, Any]] = {}
    for label, told, count in answered.confusion():
        empty = {"class": classes[label], "images": 0, "top1": 0.0, "confused_with": None, "confused": 0}
        row = rows.setdefault(label, empty)
        row["images"] += count
        if told == label:
            row["top1"] = 100.0 * count
        elif count > row["confused"]:
            row["confused_with"], row["confused"] = classes[told] if told >= 0 else "not a number", count
    for row in rows.values():
        row["top1"] /= row["images"]
    return list(rows.values())


class AnswersFile:
    """Writes a row per image once an evaluation has ended, see `write_predictions`."""

    def __init__(self, path: str, samples: Samples, classes: Sequence[str], labelled: bool) -> None:
        self.path, self.samples, self.classes, self.labelled = path, samples, classes, labelled

    def update(self, prediction: Any, batch: dict[str, Any]) -> None:
        """Nothing: the evaluation itself keeps the answers."""

    def finish(self, judging: Judging) -> None:
        answered: GatheredAnswers = judging.answered  # type: ignore[attr-defined]
        write_predictions(self.path, answered, self.samples.names, self.classes, labelled=self.labelled)


def compared_samples(
    answered: Mapping[str, GatheredAnswers], data: ClassData
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, bytes]]:
    """Every model's answers to the same test images, and those images as PNG by name.

    First come the images that most models get wrong, then some that all get right, evenly spread.
    """
    labels = next(iter(answered.values())).label
    wrong = torch.stack([one.prediction != labels for one in answered.values()]).sum(0)
    hard = [row for row in wrong.argsort(descending=True, stable=True).tolist() if wrong[row] > 0][:SAMPLES]
    easy = [row for row in range(len(labels)) if wrong[row] == 0]
    room = max(SAMPLES // 3, SAMPLES - len(hard))
    shown = hard + easy[:: max(1, len(easy) // room)][:room]
    entries = {
        name: [
            {
                "name": data.test.names[int(one.index[row])],
                "truth": int(labels[row]),
                "prediction": int(one.prediction[row]),
                "confidence": float(one.confidence[row]),
            }
            for row in shown
        ]
        for name, one in answered.items()
    }
    first = next(iter(answered.values()))
    return entries, {data.test.names[index]: _small(data, index) for index in first.index[shown].tolist()}


def _small(data: ClassData, index: int) -> bytes:
    picture = data.test.load(index)
    picture.thumbnail((SAMPLE_PX, SAMPLE_PX))
    return picture_file(picture, "PNG")
