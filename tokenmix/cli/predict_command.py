"""Say and draw what is on pictures.

Of a classifier the most likely classes with bars; of a detector the objects, of a segmenter the share of each class,
and both are drawn: NAME-boxes.png, NAME-masks.png or NAME-segments.png; of a very long name the begin.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tokenmix.checkpoints import Opened, open_model
from tokenmix.cli.options import refuse_others, whole
from tokenmix.cli.output import bar, print_json, table
from tokenmix.data import open_image, preprocess
from tokenmix.evaluate import find_device, look_at
from tokenmix.files import atomic_path, is_full, short_name
from tokenmix.runtime.images import ImageError
from tokenmix.terminal import say

DENSE = ("detection", "instances", "segmentation")
FOR_TASKS = {"top": ("classification",), "threshold": ("detection", "instances"), "out": DENSE}
TOP, THRESHOLD, OUT = 5, 0.5, "predictions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tokenmix predict``."""
    add = parser.add_argument
    add("images", nargs="+", metavar="IMAGE", help="picture files")
    add("--model", required=True, help="a run's folder, a .safetensors file, an official checkpoint, or a model's name")
    add("--top", type=whole("top"), metavar="K", help=f"classification: how many classes to show (default: {TOP})")
    add("--threshold", type=float, metavar="S", help=f"detection: the least score, 0 to 1 (default: {THRESHOLD})")
    add("--out", metavar="DIR", help=f"detection, segmentation: where the drawings go (default: {OUT}/)")
    add("--device", default="auto", help="cpu, cuda, or auto: a GPU where there is one (default)")
    add("--json", action="store_true", help="print the answers as JSON")


def run(args: argparse.Namespace) -> None:
    """Predict every picture; one that cannot be answered is named, the others are still answered.

    In JSON it has an ``error`` in the place of its answer. The exit code is then 2.
    """
    if args.top is not None and args.top < 1:
        raise ValueError(f"--top must be 1 or more, got {args.top}")
    if args.threshold is not None and not 0 <= args.threshold <= 1:
        raise ValueError(f"--threshold must be from 0 to 1, got {args.threshold:g}")
    device = find_device(args.device)
    opened = open_model(args.model)
    refuse_others(args, opened.task, FOR_TASKS)
    opened.model.to(device)
    answer = _classifier(args, opened, device) if opened.task == "classification" else _drawer(args, opened, device)
    answers, broken = [], []
    for path in args.images:
        try:
            answers.append({"image": path, **answer(path, open_image(path))})
        except (ValueError, OSError, MemoryError) as error:
            if isinstance(error, OSError) and is_full(error):
                raise
            broken.append(str(error) if isinstance(error, ImageError) else f"{path}: {error or 'not enough memory'}")
            answers.append({"image": path, "error": broken[-1]})
            continue
        if not args.json:
            say("\n".join(_lines(answers[-1])))
    if args.json:
        print_json(answers)
    if broken:
        raise ValueError("\n".join(broken))


Answer = Callable[[str, Image.Image], dict[str, Any]]


def _classifier(args: argparse.Namespace, opened: Opened, device: torch.device) -> Answer:
    """Names the most likely classes."""

    def answer(path: str, picture: Image.Image) -> dict[str, Any]:
        image = preprocess(picture, opened.image_size, **opened.preparation)
        with torch.inference_mode():
            shares = opened.model(image[None].to(device))[0].float().softmax(0).cpu()
        values, indices = shares.topk(min(args.top or TOP, len(shares)))
        names = [opened.classes[i] if opened.classes else f"class {i}" for i in indices.tolist()]
        return {"top": [[n, v] for n, v in zip(names, values.tolist(), strict=True)]}

    return answer


def _drawer(args: argparse.Namespace, opened: Opened, device: torch.device) -> Answer:
    """Tells what is where, and draws it; the drawings of pictures with one name are numbered."""
    folder, written = Path(args.out or OUT), set[Path]()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out {folder} is a file; give a folder")
    threshold = THRESHOLD if args.threshold is None else args.threshold

    def answer(path: str, picture: Image.Image) -> dict[str, Any]:
        found = look_at(opened, picture, threshold=threshold, device=device)
        number = 1
        while (target := folder / short_name(Path(path).stem, _ending(found.kind, number))) in written:
            number += 1
        written.add(target)
        with atomic_path(target) as temporary:
            found.drawn(picture).save(temporary, "PNG")
        return {"size": [picture.height, picture.width], "drawing": str(target), **found.told()}

    return answer


def _ending(kind: str, number: int) -> str:
    return f"-{kind}.png" if number == 1 else f"-{kind}-{number}.png"


def _lines(answer: dict[str, Any]) -> list[str]:
    """An answer for people."""
    if "drawing" not in answer:
        width = max(len(name) for name, _ in answer["top"])
        bars = [f"  {name:<{width}}  {bar(share)}  {100 * share:5.1f} %" for name, share in answer["top"]]
        return [answer["image"], *bars]
    head = f"{answer['image']} -> {answer['drawing']}"
    if "classes" in answer:
        width = max(len(row["class"]) for row in answer["classes"])
        shares = [(row["class"], row["share"]) for row in answer["classes"]]
        return [head, *(f"  {name:<{width}}  {bar(share)}  {100 * share:5.1f} %" for name, share in shares)]
    if not answer["objects"]:
        return [head, "  nothing found; a lower --threshold shows what the model is less sure of"]
    rows = [
        (row["class"], f"{row['score']:.2f}", *(f"{value:.0f}" for value in row["box"])) for row in answer["objects"]
    ]
    text = table(("class", "score", "left", "top", "right", "bottom"), rows)
    return [head, *(f"  {line}" for line in text.splitlines())]
