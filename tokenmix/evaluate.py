"""The loop without the optimiser: how good a model is, and what it predicts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from tokenmix.backbones.reparameterize import reparameterize
from tokenmix.callable_modules import make_callable
from tokenmix.checkpoints import LoadedModel
from tokenmix.data import Samples
from tokenmix.data.loader import BatchLoader
from tokenmix.metrics import Metric
from tokenmix.tasks import Batch, Judging, Objective, Witness, find_task, to_device


def find_device(name: torch.device | str) -> torch.device:
    """The device of that name, which works here; ``"auto"`` is a CUDA GPU where there is one, else the CPU.

    Raises:
        ValueError: There is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type != "cuda":
            torch.empty(0, device=device)
        elif (device.index or 0) >= torch.cuda.device_count():  # not tried: it would take memory of the first GPU
            raise RuntimeError(f"there are {torch.cuda.device_count()}")
    except (RuntimeError, AssertionError) as error:  # torch raises both, and in many lines
        what = "CUDA GPU" if str(name) == "cuda" else "such device"
        raise ValueError(f"device {str(name)!r}: torch finds no {what} here; use 'cpu'") from error
    return device


class Batches(Protocol):
    """What the loops read: ``tokenmix.data.Loader``, or anything with its ``batches``."""

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from the batch ``start`` on."""


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every submodule is back in the mode it was in.

    Not ``inference_mode``: a mixer that keeps a transform for a size it has seen would keep an inference tensor, and
    the next training step would refuse it.
    """
    training = [child for child in module.modules() if child.training]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for child in training:
            child.training = True


def evaluate(
    objective: Objective,
    loader: Batches,
    device: torch.device | str = "cpu",
    witnesses: Sequence[Witness] = (),
    metric: Metric | None = None,
) -> dict[str, float]:
    """The objective's metric over the loader's samples, for a classifier ``top1`` and ``top5`` in percent and ``loss``.

    Of several processes each reads its part with its own loader; every sample counts once, and all get the numbers
    of all samples.

    Args:
        objective: Already on ``device``.
        loader: Its first epoch is read once.
        device: Where the batches go.
        witnesses: They see every batch too.
        metric: A fresh one of the objective's, for who wants to ask it for more; None makes one.

    Raises:
        ValueError: The loader yields no sample.
    """
    metric = metric or objective.metric()
    with evaluating(objective):
        for batch in loader.batches(0):
            batch = to_device(batch, device)
            prediction = objective.predict(batch)
            for each in (metric, *witnesses):
                each.update(prediction, batch)
    return metric.compute()


@dataclass(frozen=True)
class Judgement:
    """What came of judging a model.

    Attributes:
        numbers: Of the task's metric, and what else its task tells, such as a classifier's ``ece`` and ``brier``.
        rows: A row per class, or other part of the data, of which the task tells something.
        judging: The task's own notes, which know more.
    """

    numbers: dict[str, float]
    rows: list[dict[str, Any]]
    judging: Judging


def judge(
    loaded: LoadedModel,
    samples: Samples,
    facts: Mapping[str, Any],
    *,
    device: torch.device | str = "cpu",
    batch_size: int | None = None,
    image_size: int | Sequence[int] | None = None,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    witnesses: Sequence[Witness] = (),
    shown: Callable[[BatchLoader], Batches] = lambda loader: loader,
    objective: Callable[[Metric], Objective] | None = None,
    **options: Any,
) -> Judgement:
    """How good a loaded model is on a set of samples, whatever its task; the same for any number of processes.

    What computes is the model's inference form, see `reparameterize`: equal to rounding, and faster.

    Args:
        loaded: See `tokenmix.checkpoints.open_model`.
        samples: A set for the model's task.
        facts: Of the data set that they belong to: ``data.facts``.
        device: Where to compute; the model goes there.
        batch_size: Samples at a time, of all processes together; None: the task's.
        image_size: Pixels, one number or (height, width); None: the model's.
        workers: Processes that load samples.
        rank: Which of the processes this is, from 0.
        world: How many there are.
        witnesses: They see every batch and prediction too.
        shown: Makes of the loader what is read, for progress.
        objective: Makes what predicts in the model's place, such as a file in another runtime; it gets the metric.
        **options: What the task's objective takes, such as ``scales`` of a segmentation.

    Raises:
        ValueError: The set is empty or for another kind of task, an argument is out of range, or a package that the
            metric needs is missing.
    """
    task, device = find_task(loaded.task), find_device(device)
    if image_size is not None and not task.takes_image_size:
        raise ValueError(f"{task.title}: samples have their own size, which image_size would not change: leave it out")
    share: dict[str, Any] = {"workers": workers, "rank": rank, "world": world}
    loader = task.loader(loaded, samples, image_size=image_size, batch_size=batch_size or task.batch_size, **share)
    if objective is None:
        fast = dataclasses.replace(loaded, model=reparameterize(loaded.model.to(device)))
        judged = task.objective_of(fast, facts, **options)
        judging = task.judging(judged.metric(), facts)
    else:
        judging = task.judging(task.objective_of(loaded, facts, **options).metric(), facts)
        judged = objective(judging.metric)
    numbers = evaluate(judged, shown(loader), device, (*judging.witnesses, *witnesses), judging.metric)
    judging.finish()
    return Judgement(numbers | judging.numbers(), judging.rows(), judging)


make_callable(__name__)
