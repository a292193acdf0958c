"""What a run shows while it works: its curves, its speed, its mistakes; in files, in a report and in trackers.

All that must survive a death is in the checkpoint, `Watch.state`, and the files are written from it after it. So a step
that is done twice, because the process died before the next checkpoint, appears once.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tokenmix.data import DataSet
from tokenmix.files import write_text
from tokenmix.metrics import Answers
from tokenmix.recipes.recipe import Recipe
from tokenmix.report.run import write_run
from tokenmix.tasks import Batch, Classification, Task
from tokenmix.train.distributed import Group
from tokenmix.train.schedule import Calendar
from tokenmix.train.trackers import Tracking

POINTS = 1000  # of the loss curve, about
MISTAKES = 16  # pictures in the report
PICTURE_PX = 128
REFRESH_S = 30.0  # between two reports within an epoch
WAITING = 0.2  # the share of the time from which on waiting for images is worth a word
PATIENCE_S = 10.0  # of training before it is said


@dataclass
class _Seen:
    """What is stored in a checkpoint."""

    curve: list[list[Any]] = field(default_factory=list)  # [step, mean loss of the steps since the point before]
    loss_sum: float = 0.0  # since the last point
    good: int = 0
    images: int = 0  # of this epoch
    waited: float = 0.0  # seconds of this epoch
    worked: float = 0.0
    best_epoch: int = 0  # whose weights are kept
    evidence: dict[str, Any] | None = None  # of that epoch


class Watch:
    """Follows a run; every process has one, the first one writes.

    Args:
        recipe: What is done.
        data: On what; its validation pictures may be shown.
        out: The run's folder.
        group: The processes.
        calendar: The run's steps.
        task: What is trained.
        workers: Processes that load images.
        facts: What else the report tells, such as versions.
        log: Takes plain lines.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: DataSet,
        out: Path,
        group: Group,
        calendar: Calendar,
        task: Task,
        workers: int,
        facts: dict[str, Any],
        log: Callable[[str], None],
    ) -> None:
        self.recipe, self.data, self.out, self.group, self.calendar = recipe, data, out, group, calendar
        self.headline, self.workers, self.facts, self.say = task.headline, workers, facts, log
        self.every = max(1, -(-calendar.total // POINTS))
        self.answers = Answers() if isinstance(task, Classification) else None
        self.seen = _Seen()
        self.tracking: Tracking | None = None
        self.pictures: dict[int, bytes | None] = {}
        self.silent = self.broken = False  # whether waiting, and a failing report, need no word (any more)
        self.session = [0.0, 0.0]  # seconds waited and worked, without the start of the loader
        self.batches = 0  # since the loader's start
        self.waited = self.got = 0.0
        self.shown = time.monotonic()

    # ------------------------------------------------------------------------------------------------ while it trains

    def waiting(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches; the time that each takes to come is noted."""
        self.batches = 0
        while True:
            begin = time.monotonic()
            batch = next(batches, None)
            if batch is None:
                return
            self.got = time.monotonic()
            self.waited = self.got - begin
            yield batch
            self.batches += 1

    def step(self, step: int, loss: float | None, images: int) -> None:
        """Told after each step: its number from 1, its loss unless it was skipped, its images over all processes."""
        seen, worked = self.seen, time.monotonic() - self.got
        seen.images += images
        seen.waited += self.waited
        seen.worked += worked
        if self.batches:
            self.session[0] += self.waited
            self.session[1] += worked
        if loss is not None:
            seen.loss_sum += loss
            seen.good += 1
        if step % self.every == 0 or step == self.calendar.total:
            seen.curve.append([step, seen.loss_sum / seen.good if seen.good else None])
            seen.loss_sum, seen.good = 0.0, 0
        self._complain()

    def _complain(self) -> None:
        """Say once that the loader is the bottleneck, and what helps."""
        waited, worked = self.session
        if self.silent or waited + worked < PATIENCE_S or waited < WAITING * (waited + worked):
            return
        self.silent = True
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        cores = max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        remedy = f"give --workers {cores} (workers={cores})"
        if self.workers >= cores:
            remedy = f"all {cores} cores load already: store smaller images, or put them on a faster disk"
        self.say(f"the loader is the bottleneck: {waited / (waited + worked):.0%} of the time waits for images; {remedy}")

    def speed(self) -> dict[str, float | None]:
        """Of the epoch that ends: images per second, percent of the time that waited for images, peak memory in MB.

        Over all processes: the images together, the longest wait and the largest memory. Validation does not count.
        """
        seen = self.seen
        waited, worked, memory = _largest([seen.waited, seen.worked, peak_memory_mb(self.group.device)], self.group)
        total = waited + worked
        speed = {"images_per_second": seen.images / total, "data_wait": 100 * waited / total} if total else {}
        seen.images, seen.waited, seen.worked = 0, 0.0, 0.0
        return {name: round(value, 2) for name, value in {**speed, "memory_mb": memory}.items()}

    @property
    def witnesses(self) -> tuple[Answers, ...]:
        """What must see the validation."""
        return (self.answers,) if self.answers else ()

    def judged(self, epoch: int, better: bool) -> None:
        """Told after each validation, whether its weights are the ones to keep; every process must call this."""
        found = self.answers.gather() if self.answers else None
        if not better:
            return
        self.seen.best_epoch = epoch
        if found is None:
            return
        mistakes = [
            {
                "index": int(found.index[row]),
                "name": self.data.val.names[int(found.index[row])],
                "truth": int(found.label[row]),
                "prediction": int(found.prediction[row]),
                "confidence": float(found.confidence[row]),
                "truth_confidence": float(found.truth[row]),
            }
            for row in found.worst(MISTAKES)
        ]
        cells = [list(cell) for cell in found.confusion()]
        self.seen.evidence = {"images": len(found.index), "cells": cells, "mistakes": mistakes}

    # ------------------------------------------------------------------------------------------------- the checkpoint

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return dataclasses.asdict(self.seen)

    def load(self, state: dict[str, Any]) -> None:
        """Take up what ``state`` gave."""
        self.seen = _Seen(**state)

    # ------------------------------------------------------------------------------------------------------ the files

    def open(self, trackers: Sequence[str], say: Callable[[str], None], history: list[dict[str, Any]]) -> None:
        """Start the trackers, in the first process, and give them what they lack; from now on speak with ``say``."""
        self.say = say
        if not self.group.first:
            return
        config = {**dataclasses.asdict(self.recipe), "processes": self.group.world}
        self.tracking = Tracking(trackers, self.out, config, say)
        self._send(history)

    def refresh(self, history: list[dict[str, Any]], steps: int, seconds: float) -> None:
        """Write the files within an epoch, right after a checkpoint, now and then."""
        if time.monotonic() - self.shown >= REFRESH_S:
            self.publish(history, steps, seconds)

    def publish(self, history: list[dict[str, Any]], steps: int, seconds: float) -> None:
        """Write all files from what the last checkpoint holds.

        Args:
            history: The rows of the epochs.
            steps: Done in the run.
            seconds: Spent on it.
        """
        if not self.group.first:
            return
        self.shown = time.monotonic()
        write_text(self.out / "history.jsonl", "".join(json.dumps(row) + "\n" for row in history))
        write_text(self.out / "history.csv", _csv(history))
        write_text(self.out / "steps.jsonl", "".join(json.dumps(point) + "\n" for point in self.curve()))
        self.report(history, steps, seconds)
        self._send(history)

    def report(
        self, history: list[dict[str, Any]], steps: int, seconds: float, error: BaseException | None = None
    ) -> None:
        """Write the report; ``error`` is why the run stops before its end. A picture of a run is not worth the run."""
        if not self.group.first:
            return
        try:
            write_run(self._told(history, steps, seconds, error), self.out / "report.html", self._pictures())
        except Exception as failure:
            if not self.broken:
                self.say(f"{self.out / 'report.html'} could not be written: {failure}")
            self.broken = True

    def close(self, failed: bool = False) -> None:
        """End the trackers' session."""
        if self.tracking:
            self.tracking.close(failed)

    def curve(self) -> list[dict[str, Any]]:
        """The points of the loss curve: ``step``, ``epoch`` (a fraction), ``loss`` and ``lr``."""
        return [
            {"step": step, "epoch": round(self._epochs(step), 4), "loss": _finite(loss), "lr": self.calendar.lr(step - 1)}
            for step, loss in self.seen.curve
        ]

    def _epochs(self, step: int) -> float:
        """How many epochs the first steps make."""
        for number, length in enumerate(self.calendar.whole):
            if step <= length:
                return number + step / length
            step -= length
        return float(len(self.calendar.whole))

    def _send(self, history: list[dict[str, Any]]) -> None:
        """Give the trackers what is new."""
        if self.tracking is None:
            return
        values: dict[int, dict[str, float | None]] = {}
        for point in self.curve():
            values[point["step"]] = {"train/loss": point["loss"], "train/lr": point["lr"], "epoch": point["epoch"]}
        for row in history:
            told = {_tag(name): value for name, value in row.items() if name not in ("epoch", "step", "lr")}
            values.setdefault(row["step"], {"epoch": self._epochs(row["step"])}).update(told)
        ends = list(accumulate(self.calendar.lengths))
        if len(history) < len(ends):
            values.pop(ends[len(history)], None)  # the last step of an epoch goes with its row, and that is to come
        self.tracking.send(values)

    def _told(
        self, history: list[dict[str, Any]], steps: int, seconds: float, error: BaseException | None
    ) -> dict[str, Any]:
        """What the report is drawn from."""
        total = self.calendar.total
        status = "running" if error is None else "stopped"
        return {
            "name": self.out.name,
            "status": "finished" if len(history) == len(self.calendar.lengths) else status,
            "reason": _reason(error),
            "updated": datetime.now(UTC).isoformat(timespec="seconds"),
            "headline": self.headline,
            "epochs": len(self.calendar.lengths),
            "epoch": min(self._epochs(steps), self.recipe.epochs),
            "seconds": seconds,
            "left": seconds / steps * (total - steps) if steps else None,
            "history": [{**row, "place": self._epochs(row["step"])} for row in history],
            "curve": self.curve(),
            "best_epoch": self.seen.best_epoch,
            "evidence": self.seen.evidence,
            "classes": list(self.data.classes),
            "data": {
                "name": self.data.name,
                **{f"{part} images": len(getattr(self.data, part)) for part in ("train", "val", "test")},
            },
            "recipe": dataclasses.asdict(self.recipe),
            "workers": self.workers,
            **self.facts,
        }

    def _pictures(self) -> dict[int, bytes | None]:
        """The pictures of the mistakes as PNG, by their place in the validation set; each is loaded once."""
        shown = [mistake["index"] for mistake in (self.seen.evidence or {"mistakes": []})["mistakes"]]
        self.pictures = {index: self.pictures.get(index) or self._picture(index) for index in shown}
        return self.pictures

    def _picture(self, index: int) -> bytes | None:
        try:
            picture = self.data.val.load_reduced(index, PICTURE_PX)
        except (NotImplementedError, OSError, ValueError):  # gone since, or of a source that only streams
            return None
        picture.thumbnail((PICTURE_PX, PICTURE_PX))
        file = io.BytesIO()
        picture.save(file, "PNG")
        return file.getvalue()


def peak_memory_mb(device: torch.device) -> float:
    """The most memory that this process has had, in 1e6 bytes: tensors on a GPU, else all of its resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _largest(values: list[float], group: Group) -> list[float]:
    """Each value of the process that has the largest."""
    if group.world == 1:
        return values
    found = torch.tensor(values, dtype=torch.float64, device=group.device)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return found.tolist()


def _reason(error: BaseException | None) -> str:
    """Why a run stopped, for its report."""
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "by a signal"
    return f"{error or type(error).__name__}" if error is not None else ""


def _tag(name: str) -> str:
    """How a key of a row is called in a tracker."""
    if name.startswith("val_"):
        return f"val/{name.removeprefix('val_')}"
    return "train/epoch_loss" if name == "loss" else f"run/{name}"


def _csv(rows: list[dict[str, Any]]) -> str:
    """The rows as a table with a header, which has every key that occurs."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list({name: None for row in rows for name in row}), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
