"""The demos: a detector and a segmenter trained on the embedded scenes, and judged on pictures that they never saw."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenmix.checkpoints import open_model
from tokenmix.data import DenseAugment, DenseLoader, DenseSet, load_data
from tokenmix.evaluate import evaluate
from tokenmix.names import unknown
from tokenmix.recipes import make_recipe
from tokenmix.tasks import TASKS
from tokenmix.train.loop import fit

DEMOS = {"detect": "scenes_detect", "segment": "scenes_segment"}  # and their recipes


def train_demo(
    name: str,
    out: Path | str,
    *,
    mixers: str | None = None,
    epochs: float | None = None,
    seed: int = 0,
    workers: int = 0,
    fresh: bool = False,
    log: Callable[[str], None] = print,
    progress: bool = True,
) -> dict[str, Any]:
    """Train a demo's recipe on the CPU, then judge its best weights on the test pictures.

    Args:
        name: A name in ``DEMOS``.
        out: The run's folder, see ``tokenmix.train.fit``; an interrupted run there continues.
        mixers: Of the backbone, instead of the recipe's: one spec, or one per stage with commas between.
        epochs: Instead of the recipe's.
        seed: Of the weights, the order and the augmentation.
        workers: Processes that load pictures ahead.
        fresh: Start again, whatever the folder holds.
        log: Takes plain lines.
        progress: Show how far it is.

    Returns:
        ``images``, how many test pictures there are; ``metrics`` of the task, and ``classes``, a row each, in percent,
        None where there is no such number; ``seconds`` of the training; ``weights`` and ``report``, files.

    Raises:
        ValueError: There is no such demo or mixer, or a package of the extra ``demo`` is missing.
    """
    if name not in DEMOS:
        raise ValueError(unknown("demo", name, DEMOS))
    wishes = {"seed": seed, "model_args.mixers": mixers, "epochs": epochs}
    recipe = make_recipe(DEMOS[name], [f"{key}={value}" for key, value in wishes.items() if value is not None])
    data = load_data(recipe.data, task=recipe.task, log=log)
    result = fit(recipe, data, out, workers=workers, log=log, progress=progress, fresh=fresh)
    assert isinstance(data.test, DenseSet)
    metrics, rows = _judge(result.best_weights, data.test, recipe.batch_size, workers)
    return {
        "images": len(data.test),
        "metrics": metrics,
        "classes": [{"class": name, **row} for name, row in zip(data.classes, rows, strict=True)],
        "seconds": result.seconds,
        "weights": str(result.best_weights),
        "report": str(Path(out) / "report.html"),
    }


def _judge(weights: Path, pictures: DenseSet, batch_size: int, workers: int) -> tuple[dict[str, Any], list[Any]]:
    """What a file of weights reaches: all classes together, and each."""
    opened = open_model(weights)
    assert opened.classes is not None
    loader = DenseLoader(
        pictures,
        batch_size=batch_size,
        image_size=opened.image_size,
        mean=opened.mean,
        std=opened.std,
        train=False,
        augment=DenseAugment(stretch=opened.crop_mode == "squash"),
        workers=workers,
    )
    task = TASKS[opened.task](opened.model, num_classes=len(opened.classes), **opened.task_args)
    metric: Any = task.metric()
    metrics = evaluate(task, loader, witnesses=(metric,))
    return _numbers(metrics), [_numbers(row) for row in metric.by_class()]


def _numbers(found: dict[str, Any]) -> dict[str, Any]:
    """The single numbers, as JSON has them."""
    single = {name: value for name, value in found.items() if isinstance(value, float)}
    return {name: value if math.isfinite(value) else None for name, value in single.items()}
