"""How one would train a detector or a segmenter on a data set: by how many pictures there are, how large, and where.

A few hundred pictures are too few for a network to learn from boxes or pixels what things look like. So its backbone
learns first to name the objects, cut out of the same pictures: that is quick, since a cut-out is small.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch

from tokenmix.recipes.parts import Model, Optimizer, Run, Schedule
from tokenmix.recipes.recipe import Recipe
from tokenmix.tasks.classification.images import ClassData
from tokenmix.tasks.classification.options import Augment, Options
from tokenmix.tasks.dense.crops import CROP_PX, count_objects, object_crops
from tokenmix.tasks.dense.sets import DenseData
from tokenmix.tasks.draft import Draft, FirstStage
from tokenmix.tasks.options import TaskAugment
from tokenmix.tasks.picture_sizes import look_at, side_words, sides_up_to
from tokenmix.text_tables import counted

SIDES_CPU, SIDES_GPU = (192, 128, 96, 64, 32), (512, 384, 256, 192, 128, 96, 64, 32)  # of the shorter side, in pixels
STEP_PX = 16  # sides are multiples of it
LEAST_EPOCHS, MOST_EPOCHS = 12, 200
FASTER = (("channels_last=true",),)
CROPS_SEEN, LEAST_CROPS = 25_000, 100
FEW = 2_000  # pictures below which they are changed strongly: scaled by far, cropped, their colours too


def drafts(
    data: DenseData,
    device: torch.device,
    model: Callable[[bool], Mapping[str, Any]],
    options: Callable[..., Any],
    augment: Callable[..., TaskAugment],
    *,
    seen: int,
    batch: int,
) -> list[Draft]:
    """From the largest pictures to the smallest; with a backbone that starts at cut-outs, where there are enough.

    Args:
        data: What is learnt from.
        device: Where.
        model: Whether there is a GPU -> name, head and arguments of the model.
        options: The task's own part of a recipe.
        augment: Its augmentation.
        seen: How many pictures a training sees.
        batch: Pictures per step.
    """
    count, sides, gpu = len(data.train), look_at(data.train).sides, device.type != "cpu"
    size_of = batch if count >= 4 * batch else max(2, count // 4)
    changes: dict[str, Any] = {"name": "standard", "photometric": True, "scale": (0.5, 1.6)}

    def make(side: int, epochs: int) -> Recipe:
        steps = epochs * max(1, count // size_of)
        return Recipe(
            source="ours: planned from the data, see `tokenmix docs finetune`",
            expect="see `tokenmix docs finetune` for what such plans reached",
            cost="see the plan",
            model=Model(**model(gpu)),
            optimizer=Optimizer(
                lr=2e-3, weight_decay=0.05, clip_grad=5.0, ema_decay=round(1 - 10 / max(200, steps), 5)
            ),
            schedule=Schedule(epochs=epochs, warmup_epochs=min(max(1, round(epochs / 16)), epochs / 4), min_lr=2e-5),
            run=Run(batch_size=size_of, patience=max(15, epochs // 2)),
            task=options(image_size=_size(sides, side)),
            augment=augment(**changes) if count < FEW else augment(name="standard"),
        )

    found = []
    for side in sides_up_to(SIDES_GPU if gpu else SIDES_CPU, sides):
        recipe = make(side, min(max(LEAST_EPOCHS, round(seen / count)), MOST_EPOCHS))
        words = {"pictures": side_words(sides, side), "classes": counted(len(data.classes), "class", "classes")}
        found.append(
            Draft(
                recipe,
                words=words,
                start=_start(data, recipe),
                shorter=functools.partial(make, side),
                faster=() if gpu else FASTER,
            )
        )
    return found


def _size(real: tuple[int, int], side: int) -> tuple[int, int]:
    """(height, width) in the shape of the pictures, with that shorter side, in whole steps."""
    factor = side / min(real)
    height, width = (max(STEP_PX, round(length * factor / STEP_PX) * STEP_PX) for length in real)
    return height, width


def _start(data: DenseData, dense: Recipe) -> FirstStage | None:
    """The backbone's first training, on cut-outs; None where there are too few of them, or of too few classes."""
    count, classes = count_objects(data)
    if count < LEAST_CROPS or classes < 2:
        return None
    args = {key: value for key, value in dense.model.args.items() if key in ("mixers", "depths", "dims", "stem_stride")}
    epochs = max(3, round(CROPS_SEEN / count))
    recipe = Recipe(
        source="ours: what a planned detector's or segmenter's backbone learns first, see `tokenmix docs finetune`",
        expect="see `tokenmix docs finetune`",
        cost="see the plan",
        model=Model(name=dense.model.name, args=args, drop_path_rate=0.05),
        optimizer=Optimizer(lr=2e-3, weight_decay=0.05, clip_grad=5.0, ema_decay=0.99),
        schedule=Schedule(epochs=epochs, warmup_epochs=min(max(1, round(epochs / 16)), epochs / 4), min_lr=2e-5),
        run=Run(data=data.name, batch_size=32, patience=max(5, epochs // 3)),
        task=Options(image_size=(CROP_PX, CROP_PX), label_smoothing=0.1, balance="weights"),
        augment=Augment(name="standard"),
    )

    def crops() -> ClassData:
        return object_crops(data)

    words = f"a backbone that first learns to name {count:,} cut-outs of the training pictures"
    return FirstStage(recipe, crops, words)
