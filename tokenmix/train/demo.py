"""The demos: a detector and a segmenter trained on the embedded scenes, and judged on pictures that they never saw."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenmix.checkpoints import open_model
from tokenmix.evaluate import judge
from tokenmix.recipes import make_recipe
from tokenmix.sources import load_data
from tokenmix.tasks import all_tasks
from tokenmix.train.loop import fit
from tokenmix_runtime.names import unknown
from tokenmix_runtime.terminal import say


def demos() -> dict[str, str]:
    """The recipe of each demo, by the demo's name."""
    return {name: recipe for task in all_tasks().values() for name, recipe in task.demos().items()}


def train_demo(
    name: str,
    out: Path | str,
    *,
    mixers: str | None = None,
    epochs: float | None = None,
    seed: int = 0,
    workers: int = 0,
    fresh: bool = False,
    log: Callable[[str], None] = say,
    progress: bool = True,
) -> dict[str, Any]:
    """Train a demo's recipe on the CPU, then judge its best weights on the test pictures.

    Args:
        name: A name in `demos`.
        out: The run's folder, see ``tokenmix.train.fit``; an interrupted run there continues.
        mixers: Of the backbone, instead of the recipe's: one spec, or one per stage with commas between.
        epochs: Instead of the recipe's.
        seed: Of the weights, the order and the augmentation.
        workers: Processes that load pictures ahead.
        fresh: Start again, whatever the folder holds.
        log: Takes plain lines.
        progress: Show how far it is.

    Returns:
        ``task``; ``samples``, how many test samples there are; ``metrics`` and ``rows``, what they say as
        `tokenmix.evaluate.Judgement` has it;
        ``seconds`` of the training; ``weights`` and ``report``, files.

    Raises:
        ValueError: There is no such demo or mixer, or a package of the extra ``demo`` is missing.
    """
    recipes = demos()
    if name not in recipes:
        raise ValueError(unknown("demo", name, recipes))
    wishes = {"seed": seed, "model_args.mixers": mixers, "epochs": epochs}
    recipe = make_recipe(recipes[name], [f"{key}={value}" for key, value in wishes.items() if value is not None])
    data = load_data(recipe.run.data, task=recipe.task.name, log=log)
    result = fit(recipe, data, out, workers=workers, log=log, progress=progress, fresh=fresh)
    judged = judge(
        open_model(result.best_weights), data.test, data.facts, batch_size=recipe.run.batch_size, workers=workers
    )
    return {
        "task": recipe.task.name,
        "samples": len(data.test),
        "metrics": judged.numbers,
        "rows": judged.rows,
        "seconds": result.seconds,
        "weights": str(result.best_weights),
        "report": str(Path(out) / "report.html"),
    }
