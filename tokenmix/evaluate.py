"""The loop without the optimiser: how good a model is, and what it predicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tokenmix.tasks import Batch, Task, to_device


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


class Witness(Protocol):
    """What else may follow an evaluation: a metric, or ``tokenmix.metrics.Answers``."""

    def update(self, prediction: Any, batch: Batch) -> None:
        """See a batch, and what the task predicts for it."""


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
    task: Task, loader: Batches, device: torch.device | str = "cpu", witnesses: Sequence[Witness] = ()
) -> dict[str, float]:
    """The task's metric over the loader's images, for classification ``top1`` and ``top5`` in percent and ``loss``.

    Of several processes each reads its part with its own loader; every image counts once, and all get the numbers of
    all images.

    Args:
        task: Already on ``device``.
        loader: Its first epoch is read once.
        device: Where the batches go.
        witnesses: They see every batch too.

    Raises:
        ValueError: The loader yields no sample.
    """
    metric = task.metric()
    with evaluating(task):
        for batch in loader.batches(0):
            batch = to_device(batch, device)
            prediction = task.predict(batch)
            for each in (metric, *witnesses):
                each.update(prediction, batch)
    return metric.compute()


def predictions(model: nn.Module, loader: Batches, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """A classifier's predictions: ``probabilities`` (N, K) float32, ``labels`` (N,) and ``index`` (N,), on the CPU.

    Masked samples are left out; a model with several heads gives the softmax of their mean logits.

    Args:
        model: (B, 3, H, W) -> (B, K) logits, already on ``device``.
        loader: Its first epoch is read once.
        device: Where the batches go.

    Raises:
        ValueError: The loader yields no sample.
    """
    parts: dict[str, list[Tensor]] = {"probabilities": [], "labels": [], "index": []}
    with evaluating(model):
        for batch in loader.batches(0):
            output = model(batch["image"].to(device))
            logits = torch.stack(tuple(output)).mean(0) if isinstance(output, tuple | list) else output
            mask = batch["mask"]
            parts["probabilities"].append(logits.float().softmax(1).cpu()[mask])
            parts["labels"].append(batch["label"][mask])
            parts["index"].append(batch["index"][mask])
    if not parts["labels"]:
        raise ValueError("nothing to predict: the data set is empty")
    return {name: torch.cat(tensors) for name, tensors in parts.items()}
