"""How a model's answers hold when pictures are corrupted: every corruption at five strengths, in one pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch

from tokenmix.backbones.reparameterize import reparameterize
from tokenmix.checkpoints import LoadedModel
from tokenmix.data import Samples
from tokenmix.data.corruptions import STRENGTHS
from tokenmix.data.loader import BatchLoader
from tokenmix.evaluate import Batches, evaluating
from tokenmix.tasks import find_task, to_device

SCHEMA = "tokenmix.corruptions/1"


def check_corruptible(task_name: str) -> None:
    """Raise unless pictures of a task can be corrupted and its headline says how many answers stay right.

    Raises:
        ValueError: They cannot, with the reason.
    """
    task = find_task(task_name)
    if not task.corruptions:
        raise ValueError(f"--corruptions: not for {task.title}, {task.no_corruptions}")


def corruption_errors(
    loaded: LoadedModel,
    samples: Samples,
    facts: Mapping[str, Any],
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    batch_size: int | None = None,
    image_size: Any = None,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    shown: Callable[[BatchLoader], Batches] = lambda loader: loader,
    **options: Any,
) -> dict[str, Any]:
    """The headline of a loaded model's task on plain and on corrupted pictures; the same for any number of processes.

    The corruptions are those of `tokenmix.data.corruptions`, of the pixels that the network sees, by its seed; the set
    is loaded once. The error is what the headline misses to 100.

    Args:
        loaded: The model.
        samples: A set for its task.
        facts: Of the data set.
        seed: Of everything random.
        device: See `tokenmix.evaluate.judge`, also for the arguments that follow.
        batch_size: Samples at a time.
        image_size: Pixels.
        workers: Processes that load samples.
        rank: Which of the processes this is.
        world: How many there are.
        shown: Makes of the loader what is read.
        **options: What the task's objective takes.

    Returns:
        ``headline``; ``plain``, its value; ``scores``, by corruption its five values; ``errors``, by corruption the
        mean error over the strengths; ``mce``, the mean of those, the mean corruption error (in percent, not
        relative to another network as in ImageNet-C); ``drop``, by how much it passes the plain error; ``seed``,
        ``samples``.

    Raises:
        ValueError: The task's pictures cannot be corrupted, the set is empty, or an argument is out of range.
    """
    check_corruptible(loaded.task)
    task = find_task(loaded.task)
    share: dict[str, Any] = {"workers": workers, "rank": rank, "world": world}
    loader = task.loader(loaded, samples, image_size=image_size, batch_size=batch_size or task.batch_size, **share)
    fast = dataclasses.replace(loaded, model=reparameterize(loaded.model.to(device)))
    objective = task.objective_of(fast, facts, **options)
    plain = objective.metric()
    metrics = {(name, strength): objective.metric() for name in task.corruptions for strength in STRENGTHS}
    with evaluating(objective):
        for batch in shown(loader).batches(0):
            there = to_device(batch, device)
            plain.update(objective.predict(there), there)
            for (name, strength), metric in metrics.items():
                changed = to_device(task.corrupted(loaded, batch, name, strength, seed=seed), device)
                metric.update(objective.predict(changed), changed)
    value = plain.compute()[task.headline]
    values = {key: metric.compute()[task.headline] for key, metric in metrics.items()}
    scores = {name: [values[name, strength] for strength in STRENGTHS] for name in task.corruptions}
    errors = {name: sum(100 - score for score in line) / len(line) for name, line in scores.items()}
    mce = sum(errors.values()) / len(errors)
    return {
        "schema": SCHEMA,
        "headline": task.headline,
        "plain": value,
        "mce": mce,
        "drop": mce - (100 - value),
        "errors": errors,
        "scores": scores,
        "seed": seed,
        "samples": len(samples),
    }
