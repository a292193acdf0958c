"""The training commands that accidents happen to, and what makes the outcomes of two runs the same."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tokenmix.train.checkpoint import Checkpoints

SMALL = ("image_size=32", "model_args.depths=(1,1,1,1)", "model_args.dims=(8,12,16,24)", "ema_decay=0.9")
CHANCE = ("drop_path_rate=0.1", "mixup=0.2", "augment=standard")  # random numbers in the model, the batch, the images
OFTEN = ("--checkpoint-seconds", "0.2")
MIXERS = "model_args.mixers=aff,ffnified,dsm,additive"


@dataclass(frozen=True)
class Job:
    """A command small enough to be repeated a hundred times.

    Args:
        name: In messages.
        words: What stands after ``tokenmix train``.
        processes: How many train; two or more are started by ``torchrun``.
        photos: Whether it needs a folder ``photos`` where it is started.
    """

    name: str
    words: tuple[str, ...]
    processes: int = 1
    photos: bool = False


DIGITS = Job("digits", ("digits", *SMALL, *CHANCE, MIXERS, "epochs=4", *OFTEN))
PHOTOS = Job(
    "photos", ("mixernet_pico", "--data", "photos", *SMALL, *CHANCE, "batch_size=12", "epochs=6", *OFTEN), photos=True
)
WORKER = Job("photos with a worker", (*PHOTOS.words, "--workers", "1"), photos=True)
PAIR = Job("digits on two processes", (*DIGITS.words, "--timeout", "10"), processes=2)
SHARED = Job("digits on two processes that share the weights", (*PAIR.words, "--parallel", "fsdp"), processes=2)


def make_photos(folder: Path) -> None:
    """Three classes of 30 small JPEGs, each class of its own colour."""
    generator = np.random.default_rng(0)
    for label, name in enumerate(("blue", "green", "red")):
        (folder / name).mkdir(parents=True)
        for number in range(30):
            pixels = generator.integers(0, 160, (48, 56, 3), dtype=np.uint8)
            pixels[..., 2 - label] += 60
            Image.fromarray(pixels).save(folder / name / f"{number}.jpg", quality=90)


def outcome(out: Path) -> dict[str, Any]:
    """All that a finished run leaves but measured times: the last checkpoint's state and the files beside it.

    Raises:
        OSError: A file is missing.
        ValueError: One is not JSON.
    """
    checkpoints = Checkpoints(out)
    content = checkpoints.read(checkpoints.all()[0])
    parts = {name: content[name] for name in ("task", "average", "optimizer", "scaler", "best_weights", "recipe")}
    parts["place"] = [content["state"][name] for name in ("epoch", "step", "steps", "finished")]
    parts["history"] = [_untimed(row) for row in (out / "history.jsonl").read_text().splitlines()]
    parts["best.json"] = _untimed((out / "best.json").read_text())
    for name in ("recipe.json", "best.safetensors"):
        parts[name] = (out / name).read_bytes()
    parts["litter"] = sorted(path.name for path in out.rglob("*.tmp"))
    return parts


def _untimed(line: str) -> dict[str, Any]:
    row = json.loads(line)
    return {name: value for name, value in row.items() if name in ("epoch", "loss", "lr") or name.startswith("val_")}


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The parts in which two outcomes are not the same, bit for bit."""
    return [name for name in one if not _same(one[name], other[name])]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other


def trained_on(notes: list[Path]) -> Iterator[tuple[int, int, int, list[int]]]:
    """(rank, epoch, place in it, indices) of every batch in the sessions with these notes."""
    for folder in notes:
        for file in sorted(folder.glob("order-*.jsonl")):
            rank = int(file.name.split("-")[1])
            for line in file.read_text().splitlines():
                with contextlib.suppress(ValueError):  # the process may have died in the middle of the last line
                    yield rank, *json.loads(line)


def sample_order(notes: list[Path]) -> dict[tuple[int, int, int], list[int]]:
    """What was trained on at (rank, epoch, place in it).

    Raises:
        ValueError: A step that was repeated saw other samples than the first time.
    """
    order: dict[tuple[int, int, int], list[int]] = {}
    for rank, epoch, place, indices in trained_on(notes):
        if order.setdefault((rank, epoch, place), indices) != indices:
            raise ValueError(f"epoch {epoch + 1}, step {place + 1} saw other samples the second time")
    return order


def sample_sets(notes: list[Path]) -> dict[tuple[int, int], set[int]]:
    """What any process trained on at (epoch, place in it)."""
    found: dict[tuple[int, int], set[int]] = {}
    for _, epoch, place, indices in trained_on(notes):
        found.setdefault((epoch, place), set()).update(indices)
    return found
