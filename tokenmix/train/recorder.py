"""What is noted of a run while it works: its curve, its speed, its mistakes.

All that must survive a death goes into the checkpoint, `Recorder.state`. So a step that is done twice, because the
process died before the next checkpoint, appears once.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.distributed as dist

from tokenmix.data.dataset import DataSet
from tokenmix.data.loader import BatchLoader
from tokenmix.evaluate import evaluate
from tokenmix.metrics import Metric
from tokenmix.recipes import Recipe
from tokenmix.tasks import Batch, Objective, Task, Witness
from tokenmix.train.distributed import Group
from tokenmix.train.schedule import Calendar
from tokenmix.train.threads import crowded
from tokenmix_runtime.cores import usable_cores

POINTS = 1000  # of the loss curve, about
WAITING = 0.2  # the share of the time from which on waiting for images is worth a word
PATIENCE_S = 10.0  # of training before it is said
PROBING_S = 300.0  # from one look at the threads to the next


@dataclass
class RunNotes:
    """What is stored in a checkpoint."""

    curve: list[list[Any]] = field(default_factory=list)  # [step, mean loss of the steps since the point before]
    loss_sum: float = 0.0  # since the last point
    good: int = 0
    images: int = 0  # of this epoch
    waited: float = 0.0  # seconds of this epoch
    worked: float = 0.0
    best_epoch: int = 0  # whose weights are kept
    evidence: dict[str, Any] | None = None  # of that epoch


class Recorder:
    """Follows a run; every process has one, the first one writes.

    Args:
        task: What is learnt.
        recipe: How.
        data: What is learnt from.
        group: The processes.
        calendar: The run's steps.
        workers: Processes that load images.
        probe: Some of the training samples, see `tokenmix.tasks.base.Task.probe`.
        log: Takes plain lines.
    """

    def __init__(
        self,
        task: Task,
        recipe: Recipe,
        data: DataSet,
        group: Group,
        calendar: Calendar,
        workers: int,
        probe: BatchLoader | None,
        log: Callable[[str], None],
    ) -> None:
        self.task, self.group, self.calendar, self.workers, self.say = task, group, calendar, workers, log
        self.probe = probe
        self.every = max(1, -(-calendar.total // POINTS))
        self.evidence = task.evidence(recipe, data)
        self.notes = RunNotes()
        self.silent = False  # whether a slow loader needs no word any more
        self.session = [0.0, 0.0]  # seconds waited and worked, without the start of the loader
        self.batches = 0  # since the loader's start
        self.probed = -PROBING_S  # after how many seconds of this session
        self.waited = self.got = 0.0

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

    def step(self, step: int, loss: float | None, samples: int) -> None:
        """Told after each step: its number from 1, its loss unless it was skipped, its samples over all processes."""
        notes, worked = self.notes, time.monotonic() - self.got
        notes.images += samples
        notes.waited += self.waited
        notes.worked += worked
        if self.batches:
            self.session[0] += self.waited
            self.session[1] += worked
        if loss is not None:
            notes.loss_sum += loss
            notes.good += 1
        if step % self.every == 0 or step == self.calendar.total:
            notes.curve.append([step, notes.loss_sum / notes.good if notes.good else None])
            notes.loss_sum, notes.good = 0.0, 0
        self._complain(*self.session)
        total = sum(self.session)
        if self.group.device.type == "cpu" and total >= PATIENCE_S and total - self.probed >= PROBING_S:
            remedy = crowded()
            self.probed = float("inf") if remedy else total  # said once
            if remedy:
                self.say(remedy)

    def _complain(self, waited: float, worked: float) -> None:
        """Say once that the loader is the bottleneck, if it is, and what helps."""
        total = waited + worked
        if self.silent or total < PATIENCE_S or waited < WAITING * total:
            return
        self.silent = True
        cores = max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        remedy = f"give --workers {cores} (workers={cores})"
        if self.workers >= cores:
            remedy = f"all {cores} cores load already: store smaller images, or put them on a faster disk"
        self.say(f"the loader is the bottleneck: {waited / total:.0%} of the time waits for images; {remedy}")

    def speed(self) -> dict[str, float]:
        """Of the epoch that ends: images per second, percent of the time that waited for images, peak memory in MB.

        Over all processes: the images together, the longest wait and the largest memory. Validation does not count.
        """
        notes, memory = self.notes, peak_memory_mb(self.group.device)
        waited, total, memory = _largest([notes.waited, notes.waited + notes.worked, memory], self.group)
        speed = {"images_per_second": notes.images / total, "data_wait": 100 * waited / total} if total else {}
        notes.images, notes.waited, notes.worked = 0, 0.0, 0.0
        self._complain(waited, total - waited)
        return {name: round(value, 2) for name, value in {**speed, "memory_mb": memory}.items()}

    def learnt(self, judged: Objective) -> dict[str, float]:
        """The headline on some of what was learnt from, beside the validation's; every process must call this."""
        if self.probe is None:
            return {}
        return {f"train_{self.task.headline}": evaluate(judged, self.probe, self.group.device)[self.task.headline]}

    @property
    def witnesses(self) -> Sequence[Witness]:
        """What must see the validation."""
        return self.evidence.witnesses if self.evidence else ()

    def judged(self, epoch: int, better: bool, metric: Metric) -> None:
        """Told after each validation, whether its weights are the ones to keep; every process must call this."""
        found = self.evidence.gather(metric) if self.evidence else None
        if better:
            self.notes.best_epoch, self.notes.evidence = epoch, found

    # ------------------------------------------------------------------------------------------------- the checkpoint

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return vars(self.notes)

    @property
    def noted(self) -> RunNotes:
        """What is noted up to now, which does not change any more."""
        return replace(self.notes, curve=list(self.notes.curve))

    def load(self, state: dict[str, Any]) -> None:
        """Take up what ``state`` gave."""
        self.notes = RunNotes(**state)


def peak_memory_mb(device: torch.device) -> float:
    """The most memory that this process has had, in 1e6 bytes: tensors on a GPU, else all of its resident memory.

    0 where the system does not tell.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _largest(values: list[float], group: Group) -> list[float]:
    """Each value of the process that has the largest."""
    if group.world == 1:
        return values
    found = torch.tensor(values, dtype=torch.float64, device=group.device)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return found.tolist()
