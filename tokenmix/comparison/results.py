"""What a comparison writes down beside the numbers: what was compared, the command, answers with their pictures."""

from __future__ import annotations

import dataclasses
import io
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from tokenmix.bench import machine
from tokenmix.comparison.request import Request
from tokenmix.comparison.training import Trained
from tokenmix.data import DataSet
from tokenmix.mixers import split_specs
from tokenmix.train.checkpoint import versions

SAMPLES = 24


def facts(request: Request, images: DataSet, size: tuple[int, int]) -> dict[str, Any]:
    """What was compared, on what, by what."""
    base = request.recipe
    return {
        "skeleton": request.skeleton,
        "match": request.match,
        "seeds": list(range(base.seed, base.seed + request.seeds)),
        "data": {
            "name": images.name,
            "classes": images.classes,
            "train": len(images.train),
            "val": len(images.val),
            "test": len(images.test),
            "image_size": size[0] if size[0] == size[1] else size,
            "skipped": [dataclasses.asdict(skipped) for skipped in images.skipped],
        },
        "recipe": dataclasses.asdict(base),
        "machine": machine.describe(),
        "versions": {**machine.versions(), **versions()},
    }


def command_line(
    request: Request, out: str, settings: Sequence[str], options: Mapping[str, Any], defaults: Mapping[str, Any]
) -> str:
    """The command line that repeats this comparison: what differs from its defaults."""
    mixers = request.mixers
    if len(mixers) == 1 and len(split_specs(mixers[0])) > 1:
        mixers = (f"[{mixers[0]}]",)  # else it would be a list of mixers
    words = ["tokenmix", "compare", request.data, "--mixers", *mixers, "--out", out]
    asked = {**options, "skeleton": request.skeleton, "seeds": request.seeds, "match": request.match}
    for name, value in asked.items():
        if name in defaults and value == defaults[name]:
            continue
        flag = f"--{name.replace('_', '-')}"
        values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        words += [flag] if value is True else [flag, *(str(v) for v in values)]
    return shlex.join([*words, *(word for setting in settings for word in ("--set", setting))])


def add_samples(trained: Mapping[str, Trained], images: DataSet) -> dict[str, bytes]:
    """Give every mixer's entry its answers on the same test images, and return those as PNG by name.

    First come the images that most mixers get wrong, then some that all get right, evenly spread.
    """
    labels = next(iter(trained.values())).told["labels"]
    wrong = sum((one.told["probabilities"].argmax(1) != labels).int() for one in trained.values())
    assert isinstance(wrong, Tensor)
    hard = [i for i in wrong.argsort(descending=True, stable=True).tolist() if wrong[i] > 0][:SAMPLES]
    easy = [i for i in range(len(labels)) if wrong[i] == 0]
    room = max(SAMPLES // 3, SAMPLES - len(hard))
    shown = hard + easy[:: max(1, len(easy) // room)][:room]
    for one in trained.values():
        probabilities = one.told["probabilities"]
        one.entry["samples"] = [
            {
                "name": images.test.names[i],
                "truth": int(labels[i]),
                "prediction": int(probabilities[i].argmax()),
                "confidence": float(probabilities[i].max()),
            }
            for i in shown
        ]
    return {images.test.names[i]: _png(images, i) for i in shown}


def _png(images: DataSet, index: int) -> bytes:
    picture = images.test.load(index)
    picture.thumbnail((160, 160))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
