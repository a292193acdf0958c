"""The demos: a detector and a segmenter trained on the embedded scenes, and judged on pictures that they never saw."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenmix.checkpoints import open_model
from tokenmix.data import load_data
from tokenmix.evaluate import judge
from tokenmix.names import unknown
from tokenmix.recipes import make_recipe
from tokenmix.terminal import say
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
    log: Callable[[str], None] = say,
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
        ``images``, how many test pictures there are; ``metrics`` and ``classes``, what they say as `Judgement` has it;
        ``seconds`` of the training; ``weights`` and ``report``, files.

    Raises:
        ValueError: There is no such demo or mixer, or a package of the extra ``demo`` is missing.
    """
    if name not in DEMOS:
        raise ValueError(unknown("demo", name, DEMOS))
    wishes = {"seed": seed, "model_args.mixers": mixers, "epochs": epochs}
    recipe = make_recipe(DEMOS[name], [f"{key}={value}" for key, value in wishes.items() if value is not None])
    data = load_data(recipe.data, task=recipe.task, log=log)
    result = fit(recipe, data, out, workers=workers, log=log, progress=progress, fresh=fresh)
    judged = judge(
        open_model(result.best_weights), data.test, data.classes, batch_size=recipe.batch_size, workers=workers
    )
    return {
        "images": len(data.test),
        "metrics": judged.numbers,
        "classes": judged.by_class,
        "seconds": result.seconds,
        "weights": str(result.best_weights),
        "report": str(Path(out) / "report.html"),
    }
