"""The loop without the optimiser: how good a model is, and what it predicts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from tokenmix.backbones.reparameterize import reparameterize
from tokenmix.checkpoints import Opened
from tokenmix.data import DenseAugment, DenseLoader, DenseSet, ImageSet, Loader, dense_preprocess
from tokenmix.data.loader import BaseLoader
from tokenmix.metrics import Answered, Answers, Calibration, Metric
from tokenmix.report.found import FoundLabels, FoundObjects
from tokenmix.report.results import class_rows
from tokenmix.tasks import TASKS, Batch, Task, to_device
from tokenmix.tasks.detection import enlarged

_LARGEST_PX = 2048  # of a map of classes that is to be looked at: 150 classes need 2 GB at this size


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
    task: Task,
    loader: Batches,
    device: torch.device | str = "cpu",
    witnesses: Sequence[Witness] = (),
    metric: Metric | None = None,
) -> dict[str, float]:
    """The task's metric over the loader's images, for classification ``top1`` and ``top5`` in percent and ``loss``.

    Of several processes each reads its part with its own loader; every image counts once, and all get the numbers of
    all images.

    Args:
        task: Already on ``device``.
        loader: Its first epoch is read once.
        device: Where the batches go.
        witnesses: They see every batch too.
        metric: A fresh one of the task's, for who wants to ask it for more; None makes one.

    Raises:
        ValueError: The loader yields no sample.
    """
    metric = metric or task.metric()
    with evaluating(task):
        for batch in loader.batches(0):
            batch = to_device(batch, device)
            prediction = task.predict(batch)
            for each in (metric, *witnesses):
                each.update(prediction, batch)
    return metric.compute()


def opened_task(opened: Opened, num_classes: int, **task_args: Any) -> Task:
    """The task of an opened model: what its training told it, changed by ``task_args``, such as ``scales=(0.5, 1)``.

    A new ``window`` comes with its own stride.

    Raises:
        ValueError: The model has another number of classes, or the task has no such argument or value.
    """
    own = getattr(opened.model, "num_classes", num_classes)
    if own != num_classes:
        raise ValueError(f"{opened.name} has {own} classes, but the data has {num_classes}")
    kept = {name: value for name, value in opened.task_args.items() if name != "stride" or "window" not in task_args}
    return TASKS[opened.task](opened.model, num_classes=num_classes, **{**kept, **task_args})


@dataclass(frozen=True)
class Judgement:
    """What came of judging a model.

    Attributes:
        numbers: Of the task's metric; of a classifier also ``ece`` and ``brier``.
        by_class: A row per class, with its name as ``class`` first.
        metric: A dense task's, which knows more: `CocoAP.everything`, `SegmentationOverlap.cells`.
        answered: A classifier's answer to each image.
    """

    numbers: dict[str, float]
    by_class: list[dict[str, Any]]
    metric: Metric
    answered: Answered | None = None


def judge(
    opened: Opened,
    images: ImageSet,
    classes: Sequence[str],
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
    image_size: int | Sequence[int] | None = None,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    witnesses: Sequence[Witness] = (),
    shown: Callable[[BaseLoader], Batches] = lambda loader: loader,
    **task_args: Any,
) -> Judgement:
    """How good an opened model is on a set of images, whatever its task; the same for any number of processes.

    What computes is the model's inference form, see `reparameterize`: equal to rounding, and faster.

    Args:
        opened: See `tokenmix.checkpoints.open_model`.
        images: A set for the model's task.
        classes: Their names.
        device: Where to compute; the model goes there.
        batch_size: Images at a time, of all processes together.
        image_size: Pixels, one number or (height, width); None: the model's.
        workers: Processes that load images.
        rank: Which of the processes this is, from 0.
        world: How many there are.
        witnesses: They see every batch and prediction too.
        shown: Makes of the loader what is read, for progress.
        **task_args: See `opened_task`.

    Raises:
        ValueError: The set is empty or for another kind of task, an argument is out of range, or COCO's evaluator is
            needed and missing.
    """
    if isinstance(images, DenseSet) == (opened.task == "classification"):
        raise ValueError(f"{opened.name} is for {opened.task}: use load_data(..., task={opened.task!r})")
    fast = dataclasses.replace(opened, model=reparameterize(opened.model.to(device)))
    task = opened_task(fast, len(classes), **task_args)
    metric = task.metric()
    loader = _opened_loader(
        opened, images, image_size or opened.image_size, batch_size=batch_size, workers=workers, rank=rank, world=world
    )
    if opened.task == "classification":
        answers, calibration = Answers(), Calibration()
        numbers = evaluate(task, shown(loader), device, (answers, calibration, *witnesses), metric)
        answered = answers.gather()
        return Judgement(numbers | calibration.compute(), class_rows(answered, classes), metric, answered)
    numbers = evaluate(task, shown(loader), device, witnesses, metric)
    rows = zip(classes, metric.by_class(), strict=True)  # type: ignore[attr-defined]
    return Judgement(numbers, [{"class": name, **row} for name, row in rows], metric)


def _opened_loader(
    opened: Opened, images: ImageSet, image_size: int | Sequence[int], **options: Any
) -> Loader | DenseLoader:
    """The images as the model wants them."""
    if not isinstance(images, DenseSet):
        return Loader(images, image_size=image_size, train=False, **options, **opened.preparation)
    augment = DenseAugment(stretch=opened.crop_mode == "squash")
    kind: dict[str, Any] = {"mean": opened.mean, "std": opened.std, "augment": augment, "train": False}
    return DenseLoader(images, image_size=image_size, **kind, **options)


def look_at(
    opened: Opened, picture: Image.Image, *, threshold: float = 0.5, device: torch.device | str = "cpu"
) -> FoundObjects | FoundLabels:
    """What a dense model finds on an RGB picture, in the picture's own pixels.

    The map of classes of a picture with a side above 2048 pixels is made at that size.

    Args:
        opened: Its model already on ``device``.
        picture: Of any size.
        threshold: The least score of an object.
        device: Where to compute.
    """
    count: Any = opened.model.num_classes
    stretch = opened.crop_mode == "squash"
    image = dense_preprocess(picture, opened.image_size, mean=opened.mean, std=opened.std, stretch=stretch)
    batch: Batch = {"image": [image.to(device)]}
    size, task = [picture.height, picture.width], opened_task(opened, count)
    with evaluating(task):
        if opened.task == "segmentation":
            factor = min(1.0, _LARGEST_PX / max(size))
            (label,) = task.predict(batch | {"size": torch.tensor([[max(1, round(side * factor)) for side in size]])})
            return FoundLabels(label, opened.classes, count)
        (found,) = task.predict(batch)
    found = {name: value[found["scores"] >= threshold] for name, value in found.items()}
    return FoundObjects(enlarged(found, image.shape[-2:], size), opened.classes)


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
