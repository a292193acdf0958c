"""What the command line does, as functions as short: train, predict, evaluate, export.

Each takes what the command of its name takes, and returns what that prints.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from tokenmix.checkpoints import LoadedModel, open_model
from tokenmix.evaluate import find_device, judge
from tokenmix.export import main as export_main
from tokenmix.exported import ExportedObjective, answer_of, expanded, is_exported, open_exported
from tokenmix.planning import read_budget
from tokenmix.planning.training import TrainedModel, train_model
from tokenmix.robustness import check_corruptible, corruption_errors
from tokenmix.tasks import find_task
from tokenmix_runtime.terminal import say

Source = str | os.PathLike[str] | LoadedModel
Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def train(
    data: str | os.PathLike[str] | None = None,
    recipe: str | None = None,
    *,
    out: str | os.PathLike[str] = "runs/train",
    budget: str | Sequence[str] | None = None,
    settings: Mapping[str, Any] | Sequence[str] = (),
    device: str = "auto",
    workers: int = 0,
    download: bool = False,
    fresh: bool = False,
    log: Callable[[str], None] = say,
    **more: Any,
) -> TrainedModel:
    """Train a model on a folder of pictures or another data set; the same call continues an interrupted training.

    Args:
        data: A folder, or a data set's name.
        recipe: A recipe's or model's name or a recipe's file; None: it is planned from the data and this machine.
        out: The run's folder.
        budget: What a plan may spend: ``"10min"``, ``"2ms"``, or both.
        settings: Values of the recipe, by paths too: ``{"schedule.epochs": 3}``, or ``["epochs=3"]``.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        workers: Processes that load samples.
        download: Whether named data sets and published weights may be fetched.
        fresh: Start again, whatever the folder holds.
        log: Takes plain lines.
        **more: Further values of the recipe by their short names: ``epochs=3, image_size=64``.

    Returns:
        What came of it: ``out``, ``result`` with the history, ``test``, ``advice``.

    Raises:
        ValueError: A name or value is wrong, or the folder holds another run.

    Examples:
        >>> import tokenmix
        >>> trained = tokenmix.train("photos", out="runs/photos", budget="10min")  # doctest: +SKIP
        >>> trained.test["top1"]  # doctest: +SKIP
        91.4
    """
    given = [f"{key}={value}" for key, value in settings.items()] if isinstance(settings, Mapping) else list(settings)
    given += [f"{key}={value}" for key, value in more.items()]
    words = budget.split() if isinstance(budget, str) else budget
    limits = read_budget(words) if words else None
    where: dict[str, Any] = {"device": device, "workers": workers, "download": download, "fresh": fresh, "log": log}
    return train_model(recipe, given, data=data, out=out, budget=limits, **where)


def evaluate(
    model: Source,
    data: str | os.PathLike[str],
    *,
    split: str | None = None,
    seed: int = 0,
    image_size: int | Sequence[int] | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    workers: int = 0,
    download: bool = False,
    corruptions: bool = False,
    log: Callable[[str], None] = say,
    **options: Any,
) -> dict[str, Any]:
    """Judge a trained or exported model on a data set.

    Args:
        model: A run's folder, a weights file, a model's name, an exported ``.onnx`` file, or a loaded model.
        data: A folder, or a data set's name.
        split: ``"train"``, ``"val"``, ``"test"`` or ``"all"``; None: what the model has not learnt from.
        seed: Of the split of a folder that has none and is not the run's.
        image_size: Pixels, one number or (height, width); None: the model's.
        batch_size: Samples at a time; None: the task's.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        workers: Processes that load samples.
        download: Whether named data sets may be fetched.
        corruptions: Judge corrupted pictures too, see `tokenmix.robustness.corruption_errors`.
        log: Takes plain lines.
        **options: Those of ``tokenmix eval`` that belong to the model's task, such as ``mirror=True``.

    Returns:
        The numbers by name, and ``rows``: one for each class or other part of the data; perhaps ``corruptions``.

    Raises:
        ValueError: The data cannot be read, are of other classes than the model, or cannot be corrupted.

    Examples:
        >>> import tokenmix
        >>> tokenmix.evaluate("runs/photos", "photos")["top1"]  # doctest: +SKIP
        91.4
        >>> tokenmix.evaluate("photos.onnx", "photos", split="test")["top1"]  # doctest: +SKIP
        91.4
    """
    exported = not isinstance(model, LoadedModel) and is_exported(os.fspath(model))
    loaded = _opened(model)
    task = find_task(loaded.task)
    if corruptions:
        check_corruptible(task.name)
        if exported:
            raise ValueError("corruptions: an exported file prepares its pictures itself; judge the model")
    judged = task.open_judged(os.fspath(data), loaded, split, seed=seed, download=download, log=log)
    if not judged.labelled:
        raise ValueError(f"{data}: nobody knows the answers, so none is judged; `tokenmix.predict` gives them")
    how: dict[str, Any] = {
        "device": find_device(device),
        "batch_size": batch_size,
        "image_size": image_size,
        "workers": workers,
        **options,
    }
    objective = (lambda metric: ExportedObjective(loaded, judged.samples, metric)) if exported else None
    found = judge(loaded, judged.samples, judged.facts, objective=objective, **how)
    answer = {**found.numbers, "rows": found.rows}
    if corruptions:
        answer["corruptions"] = corruption_errors(loaded, judged.samples, judged.facts, seed=seed, **how)
    return answer


def predict(
    model: Source, images: Paths, *, device: str = "auto", compile: bool = False, **options: Any
) -> list[dict[str, Any]]:
    """What a trained or exported model says of pictures.

    Args:
        model: A run's folder, a weights file, a model's name, an exported ``.onnx`` file, or a loaded model.
        images: A picture's file, a folder of them, a pattern, or several of these.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        compile: Run it in the fastest way on this machine, see `tokenmix.compile`, which takes a minute the first time.
        **options: Those of ``tokenmix predict`` that belong to the model's task: ``top=5``, ``threshold=0.5``,
            ``out="drawings"``.

    Returns:
        Of each picture ``image``, its path, and the answer as ``tokenmix predict --json`` has it.

    Raises:
        ValueError: The model cannot be opened or compiled, an option is wrong, or a picture cannot be read.

    Examples:
        >>> import tokenmix
        >>> tokenmix.predict("runs/photos", "cat.jpg", top=1)  # doctest: +SKIP
        [{'image': 'cat.jpg', 'top': [['cat', 0.98]]}]
    """
    exported = not isinstance(model, LoadedModel) and is_exported(os.fspath(model))
    loaded = _opened(model)
    where = find_device(device)
    listed = [images] if isinstance(images, str | os.PathLike) else list(images)
    files = expanded([os.fspath(image) for image in listed])
    if exported:
        if compile:
            raise ValueError("an exported file runs in ONNX Runtime already: leave compile out")
        return [{"image": path, **answer_of(loaded, path, **options).values} for path in files]
    loaded.model.to(where)
    task = find_task(loaded.task)
    if compile:
        loaded = _compiled(loaded, where, lambda one: task.answerer(one, where, **options))
    answer = task.answerer(loaded, where, **options)
    return [{"image": path, **answer(path).values} for path in files]


def _compiled(loaded: LoadedModel, where: torch.device, use: Callable[[LoadedModel], object]) -> LoadedModel:
    """A loaded model in the fastest way on this machine; ``use`` is tried before the minute that this takes."""
    from tokenmix.compilation import compile

    task = find_task(loaded.task)
    if task.raw_form(loaded.model) is not loaded.model:
        raise ValueError(
            f"{loaded.name} takes pictures of all sizes, and what is compiled is for one: leave compile out, or export"
        )
    example = task.example_inputs(loaded, 1).to(where)
    use(dataclasses.replace(loaded, model=compile(loaded.model, example, candidates=("pytorch",), cache=False)))
    return dataclasses.replace(loaded, model=compile(loaded.model, example))


def export(
    model: Source | torch.nn.Module,
    to: str | Sequence[str] = "onnx",
    out: str | os.PathLike[str] = "model",
    **options: Any,
) -> dict[str, Any]:
    """Write a model for other runtimes; a file is kept only if its runtime answers as PyTorch does.

    Args:
        model: A run's folder, a weights file, a model's name, a loaded model, or a classifier that timm made.
        to: Formats: ``"onnx"``, ``"openvino"``, ``"executorch"``, ``"coreml"``, ``"torch"``,
            ``"aoti"``.
        out: The stem of the files, or the name of one.
        **options: See `tokenmix.export.main.export`: ``precision="int8", calibration="photos"``, ``image_size=224``.

    Returns:
        The manifest: what ``STEM.json`` beside the files says.

    Raises:
        ValueError: An option is wrong, or the file does not compute what the model computes.
        ImportError: A format's packages are missing; the message has the install command.

    Examples:
        >>> import tokenmix
        >>> manifest = tokenmix.export("runs/photos", "onnx", "photos.onnx")  # doctest: +SKIP
        >>> manifest["files"]["onnx"]["file"]  # doctest: +SKIP
        'photos.onnx'
    """
    return export_main.export(model, [to] if isinstance(to, str) else to, out, **options)


def _opened(model: Source) -> Any:
    if isinstance(model, LoadedModel):
        return model
    return open_exported(os.fspath(model)) if is_exported(os.fspath(model)) else open_model(model)
