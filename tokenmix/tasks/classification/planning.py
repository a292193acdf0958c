"""How one would train a classifier on a data set: by how many pictures there are, how large, and where.

The numbers were chosen by ``benchmarks/small_data.py``; `docs/finetune.md` has what it measured.
"""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import replace
from typing import Any

import torch

from tokenmix.recipes.parts import Model, Optimizer, Run, Schedule
from tokenmix.recipes.recipe import Recipe
from tokenmix.tasks.classification.images import ClassData
from tokenmix.tasks.classification.options import Augment, Options
from tokenmix.tasks.classification.recipes.finetune import finetune
from tokenmix.tasks.draft import Draft
from tokenmix.tasks.picture_sizes import Look, look_at, side_words, sides_up_to
from tokenmix.text_tables import counted

LEAST_SEEN, MOST_SEEN, EACH_SEEN = 40_000, 400_000, 80  # pictures that a training sees, and how often each
SIDES_CPU, SIDES_GPU = (96, 64, 48, 32), (224, 160, 128, 96, 64, 48, 32)  # in pixels
SIDES_PUBLISHED = (256, 192, 128)
BATCHES = ((100, 16), (600, 32), (4_000, 64))  # up to so many pictures: of them in a step
MANY = 128
FINE = 48  # up to that size the stem halves the picture once, or nothing of it would be left
LARGE = 4_000  # pictures from which on the larger model has something to learn from
STARTER = "resnet10t"  # timm's: from fresh weights it learns more of few pictures than mixernet_pico, measured
STARTER_MOST = 20_000  # pictures up to which that was measured, on CPUs
LEAST_STARTER = 0.2  # of its epochs: better than smaller pictures with all of them
FASTER = (("channels_last=true",), ("channels_last=true", "precision=bfloat16"))
# The largest class over the smallest from which on rare classes count for more, and from which on all are shown equally
# often: counting for more was measured at 2 (no gain), 5 and 20, showing at 20 alone (it gains more).
SKEWED, MOST_SKEWED = 3.0, 10.0


def drafts(data: ClassData, device: torch.device, *, published: bool) -> list[Draft]:
    """From the largest pictures and model to the smallest; with published weights first, if they may be fetched."""
    count, look = len(data.train), look_at(data.train)
    sides = look.sides
    gpu = device.type != "cpu"
    found = []
    for size in sides_up_to(SIDES_PUBLISHED, sides) if published else ():
        recipe = finetune(count)
        recipe = replace(recipe, task=replace(recipe.task, image_size=(size, size), balance=_balance(data)))
        found.append(Draft(recipe, words={"pictures": side_words(sides, size), **_words(data, recipe)}))
    sizes = sides_up_to(SIDES_GPU if gpu else SIDES_CPU, sides)
    models = ("mixernet_tiny", "mixernet_pico") if count >= LARGE or gpu else ("mixernet_pico",)
    choices = [(size, model) for size in sizes for model in models]
    if count < STARTER_MOST and not gpu:
        choices = [*((size, STARTER) for size in sizes), *choices]
    for size, model in choices:
        make = functools.partial(_recipe, data, model, size, look)
        recipe = make(max(10, round(min(max(LEAST_SEEN, EACH_SEEN * count), MOST_SEEN) / count)))
        least = LEAST_STARTER if model == STARTER else 0.5
        words = {"pictures": side_words(sides, size), **_words(data, recipe)}
        found.append(Draft(recipe, least, words, shorter=make, faster=() if gpu else FASTER))
    return found


def _recipe(data: ClassData, model: str, size: int, look: Look, epochs: int) -> Recipe:
    count = len(data.train)
    batch = next((batch for most, batch in BATCHES if count <= most), MANY)
    steps = epochs * max(1, count // batch)
    lasting = epochs >= 30  # so often that a network would learn the pictures by heart
    return Recipe(
        source="ours: planned from the data, see `tokenmix docs finetune`",
        expect="see `tokenmix docs finetune` for what such plans reached",
        cost="see the plan",
        model=Model(
            name=model,
            args=_arguments(model, size),
            drop_path_rate=0.05,
        ),
        optimizer=Optimizer(lr=2e-3, weight_decay=0.05, clip_grad=5.0, ema_decay=round(1 - 10 / max(200, steps), 5)),
        schedule=Schedule(epochs=epochs, warmup_epochs=min(max(1, round(epochs / 20)), epochs / 4), min_lr=2e-5),
        run=Run(batch_size=batch, patience=max(20, 2 * epochs // 3), slack=round(50 / max(1, len(data.val)) ** 0.5, 2)),
        task=Options(image_size=(size, size), label_smoothing=0.1, balance=_balance(data)),
        augment=_augment(data, look, lasting),
    )


def _arguments(model: str, size: int) -> dict[str, Any]:
    if model == STARTER:
        return {}
    return {"mixers": "ffnified", **({"stem_stride": 2} if size <= FINE else {})}


def _augment(data: ClassData, look: Look, lasting: bool) -> Augment:
    """What is done to photos, and the less that drawings bear: a part of a letter, or its mirror image, is another one.

    Args:
        data: What is learnt from.
        look: What its pictures look like.
        lasting: Whether each is seen so often that a network would learn it by heart.
    """
    if data.train.glyphs:
        return Augment(name="standard")
    if look.drawn:
        kind: dict[str, Any] = {"flip": False} if look.grey else {}
        return Augment(name="standard", crop_scale=(0.6, 1.0), rand_augment="rand-m5-n2" if lasting else None, **kind)
    return Augment(name="standard", cutmix=1.0 if lasting else 0.0)


def _balance(data: ClassData) -> str:
    """What `Options.balance` should be."""
    counts = Counter(data.train.labels).values()
    ratio = max(counts) / min(counts)
    return "none" if ratio <= SKEWED else "weights" if ratio <= MOST_SKEWED else "sampling"


def _words(data: ClassData, recipe: Recipe) -> dict[str, str]:
    """What is told of a plan beside its numbers."""
    counts = Counter(data.train.labels)
    most, largest = counts.most_common(1)[0]
    count, share = counted(len(data.classes), "class", "classes"), 100 * largest / len(data.train)
    told = f"{count}, the largest is {data.classes[most]} with {share:.0f} %"
    done = {"weights": "count for more", "sampling": "are shown as often as the others"}.get(recipe.task.balance)
    if done:
        told += f", the smallest has {min(counts.values()):,}: rare classes {done} (task.balance)"
    return {"classes": told}
