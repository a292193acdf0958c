"""How long a recipe would take on this machine: measured by a few of its own steps."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from tokenmix.data.dataset import DataSet
from tokenmix.evaluate import evaluating
from tokenmix.recipes import Recipe
from tokenmix.tasks import find_task, to_device
from tokenmix.train.distributed import Group
from tokenmix.train.schedule import Calendar
from tokenmix.train.training_step import TrainingStep

WARM_STEPS, STEPS = 1, 4
LEAST_S = 0.5  # of measured steps, so that the clock's own noise does not count
EPOCH_S, EPOCH_S_PER_MILLION = 0.15, 0.05  # for the page, and for a million parameters' checkpoint, after each epoch
LOOKS = 2  # at as many samples as are validated: the validation, and what was learnt


@dataclass(frozen=True)
class Pace:
    """What a run would take.

    Attributes:
        step_s: Seconds for a step, its samples loaded.
        epoch_s: Seconds for what follows after an epoch: validation, checkpoint, page.
        steps: Optimiser steps of the run.
        epochs: Validations of the run.
        parameters: Of the model.
    """

    step_s: float
    epoch_s: float
    steps: int
    epochs: int
    parameters: int

    @property
    def seconds(self) -> float:
        """For the whole run."""
        return self.steps * self.step_s + self.epochs * self.epoch_s


def measure_pace(
    recipe: Recipe,
    data: DataSet,
    device: torch.device,
    *,
    workers: int = 0,
    model: Callable[[], nn.Module] | None = None,
    until: float = math.inf,
    most_s: float = math.inf,
) -> Pace:
    """Do a few steps of a recipe, and a batch of its validation, and say what the whole run would take.

    What is learnt thereby is thrown away, and the global random state is left as it was. The first step, which warms
    up, counts only where there is no time for another one.

    Args:
        recipe: What to do.
        data: On what.
        device: Where.
        workers: Processes that would load samples beside.
        model: Makes the network, for one that the recipe cannot name.
        until: When to measure no further, by ``time.perf_counter``; at least one step is done.
        most_s: Seconds of the whole run from which on nobody wants to know it better than by two steps.

    Raises:
        ValueError: The recipe does not fit the data.
    """
    task = find_task(recipe.task.name)
    recipe = task.complete(recipe, data)
    group = Group(0, 1, device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        trained = TrainingStep(task, replace_weights(recipe), data, model, group)
        loader, judged = task.loaders(recipe, data, trained.preparation, workers=0, rank=0, world=1)
        calendar = Calendar(recipe, lambda epoch: len(loader.steps(epoch)))
        trained.freeze_backbone(False)
        batches = itertools.chain.from_iterable(loader.batches(epoch) for epoch in itertools.count())
        loads, works = [], []
        for number in itertools.count():
            begin = time.perf_counter()
            batch = next(batches)
            loaded = time.perf_counter()
            trained.step(batch, len(batch["index"]), number, 0.0, (False, False))
            now = time.perf_counter()
            if number >= WARM_STEPS or now >= until:
                loads.append(loaded - begin)
                works.append(now - loaded)
            spent = sum(works) + sum(loads)
            if len(works) >= STEPS and (spent >= LEAST_S or len(works) >= 10 * STEPS):
                break
            if works and (now >= until or spent / len(works) * calendar.total >= most_s):
                break
        load, work = sum(loads) / len(loads), sum(works) / len(works)
        begin, seen = time.perf_counter(), 0
        with evaluating(trained.judged):
            for batch in itertools.islice(judged.batches(0), 2 if time.perf_counter() < until else 1):
                trained.judged.predict(to_device(batch, device))
                seen += len(batch["index"])
        judging = (time.perf_counter() - begin) / max(1, seen) * len(data.val)
        parameters = sum(parameter.numel() for parameter in trained.objective.model.parameters())
        return Pace(
            max(work, load / workers) if workers else load + work,
            LOOKS * judging + EPOCH_S + EPOCH_S_PER_MILLION * parameters / 1e6,
            calendar.total,
            len(calendar.lengths),
            parameters,
        )


def replace_weights(recipe: Recipe) -> Recipe:
    """The recipe with fresh weights, which cost as much and need not be fetched."""
    return replace(recipe, model=replace(recipe.model, weights=None))
